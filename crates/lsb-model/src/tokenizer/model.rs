//! The vocabulary and how words are cut into its tokens, from the `model` part of `tokenizer.json`.

use super::guard::guarded;
use super::refuse;
use crate::error::Result;
use lsb_format::escape;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use tokenizers::Model;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, Vocab};

/// How large a vocabulary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vocabulary {
    /// Tokens, added ones included.
    pub(super) size: usize,
    /// The largest id.
    pub(super) max_id: u32,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
}

/// Byte-pair encoding. Its `dropout` is for training and makes tokens random, so it is left out.
#[derive(Deserialize)]
struct Bpe {
    vocab: Vocab,
    merges: Vec<Merge>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

/// A pair of tokens, written as a list of two or with a space between them.
struct Merge((String, String));

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Merge, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: a list of two tokens, or two tokens with a space between them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge, E> {
                match text.split_once(' ') {
                    Some((a, b)) if !b.contains(' ') => Ok(Merge((a.to_owned(), b.to_owned()))),
                    _ => Err(E::invalid_value(de::Unexpected::Str(&escape(text)), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                let missing = |n| de::Error::invalid_length(n, &self);
                let a = list.next_element()?.ok_or_else(|| missing(0))?;
                let b = list.next_element()?.ok_or_else(|| missing(1))?;
                match list.next_element::<de::IgnoredAny>()? {
                    None => Ok(Merge((a, b))),
                    Some(_) => Err(missing(3)),
                }
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

/// Parses the model and checks its vocabulary.
pub(super) fn read_model(json: &str) -> Result<(ModelWrapper, Vocabulary)> {
    let doing = "the model cannot be used";
    let model = guarded(doing, || {
        let kind: Kind<'_> = serde_json::from_str(json)?;
        let mut model = match kind.kind.as_deref() {
            Some("BPE") => ModelWrapper::BPE(bpe(serde_json::from_str(json)?)?),
            _ => serde_json::from_str(json)?,
        };
        if let ModelWrapper::BPE(bpe) = &mut model {
            bpe.dropout = None;
        }
        Ok(model)
    });
    let model = model.map_err(|e| refuse("T5", e.to_string()))?;
    let vocabulary = check_vocabulary(&model)?;
    Ok((model, vocabulary))
}

fn bpe(parts: Bpe) -> tokenizers::Result<BPE> {
    let merges = parts.merges.into_iter().map(|merge| merge.0).collect();
    let mut builder = BPE::builder().vocab_and_merges(parts.vocab, merges);
    if let Some(unk) = parts.unk_token {
        builder = builder.unk_token(unk);
    }
    if let Some(prefix) = parts.continuing_subword_prefix {
        builder = builder.continuing_subword_prefix(prefix);
    }
    if let Some(suffix) = parts.end_of_word_suffix {
        builder = builder.end_of_word_suffix(suffix);
    }
    builder
        .fuse_unk(parts.fuse_unk.unwrap_or(false))
        .byte_fallback(parts.byte_fallback.unwrap_or(false))
        .ignore_merges(parts.ignore_merges.unwrap_or(false))
        .build()
}

/// Makes sure that there are tokens and that no two share an id: which of them an id then means would change
/// from run to run.
fn check_vocabulary(model: &ModelWrapper) -> Result<Vocabulary> {
    let tokens = model.get_vocab();
    let mut ids: HashMap<u32, &str> = HashMap::with_capacity(tokens.len());
    for (token, id) in &tokens {
        if let Some(other) = ids.insert(*id, token) {
            let (a, b) = (other.min(token), other.max(token));
            let message = format!("the tokens \"{}\" and \"{}\" both have id {id}", escape(a), escape(b));
            return Err(refuse("T7", message));
        }
    }
    match ids.keys().max() {
        Some(&max_id) => Ok(Vocabulary { size: tokens.len(), max_id }),
        None => Err(refuse("T6", "the vocabulary is empty".to_owned())),
    }
}
