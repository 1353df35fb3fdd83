//! Keeps a crafted tokenizer from taking the process down: panics, backtracking, and texts that explode.

use crate::error::{Error, Result};
use lsb_format::escape;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The longest text in bytes that normalizing may lead to.
const MAX_GROWN: f64 = (1u64 << 30) as f64;
/// What normalizing may always multiply a text's length by: a space becomes three bytes, a byte becomes two.
const USUAL_GROWTH: f64 = 16.0;
/// The most that a decoder may multiply the length of its tokens by.
pub(super) const MAX_DECODER_GROWTH: f64 = 64.0;
/// Steps back that one match of a regular expression may take: those of published tokenizers take a few.
const BACKTRACKS: usize = 100_000;

/// Runs a call of the tokenizers crate, turning its errors and its panics into errors of ours.
pub(super) fn guarded<T>(
    doing: &str,
    call: impl FnOnce() -> Result<T, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(Error::Text(format!("{doing}: {}", escape(&e.to_string())))),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(Error::Text(format!(
                "{doing}: the tokenizer broke down ({}); its tokenizer.json is damaged or crafted",
                escape(said)
            )))
        }
    }
}

/// A regular expression that needs backtracking, which could take forever.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    regex: fancy_regex::Regex,
}

impl Pattern {
    /// Whether `pattern` can be matched in time linear in the text's length.
    pub(super) fn is_linear(pattern: &str) -> bool {
        regex::Regex::new(pattern).is_ok()
    }

    /// The pattern with limits, or `None` where it cannot be parsed.
    pub(super) fn new(pattern: &str) -> Option<Pattern> {
        let mut builder = fancy_regex::RegexBuilder::new(pattern);
        let regex = builder.backtrack_limit(BACKTRACKS).delegate_size_limit(10 << 20).build().ok()?;
        Some(Pattern { text: pattern.to_owned(), regex })
    }

    /// The pattern itself.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Looks for all matches in `text`. The tokenizers crate takes a match that was given up for the end of all
    /// matches, and would give wrong tokens without a word.
    ///
    /// # Errors
    /// [`Error::Text`] if a match takes too many steps, or all of them too long.
    pub(super) fn check(&self, text: &str) -> Result<()> {
        self.cut(text, |_| Ok(()))
    }

    /// Hands the matches in `text` and what is between them to `piece`, in order; none of them is empty.
    ///
    /// # Errors
    /// As [`Pattern::check`], and if `piece` fails.
    pub(super) fn cut(&self, text: &str, mut piece: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let limit = Duration::from_secs(20 + (text.len() as u64 >> 14));
        let start = Instant::now();
        let mut from = 0;
        for (i, found) in self.regex.find_iter(text).enumerate() {
            let found = found.map_err(|e| self.refused(&e.to_string()))?;
            for range in [from..found.start(), found.range()] {
                if let Some(text) = text.get(range).filter(|text| !text.is_empty()) {
                    piece(text)?;
                }
            }
            from = found.end();
            if i % 256 == 0 && start.elapsed() > limit {
                return Err(self.refused(&format!("no end after {} seconds", limit.as_secs())));
            }
        }
        match text.get(from..) {
            Some(rest) if !rest.is_empty() => piece(rest),
            _ => Ok(()),
        }
    }

    fn refused(&self, why: &str) -> Error {
        let pattern = escape(&self.text);
        Error::Text(format!(
            "the pattern \"{pattern}\" of tokenizer.json was given up on this text ({why}); shorten runs of equal \
             characters in the text, or take the tokenizer from a source you trust"
        ))
    }
}

/// How many times longer a part of `tokenizer.json` can make a text, at most.
///
/// A chain of a hundred replacements of one letter by two is a few kilobytes of JSON and 2^100 bytes of text.
pub(super) fn growth(part: &Value) -> f64 {
    let list = |name: &str| part.get(name).and_then(Value::as_array);
    for name in ["normalizers", "pretokenizers", "decoders"] {
        if let Some(parts) = list(name) {
            return parts.iter().map(growth).product();
        }
    }
    let length = |name: &str| part.get(name).and_then(Value::as_str).map_or(0.0, |text| text.len() as f64);
    let grown: f64 = match part.get("type").and_then(Value::as_str).unwrap_or_default() {
        "Replace" => {
            let literal = part.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str);
            match literal {
                Some(text) if !text.is_empty() => length("content") / text.len() as f64,
                // An expression may match the empty text between any two bytes.
                _ => length("content") + 1.0,
            }
        }
        "Prepend" => 1.0 + length("prepend"),
        "Metaspace" => 1.0 + length("replacement"),
        "WordPiece" => 2.0,
        "ByteLevel" => 2.0,
        "NFD" | "NFKD" | "NFKC" | "NFC" | "BertNormalizer" | "Lowercase" => 3.0,
        "Precompiled" => longest_replacement(part).max(1) as f64,
        _ => 1.0,
    };
    grown.max(1.0)
}

/// Refuses texts that could grow beyond reason under a normalizer with that growth.
pub(super) fn check_growth(bytes: usize, growth: f64) -> Result<()> {
    if growth > USUAL_GROWTH && bytes as f64 * growth > MAX_GROWN {
        return Err(Error::Text(format!(
            "the normalizer of tokenizer.json can make a text {growth:.0} times longer, too much for {bytes} bytes; \
             encode the text in shorter pieces"
        )));
    }
    Ok(())
}

/// Bytes of the longest replacement in a `precompiled_charsmap`: base64 of a table's length (four bytes), the
/// table, and the replacements, each ended by a zero byte.
fn longest_replacement(part: &Value) -> usize {
    let text = part.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut n_bits) = (0u32, 0u32);
    for c in text.bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = (bits << 6) | u32::from(digit);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
        }
    }
    let table = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    let replacements = bytes.get(table.saturating_add(4)..).unwrap_or(&bytes);
    replacements.split(|&b| b == 0).map(<[u8]>::len).max().unwrap_or(0)
}
