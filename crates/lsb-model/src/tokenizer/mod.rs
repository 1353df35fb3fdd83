//! Texts to token ids and back, from the `tokenizer.json` of a model or package folder.
//!
//! The work is done by the `tokenizers` crate; here is what makes it safe to feed with a stranger's file: sizes
//! and JSON are checked before parsing, ids against the vocabulary, expressions that backtrack run with limits,
//! and a panic of the crate becomes an error.

mod encode;
pub(crate) mod files;
mod guard;
mod load;
mod model;
mod pieces;
pub(crate) mod special;
mod stream;
#[cfg(test)]
mod tests;

pub use stream::TextStream;

use crate::error::Result;
use encode::Frame;
use guard::{Pattern, guarded};
use lsb_format::{Error, ErrorKind};
use model::Vocabulary;
use pieces::Pieces;

const FILE: &str = "tokenizer.json";

/// Translates between text and token ids.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// How many times longer the normalizer and pre-tokenizer may make a text.
    growth: f64,
    /// The expressions of the pre-tokenizer that backtrack.
    patterns: Vec<Pattern>,
    /// How long texts are cut, where that changes nothing.
    pieces: Option<Pieces>,
    /// Special tokens around a text.
    frame: Frame,
    max_tokens: Option<usize>,
    vocabulary: Vocabulary,
    bos: Option<u32>,
    eos: Option<u32>,
    stop_ids: Vec<u32>,
}

impl Tokenizer {
    /// The text of `ids`. Ids that are no token give nothing, as models have spare rows that mean nothing; with
    /// `skip_special`, neither do special tokens.
    ///
    /// # Errors
    /// [`crate::Error::Text`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        // Some decoders of the crate cannot take an empty list.
        let ids: Vec<u32> = ids.iter().copied().filter(|id| self.shows(*id, skip_special)).collect();
        if ids.is_empty() {
            return Ok(String::new());
        }
        guarded("the tokens cannot be decoded", || self.inner.decode(&ids, false))
    }

    /// A decoder for ids that arrive one by one.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special)
    }

    /// The number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.size
    }

    /// Makes sure that a model with `vocab` rows in its embedding has one for every token.
    ///
    /// # Errors
    /// `T7` with the largest id and the number of rows.
    pub fn check_ids(&self, vocab: u64) -> Result<()> {
        let largest = self.vocabulary.max_id;
        if u64::from(largest) < vocab {
            return Ok(());
        }
        let message = format!("the largest token id is {largest}, the model's embedding has {vocab} rows");
        let advice =
            "the tokenizer belongs to another model: take tokenizer.json from the same source as the weights";
        Err(Error::new(ErrorKind::Corruption, "T7", message).in_file(FILE).advise(advice).into())
    }

    /// The id of the token that is written exactly like `token`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// How the token with this id is written, before decoding.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token that begins a text: `bos_token` in `tokenizer_config.json`, or else `bos_token_id` of the model.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text: `eos_token` in `tokenizer_config.json`, or else the first `eos_token_id` of
    /// the model.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// All tokens that end a generated text, in ascending order: `eos_token_id` of `generation_config.json`, or
    /// else of `config.json`, and [`Tokenizer::eos`].
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Special tokens that [`Tokenizer::encode`] puts before and after a text.
    pub fn frame(&self) -> (&[u32], &[u32]) {
        (&self.frame.before, &self.frame.after)
    }

    /// The most tokens of a text, special ones included, that the file's truncation section allows: embedding
    /// models have one.
    pub fn max_tokens(&self) -> Option<usize> {
        self.max_tokens
    }

    /// Whether an id has a part in decoded text.
    fn shows(&self, id: u32, skip_special: bool) -> bool {
        match self.inner.id_to_token(id) {
            None => false,
            Some(token) => !(skip_special && self.inner.get_added_vocabulary().is_special_token(&token)),
        }
    }
}

fn refuse(rule: &'static str, message: String) -> crate::Error {
    Error::corruption(rule, message).in_file(FILE).into()
}
