//! Generated texts against reference texts: BLEU, ROUGE, and how long two token sequences agree.
//!
//! BLEU follows sacreBLEU and ROUGE the `rouge-score` package, each with its defaults, so that a figure means
//! what published ones mean. Where a compressed model is judged, the reference is the original's greedy
//! continuation: a score says how much of what the original says is kept, not how good it is.

mod bleu;
mod divergence;
mod rouge;
mod words;

pub use bleu::{Bleu, corpus_bleu, sentence_bleu};
pub use divergence::{Divergence, common_prefix};
pub use rouge::{Rouge, corpus_rouge, rouge};

#[cfg(test)]
mod tests;
