//! Two models' logits side by side, taken in tile by tile: how far apart their distributions are.

use super::kernel::{Largest, Moments, PairExp, PairMoments, arch};
use super::online::{BLOCK, Online};
use super::tile::for_each_row;
use super::top::{TopFive, overlap};
use pulp::Arch;
use std::ops::Range;

/// How two models differ at one scored token: P is the original's distribution of the next id, Q the other's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenComparison {
    /// `-ln P(target)`; infinite where a logit is NaN or infinite, or the target was never shown.
    pub original_nll: f64,
    /// `-ln Q(target)`, likewise.
    pub nll: f64,
    /// `KL(P || Q) = sum P ln(P/Q)` in nats, at least zero; infinite where a logit is NaN or infinite.
    pub kl: f64,
    /// Whether both have the same most likely id (of equal logits the lower id).
    pub top1: bool,
    /// Ids that both have among their five most likely, over five (over the vocabulary's size if less).
    pub top5: f32,
    /// Pearson correlation of the logits over the vocabulary; `None` where one side is constant.
    pub correlation: Option<f32>,
    /// Cosine of the logits; `None` where one side is all zero.
    pub cosine: Option<f32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    original: Online,
    other: Online,
    /// `sum e^x (x - y)`, with `x` and `y` the two logits less their shifts.
    cross: f64,
    moments: Moments,
    ids: u32,
    original_top: TopFive,
    other_top: TopFive,
}

impl State {
    fn observe(&mut self, arch: Arch, first: usize, a: &[f32], b: &[f32]) {
        self.ids += a.len() as u32;
        for (block, (a, b)) in a.chunks(BLOCK).zip(b.chunks(BLOCK)).enumerate() {
            let (scan_a, scan_b) = (arch.dispatch(Largest(a)), arch.dispatch(Largest(b)));
            self.original.finite &= scan_a.finite;
            self.other.finite &= scan_b.finite;
            let first = (first + block * BLOCK) as u32;
            if scan_a.finite {
                self.original_top.offer(first, a, scan_a.max);
            }
            if scan_b.finite {
                self.other_top.offer(first, b, scan_b.max);
            }
            if !(scan_a.finite && scan_b.finite) {
                // The pair is lost; the side that is whole still has its own figure.
                self.original.add(arch, a, scan_a);
                self.other.add(arch, b, scan_b);
                continue;
            }
            // With x' = x + by_a and y' = y + by_b: sum e^x' (x' - y') = e^by_a (cross + (by_a - by_b) sum e^x).
            let before = self.original.sum;
            let ((by_a, factor), (by_b, _)) = (self.original.raise(scan_a.max), self.other.raise(scan_b.max));
            self.cross = factor * (self.cross + (by_a - by_b) * before);
            let (shift_a, shift_b) = (self.original.shift, self.other.shift);
            let sums = arch.dispatch(PairExp { a, b, shift_a, shift_b });
            self.original.sum += sums.a;
            self.other.sum += sums.b;
            self.cross += sums.cross;
            self.moments.add(&arch.dispatch(PairMoments { a, b }));
        }
    }

    /// `sum P ln(P/Q)`, where `P = e^x / A` and `Q = e^y / B`: the cross sum over A, less `ln A`, plus `ln B`.
    fn kl(&self) -> f64 {
        let (a, b) = (self.original.sum, self.other.sum);
        if !(self.original.finite && self.other.finite && a > 0.0 && b > 0.0) {
            return f64::INFINITY;
        }
        // Rounding may leave a hair less than zero.
        (self.cross / a - a.ln() + b.ln()).max(0.0)
    }

    fn finish(&self) -> TokenComparison {
        let finite = self.original.finite && self.other.finite;
        TokenComparison {
            original_nll: self.original.nll(),
            nll: self.other.nll(),
            kl: self.kl(),
            top1: finite && self.original_top.ids[0] == self.other_top.ids[0],
            top5: if finite { overlap(&self.original_top.ids, &self.other_top.ids) } else { 0.0 },
            correlation: self.moments.correlation(f64::from(self.ids)).filter(|_| finite).map(|r| r as f32),
            cosine: self.moments.cosine().filter(|_| finite).map(|c| c as f32),
        }
    }
}

/// Gathers a [`TokenComparison`] per token from the logits of two models, neither of which ever exists as a
/// whole. The KL divergence is exact: it is over the whole vocabulary.
///
/// Tiles as for [`super::LogitTally`].
#[derive(Clone, Debug)]
pub struct PairTally {
    targets: Vec<u32>,
    states: Vec<State>,
}

impl PairTally {
    /// Memory per token, in bytes.
    pub const BYTES_PER_TOKEN: usize = size_of::<State>() + size_of::<u32>();

    /// A tally for tokens with these targets: the ids that really follow.
    pub fn new(targets: Vec<u32>) -> Self {
        let states = vec![State::default(); targets.len()];
        PairTally { targets, states }
    }

    /// Takes in a tile: the `original` and the `other` logits of ids `first..first + columns` for `tokens`,
    /// both row-major, one row per token.
    ///
    /// # Panics
    /// If the two differ in length, and as [`super::LogitTally::observe`].
    pub fn observe(&mut self, tokens: Range<usize>, first: usize, original: &[f32], other: &[f32]) {
        assert_eq!(original.len(), other.len());
        let (arch, targets, start) = (arch(), &self.targets, tokens.start);
        for_each_row(&mut self.states, tokens, first, original, |i, state, row| {
            let at = (i - start) * row.len();
            let other = &other[at..at + row.len()];
            state.original.look_for(targets[i], first, row);
            state.other.look_for(targets[i], first, other);
            state.observe(arch, first, row, other);
        });
    }

    /// The comparisons, one per token.
    pub fn finish(self) -> Vec<TokenComparison> {
        self.states.iter().map(State::finish).collect()
    }
}
