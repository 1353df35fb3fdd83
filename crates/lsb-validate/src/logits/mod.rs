//! Logits to figures: perplexity of one model, and how far another one's predictions are from it.
//!
//! Full logits of a text never exist: at 128 000 ids, a thousand tokens are half a gigabyte. The tallies here
//! take them in tile by tile as the output head makes them, in one pass, and keep some hundred bytes per
//! token. [`LogitTally`] watches one model, [`PairTally`] two side by side; [`PerplexityFigures`] and
//! [`LogitComparison`] sum their tokens up. A [`Reference`] stands for an original that need not run again.

mod figures;
mod kernel;
mod online;
mod pair;
mod reference;
pub(crate) mod statistics;
mod tally;
mod tile;
mod top;

pub use figures::{LogitComparison, PerplexityFigures};
pub use pair::{PairTally, TokenComparison};
pub use reference::{
    DEFAULT_TOP, MAX_TOP, Reference, ReferenceHeader, ReferenceRow, ReferenceRows, ReferenceTally,
    ReferenceWriter, TopTally,
};
pub use tally::{LogitTally, TokenFigures};

#[cfg(test)]
mod tests;
