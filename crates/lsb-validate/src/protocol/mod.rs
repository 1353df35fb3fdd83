//! How a text becomes windows and which predictions count: the protocol that every figure carries.
//!
//! A perplexity without its protocol says nothing: window, stride and a beginning-of-sequence token each
//! move it by more than a good codec does. `docs/metrics.md` gives the conventions and where they come from.

mod cut;

use serde::{Deserialize, Serialize};

/// Context of the default protocol for models that allow more.
pub const DEFAULT_WINDOW: usize = 2048;
/// Context of llama.cpp's perplexity tool unless it is told otherwise.
pub const LLAMA_CPP_WINDOW: usize = 512;

/// Whose convention cuts the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProtocolKind {
    /// Windows side by side, every id but the first scored once. With a stride: windows that overlap.
    #[default]
    #[serde(rename = "default")]
    Default,
    /// As llama.cpp's perplexity tool: only the second half of each window is scored.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
}

/// How to cut a text and what to score.
///
/// * Default: window `k` feeds `ids[kW..kW+W)` and scores `ids[kW+1..kW+W+1)`, whole windows only. A text
///   shorter than `W + 1` ids is one shorter window.
/// * With a stride `S` (as the Hugging Face guide "Perplexity of fixed-length models"): window `k` feeds
///   `ids[kS..kS+W)`, the last one what is left, and scores those of its ids that no window scored before.
/// * llama.cpp: window `k` feeds `ids[kW..kW+W)` and scores `ids[kW+W/2+1..kW+W)`.
///
/// A `bos` takes the first position of each window. By default it stands before `W - 1` ids of the text and
/// predicts nothing that counts, so that the same ids are scored with and without it. llama.cpp puts one
/// before the text and then overwrites the first id of each window with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Whose convention.
    pub kind: ProtocolKind,
    /// Positions of a window, `W`, the `bos` among them.
    pub window: usize,
    /// Ids by which a window advances; `None` for windows side by side.
    pub stride: Option<usize>,
    /// Id put at the first position of each window.
    pub bos: Option<u32>,
    /// Most ids to score. Ids of the text after the first `max_tokens + 1` are not looked at.
    pub max_tokens: Option<usize>,
}

/// A protocol that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The window leaves nothing to feed or to score.
    #[error("a window of {window} positions is too short; use at least {least}")]
    Window {
        /// Its positions.
        window: usize,
        /// The shortest that works.
        least: usize,
    },
    /// The stride is zero, or leaves ids between two windows unscored.
    #[error("a stride of {stride} does not work with windows of {ids} ids; use 1 to {ids}")]
    Stride {
        /// The stride.
        stride: usize,
        /// Ids of the text that a window holds.
        ids: usize,
    },
    /// llama.cpp knows no such combination.
    #[error("the llama.cpp protocol has no stride; leave the stride out, or use the default protocol")]
    LlamaCppStride,
    /// The text is too short.
    #[error(
        "the text has {ids} tokens and the protocol needs {least}; use a longer text or a smaller window"
    )]
    TooShort {
        /// Its ids, after a limit on them.
        ids: usize,
        /// The least that works.
        least: usize,
    },
}

impl Protocol {
    /// The default protocol for a model that allows `context` positions: `W = min(2048, context)`.
    pub fn for_context(context: usize) -> Self {
        Protocol {
            kind: ProtocolKind::Default,
            window: context.min(DEFAULT_WINDOW),
            stride: None,
            bos: None,
            max_tokens: None,
        }
    }

    /// The protocol of llama.cpp's perplexity tool with its default context of 512. `bos` is the model's
    /// where its tokenizer adds one, else `None`.
    pub fn llama_cpp(bos: Option<u32>) -> Self {
        Protocol {
            kind: ProtocolKind::LlamaCpp,
            window: LLAMA_CPP_WINDOW,
            stride: None,
            bos,
            max_tokens: None,
        }
    }

    /// The rule by which ids are scored, in one sentence.
    pub fn score_rule(&self) -> &'static str {
        match (self.kind, self.stride) {
            (ProtocolKind::LlamaCpp, _) => "the second half of each window",
            (ProtocolKind::Default, None) => {
                "every id after a fed position; the last position predicts the next window's first id"
            }
            (ProtocolKind::Default, Some(_)) => "the ids of each window that no window before it scored",
        }
    }

    /// Cuts the ids of a text, special tokens not added.
    ///
    /// # Errors
    /// If window and stride do not work together, or the text is too short.
    pub fn windows(&self, ids: &[u32]) -> Result<Vec<Window>, ProtocolError> {
        cut::windows(self, ids)
    }

    /// What was judged: this protocol, the text and how its ids were cut.
    pub fn record(&self, text: &[u8], ids: &[u32], windows: &[Window]) -> ProtocolRecord {
        ProtocolRecord {
            protocol: self.clone(),
            score: self.score_rule().to_owned(),
            text_blake3: blake3::hash(text).to_hex().to_string(),
            ids_blake3: ids_blake3(ids),
            text_tokens: ids.len(),
            windows: windows.len(),
            scored_tokens: windows.iter().map(|w| w.targets.len()).sum(),
            shortened: windows.iter().any(|w| w.feed.len() < self.window),
        }
    }
}

/// BLAKE3 of ids, each as four little-endian bytes, in hexadecimal.
pub(crate) fn ids_blake3<'a>(ids: impl IntoIterator<Item = &'a u32>) -> String {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(&id.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// One run of the model: what to feed, and which of its predictions count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Ids to feed from position 0, with an empty cache.
    pub feed: Vec<u32>,
    /// Positions in `feed` whose prediction of the next id counts.
    pub score: std::ops::Range<usize>,
    /// The id that follows each of those positions; as many.
    pub targets: Vec<u32>,
}

/// The protocol of a figure, with the text it was applied to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRecord {
    /// The protocol.
    #[serde(flatten)]
    pub protocol: Protocol,
    /// Which ids were scored, in words.
    pub score: String,
    /// BLAKE3 of the bytes of the text, in hexadecimal.
    pub text_blake3: String,
    /// BLAKE3 of the text's ids, each as four little-endian bytes, in hexadecimal: two models with the same
    /// one saw the same tokens.
    pub ids_blake3: String,
    /// Ids of the whole text.
    pub text_tokens: usize,
    /// Windows fed.
    pub windows: usize,
    /// Ids scored.
    pub scored_tokens: usize,
    /// Whether some window is shorter than `window`: all of a short text, or the last with a stride.
    pub shortened: bool,
}

#[cfg(test)]
mod tests;
