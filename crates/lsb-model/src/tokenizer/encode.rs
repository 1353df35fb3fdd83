//! From text to token ids, without keeping more than the ids.

use super::guard::{check_growth, guarded};
use super::{Tokenizer, refuse};
use crate::error::{Error, Result};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{
    Encoding, Model, OffsetReferential, OffsetType, PostProcessor, PostProcessorWrapper, PreTokenizedString,
    PreTokenizer,
};

/// Stands for the text when the frame around it is looked for; no vocabulary reaches it.
const MARK: u32 = u32::MAX;
/// The longest run of whitespace: beyond it the usual patterns overflow the stack of their matcher, which the
/// tokenizers crate takes for the end of the text.
const MAX_BLANK: usize = 500_000;

/// The longest text in bytes that is always encoded at once.
const WHOLE: usize = 4096;

/// The special tokens around a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

impl Frame {
    /// What `processor` puts before and after a text.
    pub(super) fn of(processor: Option<&PostProcessorWrapper>) -> Result<Frame> {
        let Some(processor) = processor else { return Ok(Frame::default()) };
        let text: Encoding = [(MARK, String::new(), (0, 0), None, 0)].into_iter().collect();
        let framed = guarded("the post_processor cannot be used", || processor.process(text, None, true))
            .map_err(|e| refuse("T4", e.to_string()))?;
        let ids = framed.get_ids();
        match ids.iter().position(|&id| id == MARK) {
            Some(at) if ids.iter().filter(|&&id| id == MARK).count() == 1 => {
                let (before, rest) = ids.split_at(at);
                Ok(Frame { before: before.to_vec(), after: rest.get(1..).unwrap_or_default().to_vec() })
            }
            _ => {
                let message = "the post_processor does not put the text exactly once between special tokens";
                Err(refuse("T4", message.to_owned()))
            }
        }
    }
}

impl Tokenizer {
    /// The token ids of `text`. With `special`, the tokens that the model expects around a text are added
    /// (`[CLS]` and `[SEP]`, or the token that begins a text). Nothing is padded and nothing is cut off.
    ///
    /// # Errors
    /// [`Error::Text`] if the tokenizer cannot handle the text: it says why and what to do.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        if special {
            ids.extend_from_slice(&self.frame.before);
        }
        self.encode_plain(text, &mut ids)?;
        if special {
            ids.extend_from_slice(&self.frame.after);
        }
        Ok(ids)
    }

    /// The token ids of `text` with special tokens around it, `max` at most: the text is cut at its end, the
    /// special tokens stay.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], and if `max` leaves no room for the text.
    pub fn encode_truncated(&self, text: &str, max: usize) -> Result<Vec<u32>> {
        let Frame { before, after } = &self.frame;
        let framed = before.len() + after.len();
        let room = max.checked_sub(framed).filter(|room| *room > 0).ok_or_else(|| {
            Error::Text(format!("{max} tokens leave no room for a text beside {framed} special tokens"))
        })?;
        let mut ids = before.clone();
        self.encode_plain(text, &mut ids)?;
        ids.truncate(before.len() + room);
        ids.extend_from_slice(after);
        Ok(ids)
    }

    /// Appends the ids of `text` alone.
    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        check_growth(text.len(), self.growth)?;
        if longest_blank(text) > MAX_BLANK {
            return Err(Error::Text(format!(
                "the text has more than {MAX_BLANK} spaces or line ends in a row; shorten them"
            )));
        }
        if let Some(pieces) = self.pieces.as_ref().filter(|_| text.len() > WHOLE)
            && let Some(done) = pieces.encode(self, text, ids)
        {
            return done;
        }
        self.encode_whole(text, ids)
    }

    /// Appends the ids of `text` alone, all at once: about a hundred bytes of memory for each of the text.
    pub(super) fn encode_whole(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let inner = &self.inner;
        let doing = "the text cannot be encoded";
        let mut pieces = guarded(doing, || {
            Ok(inner.get_added_vocabulary().extract_and_normalize(inner.get_normalizer(), text))
        })?;
        if let Some(part) = inner.get_pre_tokenizer() {
            self.pre_tokenize(part, &mut pieces)?;
        }
        guarded(doing, || {
            for (piece, _, tokens) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                match tokens {
                    Some(tokens) => ids.extend(tokens.iter().map(|t| t.id)),
                    None => ids.extend(inner.get_model().tokenize(piece)?.iter().map(|t| t.id)),
                }
            }
            Ok(())
        })
    }

    /// Cuts `text` into words; expressions that backtrack are tried with limits first.
    pub(super) fn pre_tokenize(
        &self,
        part: &PreTokenizerWrapper,
        text: &mut PreTokenizedString,
    ) -> Result<()> {
        match part {
            PreTokenizerWrapper::Sequence(list) => {
                return list.as_ref().iter().try_for_each(|inner| self.pre_tokenize(inner, text));
            }
            PreTokenizerWrapper::Split(split) => {
                if let SplitPattern::Regex(pattern) = &split.pattern
                    && let Some(guard) = self.patterns.iter().find(|p| p.text() == pattern)
                {
                    for (piece, _, tokens) in text.get_splits(OffsetReferential::Normalized, OffsetType::None)
                    {
                        if tokens.is_none() {
                            guard.check(piece)?;
                        }
                    }
                }
            }
            _ => {}
        }
        guarded("the text cannot be cut into words", || part.pre_tokenize(text))
    }
}

/// Characters in the longest run of whitespace.
fn longest_blank(text: &str) -> usize {
    let (mut longest, mut run) = (0, 0);
    for c in text.chars() {
        run = if c.is_whitespace() { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}
