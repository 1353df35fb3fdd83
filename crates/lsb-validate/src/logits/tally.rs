//! One model's logits, taken in tile by tile: what it costs to predict each target, and what it would say.

use super::kernel::arch;
use super::online::Online;
use super::tile::for_each_row;
use super::top::TopFive;
use std::ops::Range;

/// Figures of one scored token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenFigures {
    /// `-ln p(target)`, in nats. Infinite where a logit is NaN or infinite, or the target was never shown.
    pub nll: f64,
    /// `ln sum e^logit` over the vocabulary; infinite where a logit is NaN or infinite.
    pub log_sum_exp: f64,
    /// The five ids of the highest logits, highest first, of equal ones the lower id first. `u32::MAX` fills
    /// the places of a vocabulary smaller than five.
    pub top: [u32; 5],
}

impl TokenFigures {
    /// The id that greedy decoding would choose.
    pub fn greedy(&self) -> u32 {
        self.top[0]
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    online: Online,
    top: TopFive,
}

/// Gathers [`TokenFigures`] from logits that never exist all at once.
///
/// Tiles may come in any size and order, but show each id of each token exactly once. How the vocabulary is
/// cut may move a figure by rounding (1e-12); threads never do.
#[derive(Clone, Debug)]
pub struct LogitTally {
    targets: Vec<u32>,
    states: Vec<State>,
}

impl LogitTally {
    /// Memory per token, in bytes.
    pub const BYTES_PER_TOKEN: usize = size_of::<State>() + size_of::<u32>();

    /// A tally for tokens with these targets: the ids that really follow.
    pub fn new(targets: Vec<u32>) -> Self {
        let states = vec![State::default(); targets.len()];
        LogitTally { targets, states }
    }

    /// Takes in a tile: the logits of ids `first..first + columns` for `tokens`, row-major, one row per token.
    ///
    /// # Panics
    /// If `tokens` are not among those of [`LogitTally::new`], `values` is not a whole number of rows, or
    /// ids go beyond `u32::MAX`.
    pub fn observe(&mut self, tokens: Range<usize>, first: usize, values: &[f32]) {
        let (arch, targets) = (arch(), &self.targets);
        for_each_row(&mut self.states, tokens, first, values, |i, state, row| {
            let State { online, top } = state;
            online.observe(arch, (first, row), targets[i], |id, block, max| top.offer(id, block, max));
        });
    }

    /// The figures, one per token.
    pub fn finish(self) -> Vec<TokenFigures> {
        let figures = |state: &State| TokenFigures {
            nll: state.online.nll(),
            log_sum_exp: state.online.log_sum_exp(),
            top: state.top.ids,
        };
        self.states.iter().map(figures).collect()
    }
}
