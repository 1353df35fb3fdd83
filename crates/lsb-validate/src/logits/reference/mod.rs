//! What an original predicted, kept small, so that later models are compared without running it again.
//!
//! A [`Reference`] holds for each scored token the cost of its target, the log-sum-exp of its logits, and the
//! ids and logits of its `k` most likely ids: `16 + 8 k` bytes instead of four per id of the vocabulary. A
//! model compared with it has the exact perplexity ratio and top-1 and top-5 agreement; its KL divergence is
//! a lower bound, as all ids beyond the `k` count as one. Correlation and cosine of logits are not there.
//!
//! [`TopTally`] gathers it, [`ReferenceWriter`] writes it, [`ReferenceTally`] compares with it.

mod read;
mod tally;
mod write;

pub use tally::{ReferenceTally, TopTally};
pub use write::ReferenceWriter;

use crate::protocol::ProtocolRecord;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Ids kept per token unless told otherwise. On language models they hold nearly all probability.
pub const DEFAULT_TOP: usize = 64;
/// Most ids kept per token.
pub const MAX_TOP: usize = 4096;

/// First bytes of a file.
const MAGIC: [u8; 8] = *b"lsb-ref\n";
/// Version of the layout.
const VERSION: u32 = 1;
/// Bytes before the JSON header: magic, version, length of the header.
const PREFIX: usize = 16;
/// Longest JSON header.
const MAX_HEADER: usize = 1 << 16;
/// Length of the BLAKE3 at the end, over everything before it.
const TRAILER: usize = 32;

/// What a reference is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceHeader {
    /// The model, as its user knows it.
    pub model: String,
    /// The text and how it was cut.
    pub protocol: ProtocolRecord,
    /// Ids that a logit vector has.
    pub vocabulary: usize,
    /// Ids kept per token, 1 to [`MAX_TOP`] and at most the vocabulary.
    pub top: usize,
}

impl ReferenceHeader {
    /// Says what keeps two runs from being compared token by token; `None` where nothing does.
    pub fn difference(&self, protocol: &ProtocolRecord, vocabulary: usize) -> Option<String> {
        let (then, now) = (&self.protocol, protocol);
        if then.text_blake3 != now.text_blake3 {
            return Some("it was made from another text".into());
        }
        if then.ids_blake3 != now.ids_blake3 {
            return Some("its tokenizer cut the text differently".into());
        }
        if then.protocol != now.protocol {
            return Some(format!(
                "it was made with {:?}, and this run uses {:?}",
                then.protocol, now.protocol
            ));
        }
        (self.vocabulary != vocabulary).then(|| {
            format!("its model has a vocabulary of {}, and this one of {vocabulary}", self.vocabulary)
        })
    }

    /// Bytes of one token in a file.
    fn row_bytes(&self) -> usize {
        16 + 8 * self.top
    }
}

/// The kept predictions of consecutive scored tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceRows {
    top: usize,
    vocabulary: usize,
    nll: Vec<f64>,
    log_sum_exp: Vec<f64>,
    ids: Vec<u32>,
    logits: Vec<f32>,
}

/// The kept prediction of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReferenceRow<'a> {
    /// `-ln p(target)`, in nats.
    pub nll: f64,
    /// `ln sum e^logit` over the whole vocabulary.
    pub log_sum_exp: f64,
    /// The most likely ids, best first.
    pub ids: &'a [u32],
    /// Their logits; the log-probability is the logit less `log_sum_exp`.
    pub logits: &'a [f32],
}

impl ReferenceRows {
    fn with_capacity(top: usize, vocabulary: usize, tokens: usize) -> Self {
        ReferenceRows {
            top,
            vocabulary,
            nll: Vec::with_capacity(tokens),
            log_sum_exp: Vec::with_capacity(tokens),
            ids: Vec::with_capacity(tokens * top),
            logits: Vec::with_capacity(tokens * top),
        }
    }

    fn push(&mut self, row: ReferenceRow<'_>) {
        self.nll.push(row.nll);
        self.log_sum_exp.push(row.log_sum_exp);
        self.ids.extend_from_slice(row.ids);
        self.logits.extend_from_slice(row.logits);
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.nll.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nll.is_empty()
    }

    /// The prediction of one token.
    ///
    /// # Panics
    /// If `token` is not below [`ReferenceRows::len`].
    pub fn row(&self, token: usize) -> ReferenceRow<'_> {
        let kept: Range<usize> = token * self.top..(token + 1) * self.top;
        ReferenceRow {
            nll: self.nll[token],
            log_sum_exp: self.log_sum_exp[token],
            ids: &self.ids[kept.clone()],
            logits: &self.logits[kept],
        }
    }
}

/// A reference in memory: `16 + 8 top` bytes per token.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// What it is of.
    pub header: ReferenceHeader,
    /// One row per scored token, in the protocol's order.
    pub rows: ReferenceRows,
}

#[cfg(test)]
mod tests;
