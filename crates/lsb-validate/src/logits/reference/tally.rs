//! Gathering a reference from an original's logits, and comparing a later model's with it.

use super::super::kernel::arch;
use super::super::online::Online;
use super::super::pair::TokenComparison;
use super::super::tile::for_each_row;
use super::super::top::{Best, NO_ID, TopFive, overlap};
use super::{MAX_TOP, ReferenceRow, ReferenceRows};
use lsb_format::Error;
use std::ops::Range;

/// Least mass that a model is taken to give to all ids beyond the kept ones: below it, rounding decides. Taking
/// more than there is keeps the bound a lower one.
const LEAST_TAIL: f64 = 1e-9;

#[derive(Clone, Debug)]
struct TopState {
    online: Online,
    ids: Box<[u32]>,
    logits: Box<[f32]>,
}

/// Gathers the rows of a reference. Tiles as for [`super::super::LogitTally`].
#[derive(Clone, Debug)]
pub struct TopTally {
    top: usize,
    vocabulary: usize,
    targets: Vec<u32>,
    states: Vec<TopState>,
}

impl TopTally {
    /// A tally for tokens with these targets that keeps the `top` most likely of `vocabulary` ids, at least
    /// five and at most [`MAX_TOP`] where there are as many.
    pub fn new(targets: Vec<u32>, top: usize, vocabulary: usize) -> Self {
        let top = top.clamp(5, MAX_TOP).min(vocabulary);
        let state = TopState {
            online: Online::default(),
            ids: vec![NO_ID; top].into(),
            logits: vec![f32::NEG_INFINITY; top].into(),
        };
        TopTally { top, vocabulary, states: vec![state; targets.len()], targets }
    }

    /// Ids kept per token.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Memory per token that keeps `top` ids, in bytes.
    pub const fn bytes_per_token(top: usize) -> usize {
        size_of::<TopState>() + size_of::<u32>() + 8 * top
    }

    /// Takes in a tile, as [`super::super::LogitTally::observe`] does.
    ///
    /// # Panics
    /// As there.
    pub fn observe(&mut self, tokens: Range<usize>, first: usize, values: &[f32]) {
        let (arch, targets) = (arch(), &self.targets);
        for_each_row(&mut self.states, tokens, first, values, |i, state, row| {
            let TopState { online, ids, logits } = state;
            online.observe(arch, (first, row), targets[i], |id, block, max| {
                Best { values: logits, ids }.offer(id, block, max);
            });
        });
    }

    /// The rows, one per token.
    ///
    /// # Errors
    /// If a logit was NaN or infinite, or a target or too few ids were shown: nothing can be compared with that.
    pub fn finish(self) -> lsb_format::Result<ReferenceRows> {
        let mut rows = ReferenceRows::with_capacity(self.top, self.vocabulary, self.states.len());
        for (token, state) in self.states.iter().enumerate() {
            let (nll, log_sum_exp) = (state.online.nll(), state.online.log_sum_exp());
            let whole = state.ids.last().is_none_or(|&id| id != NO_ID);
            if !(nll.is_finite() && log_sum_exp.is_finite() && whole) {
                let message =
                    format!("the logits of scored token {token} are not finite numbers over the vocabulary");
                return Err(Error::argument(message).advise("a reference needs a model that works"));
            }
            rows.push(ReferenceRow { nll, log_sum_exp, ids: &state.ids, logits: &state.logits });
        }
        Ok(rows)
    }
}

#[derive(Clone, Debug)]
struct CompareState {
    online: Online,
    top: TopFive,
    /// This model's logits of the reference's ids; NaN until shown.
    logits: Box<[f32]>,
}

/// Gathers a [`TokenComparison`] per token from one model's logits and a reference. Tiles as for
/// [`super::super::LogitTally`].
///
/// The KL divergence is a lower bound: ids beyond the kept ones count as one id, and lumping ids together
/// never makes two distributions easier to tell apart (log-sum inequality).
#[derive(Clone, Debug)]
pub struct ReferenceTally<'a> {
    rows: &'a ReferenceRows,
    first: usize,
    targets: Vec<u32>,
    states: Vec<CompareState>,
}

impl<'a> ReferenceTally<'a> {
    /// A tally for the scored tokens `first..first + targets.len()` of the reference, which it calls `0..`.
    ///
    /// # Panics
    /// If the reference has fewer tokens.
    pub fn new(rows: &'a ReferenceRows, first: usize, targets: Vec<u32>) -> Self {
        assert!(first + targets.len() <= rows.len(), "tokens {first}.. of {}", rows.len());
        let state = CompareState {
            online: Online::default(),
            top: TopFive::default(),
            logits: vec![f32::NAN; rows.top].into(),
        };
        ReferenceTally { rows, first, states: vec![state; targets.len()], targets }
    }

    /// Memory per token beside the reference's, in bytes, where that keeps `top` ids.
    pub const fn bytes_per_token(top: usize) -> usize {
        size_of::<CompareState>() + size_of::<u32>() + 4 * top
    }

    /// Takes in a tile, as [`super::super::LogitTally::observe`] does.
    ///
    /// # Panics
    /// As there.
    pub fn observe(&mut self, tokens: Range<usize>, first: usize, values: &[f32]) {
        let (arch, targets, rows, offset) = (arch(), &self.targets, self.rows, self.first);
        for_each_row(&mut self.states, tokens, first, values, |i, state, row| {
            let CompareState { online, top, logits } = state;
            for (&id, logit) in rows.row(offset + i).ids.iter().zip(logits) {
                let at = (id as usize).checked_sub(first);
                if let Some(&found) = at.and_then(|at| row.get(at)) {
                    *logit = found;
                }
            }
            online.observe(arch, (first, row), targets[i], |id, block, max| top.offer(id, block, max));
        });
    }

    /// The comparisons, one per token. Correlation and cosine are `None`.
    pub fn finish(self) -> Vec<TokenComparison> {
        let all_kept = self.rows.top == self.rows.vocabulary;
        let compare = |(i, state): (usize, &CompareState)| {
            let row = self.rows.row(self.first + i);
            let five = &row.ids[..row.ids.len().min(5)];
            TokenComparison {
                original_nll: row.nll,
                nll: state.online.nll(),
                kl: kl_bound(row, state, all_kept),
                top1: state.online.finite && row.ids.first() == state.top.ids.first(),
                top5: if state.online.finite { overlap(five, &state.top.ids) } else { 0.0 },
                correlation: None,
                cosine: None,
            }
        };
        self.states.iter().enumerate().map(compare).collect()
    }
}

/// `sum p ln(p/q)` over the kept ids, plus the same for all others as one.
fn kl_bound(row: ReferenceRow<'_>, state: &CompareState, all_kept: bool) -> f64 {
    let log_sum_exp = state.online.log_sum_exp();
    let (mut kl, mut p_kept, mut q_kept) = (0.0, 0.0, 0.0);
    for (&original, &other) in row.logits.iter().zip(&state.logits) {
        let (ln_p, ln_q) = (f64::from(original) - row.log_sum_exp, f64::from(other) - log_sum_exp);
        let p = ln_p.exp();
        kl += p * (ln_p - ln_q);
        p_kept += p;
        q_kept += ln_q.exp();
    }
    let p_tail = 1.0 - p_kept;
    if !all_kept && p_tail > LEAST_TAIL {
        kl += p_tail * (p_tail / (1.0 - q_kept).max(LEAST_TAIL)).ln();
    }
    // Infinite or NaN where a logit was, or where one was never shown.
    if kl.is_finite() { kl.max(0.0) } else { f64::INFINITY }
}
