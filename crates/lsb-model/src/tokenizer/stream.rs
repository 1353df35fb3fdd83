//! Text from token ids that arrive one by one: each piece as soon as no later token can change it.

use super::Tokenizer;
use crate::error::Result;
use tokenizers::DecoderWrapper;

/// Decodes ids that arrive one by one. The pieces together are what [`Tokenizer::decode`] gives for all ids.
///
/// A token's text may depend on tokens around it: a character's bytes are spread over tokens, the first token
/// loses its space, byte tokens in a row stand and fall together. So each piece is the difference between two
/// decoded windows that begin with the tokens of the piece before.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The tokens of the last pieces, then those whose text is not out yet.
    window: Vec<u32>,
    /// How many of `window` are out.
    done: usize,
    /// The text of those.
    shown: String,
    reach: Reach,
}

/// How far a token's text depends on tokens after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Not at all.
    None,
    /// Each byte is written as a character of its own, as in GPT-2.
    Level,
    /// Tokens such as `<0xE2>`; a run of them is valid or not as a whole.
    Fallback,
    /// Any token may: text is given at the end. No language model that runs here has such a decoder.
    All,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        let reach = tokenizer.inner.get_decoder().map_or(Reach::None, reach_of);
        TextStream { tokenizer, skip_special, window: Vec::new(), done: 0, shown: String::new(), reach }
    }

    /// Takes the next id; returns the text that is now complete, if any.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        if !self.tokenizer.shows(id, self.skip_special) {
            return Ok(None);
        }
        self.window.push(id);
        if self.is_open(id)? {
            return Ok(None);
        }
        let text = self.tokenizer.decode(&self.window, false)?;
        let Some(piece) = text.strip_prefix(self.shown.as_str()).filter(|piece| !piece.is_empty()) else {
            return Ok(None);
        };
        let piece = piece.to_owned();
        // A window must not begin with a token whose text vanishes at the beginning.
        let tail = self.window.get(self.done..).unwrap_or_default();
        let tail_text = self.tokenizer.decode(tail, false)?;
        if tail_text.is_empty() {
            self.shown = text;
        } else {
            self.shown = tail_text;
            self.window.drain(..self.done);
        }
        self.done = self.window.len();
        Ok(Some(piece))
    }

    /// Ends the text: returns what was still held back.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window, false)?;
        Ok(text.strip_prefix(self.shown.as_str()).unwrap_or_default().to_owned())
    }

    /// Whether the next token could change the text of this one.
    fn is_open(&self, id: u32) -> Result<bool> {
        Ok(match self.reach {
            Reach::None => false,
            Reach::All => true,
            Reach::Fallback => self.tokenizer.token(id).is_some_and(|token| is_byte(&token)),
            Reach::Level => {
                let tail = self.window.get(self.done..).unwrap_or_default();
                let mut bytes = Vec::new();
                for token in tail.iter().filter_map(|id| self.tokenizer.token(*id)) {
                    append_bytes(&token, &mut bytes);
                }
                ends_inside_character(&bytes)
            }
        })
    }
}

fn reach_of(decoder: &DecoderWrapper) -> Reach {
    match decoder {
        DecoderWrapper::ByteLevel(_) => Reach::Level,
        DecoderWrapper::ByteFallback(_) => Reach::Fallback,
        DecoderWrapper::WordPiece(_) | DecoderWrapper::Metaspace(_) | DecoderWrapper::Fuse(_) => Reach::None,
        DecoderWrapper::Replace(_) | DecoderWrapper::Strip(_) => Reach::None,
        DecoderWrapper::BPE(_) | DecoderWrapper::CTC(_) => Reach::All,
        DecoderWrapper::Sequence(list) => reach_of_sequence(list.get_decoders()),
    }
}

fn reach_of_sequence(parts: &[DecoderWrapper]) -> Reach {
    let (mut reach, mut joined) = (Reach::None, false);
    for part in parts {
        let own = match part {
            // What acts on the joined text may act across tokens, unless it only looks at the beginning.
            DecoderWrapper::Strip(strip) if strip.stop == 0 => Reach::None,
            DecoderWrapper::Fuse(_) => Reach::None,
            _ if joined => Reach::All,
            part => reach_of(part),
        };
        reach = match (reach, own) {
            (Reach::None, reach) | (reach, Reach::None) => reach,
            _ => Reach::All,
        };
        joined |= matches!(part, DecoderWrapper::Fuse(_) | DecoderWrapper::ByteLevel(_));
    }
    reach
}

/// Whether a token stands for one byte.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Appends the bytes that a token of a byte-level vocabulary stands for: its characters where all stand for
/// bytes, else itself.
fn append_bytes(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for c in token.chars() {
        let byte = match u32::from(c) {
            code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => code,
            // The bytes that are not printable, in order, are written from U+0100 on.
            code @ 0x100..=0x120 => code - 0x100,
            code @ 0x121..=0x142 => code - 0x121 + 0x7f,
            0x143 => 0xad,
            _ => {
                bytes.truncate(start);
                return bytes.extend_from_slice(token.as_bytes());
            }
        };
        bytes.push(byte as u8);
    }
}

/// Whether `bytes` end with the beginning of a character.
fn ends_inside_character(bytes: &[u8]) -> bool {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    std::str::from_utf8(last).is_err_and(|e| e.error_len().is_none())
}
