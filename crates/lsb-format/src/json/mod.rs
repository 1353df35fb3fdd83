//! A pull reader of JSON that sees what general parsers hide: duplicate keys, byte offsets, nesting depth.
//!
//! Headers, shard indices and configurations come from strangers, and two parsers that disagree about one of
//! them are an attack. So every value is read once, in order, by a reader that knows where it is; nothing is
//! collected into a map before it was checked. What is accepted is RFC 8259 and nothing more.

mod check;
#[cfg(test)]
mod tests;

pub use check::check_document;

use crate::{Error, Result};
use std::borrow::Cow;

/// Which rule of `docs/bad-inputs.md` an error of a JSON text is reported under.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Not UTF-8, or a byte order mark.
    pub encoding: &'static str,
    /// Not JSON.
    pub syntax: &'static str,
    /// JSON, but another type of value than expected.
    pub kind: &'static str,
    /// Nested too deeply.
    pub depth: &'static str,
    /// A string with half a surrogate pair.
    pub surrogate: &'static str,
    /// `NaN`, `Infinity`, or a number out of range.
    pub number: &'static str,
    /// A key that occurs twice in one object.
    pub duplicate: &'static str,
}

/// The deepest nesting accepted: real headers need 3, real configurations 6.
pub const MAX_DEPTH: u32 = 16;

/// A position in a JSON text.
///
/// Offsets in errors count from `base`, the position of the text in its file.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    pos: usize,
    base: u64,
    depth: u32,
    rules: Rules,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`, which stand at byte `base` of their file.
    ///
    /// # Errors
    /// If the bytes are not UTF-8 or begin with a byte order mark.
    pub fn new(bytes: &'a [u8], base: u64, rules: Rules) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            Error::corruption(rules.encoding, "the JSON text is not UTF-8").at(base + e.valid_up_to() as u64)
        })?;
        if text.starts_with('\u{feff}') {
            return Err(
                Error::corruption(rules.encoding, "the JSON text begins with a byte order mark").at(base)
            );
        }
        Ok(Reader { text, pos: 0, base, depth: 0, rules })
    }

    /// Byte offset in the file of the next value or punctuation.
    pub fn offset(&mut self) -> u64 {
        self.skip_whitespace();
        self.here()
    }

    /// The next byte after whitespace, without taking it; `None` at the end of the text.
    pub fn peek(&mut self) -> Option<u8> {
        self.skip_whitespace();
        self.byte()
    }

    /// Reads an object, handing each key and its offset to `member`, which must read exactly the value.
    ///
    /// # Errors
    /// If no well-formed object follows, if it is nested too deeply, or if `member` fails.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>, u64) -> Result<()>,
    ) -> Result<()> {
        self.open(b'{', "an object")?;
        if !self.take(b'}') {
            loop {
                let at = self.offset();
                if self.peek() != Some(b'"') {
                    return Err(self.unexpected("a key in double quotes"));
                }
                let key = self.string()?;
                if !self.take(b':') {
                    return Err(self.unexpected("':'"));
                }
                member(self, key, at)?;
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.unexpected("',' or '}'"));
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array, calling `element` before each element, which it must read exactly.
    ///
    /// # Errors
    /// If no well-formed array follows, if it is nested too deeply, or if `element` fails.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.open(b'[', "an array")?;
        if !self.take(b']') {
            loop {
                element(self)?;
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.unexpected("',' or ']'"));
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string; borrowed where it has no escapes.
    ///
    /// # Errors
    /// If no well-formed string follows.
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong_kind("a string"));
        }
        self.pos += 1;
        let start = self.pos;
        let mut owned: Option<String> = None;
        loop {
            let run = self.pos;
            let stop = self.rest().iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20);
            let Some(stop) = stop else {
                self.pos = self.text.len();
                return Err(self.unexpected("'\"' to close the string"));
            };
            self.pos += stop;
            let plain = &self.text[run..self.pos];
            match self.byte() {
                Some(b'"') => {
                    self.pos += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(&self.text[start..self.pos - 1]),
                        Some(mut text) => {
                            text.push_str(plain);
                            Cow::Owned(text)
                        }
                    });
                }
                Some(b'\\') => {
                    let text = owned.get_or_insert_with(String::new);
                    text.push_str(plain);
                    let c = self.escaped()?;
                    owned.get_or_insert_with(String::new).push(c);
                }
                _ => return Err(self.unexpected("control characters in strings to be escaped")),
            }
        }
    }

    /// Reads a number and returns its text, which follows the JSON grammar.
    ///
    /// # Errors
    /// If no well-formed number follows; `NaN` and infinities are named as such.
    pub fn number(&mut self) -> Result<&'a str> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => {}
            Some(b'N' | b'I') => return Err(self.not_finite()),
            _ => return Err(self.wrong_kind("a number")),
        }
        let start = self.pos;
        if self.byte() == Some(b'-') {
            self.pos += 1;
            if self.byte() == Some(b'I') {
                return Err(self.not_finite());
            }
        }
        if self.byte() == Some(b'0') {
            self.pos += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.pos += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("a number without a leading zero"));
        }
        Ok(&self.text[start..self.pos])
    }

    /// Reads a whole number from 0 to 2^64-1 written in digits only; `None` for any other value, which is
    /// skipped.
    ///
    /// # Errors
    /// If no well-formed value follows.
    pub fn unsigned(&mut self) -> Result<Option<u64>> {
        if matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return Ok(self.number()?.parse().ok());
        }
        self.skip()?;
        Ok(None)
    }

    /// Reads any value and forgets it.
    ///
    /// # Errors
    /// If no well-formed value follows.
    pub fn skip(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'{') => self.object(|r, _, _| r.skip()),
            Some(b'[') => self.array(Self::skip),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'N' | b'I') => Err(self.not_finite()),
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Makes sure that only whitespace follows.
    ///
    /// # Errors
    /// If anything else does.
    pub fn end(&mut self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("nothing after the JSON value")),
        }
    }

    /// The error that something else than `wanted` is here.
    pub fn wrong_kind(&mut self, wanted: &str) -> Error {
        let rule = self.rules.kind;
        self.mismatch(rule, wanted)
    }

    fn unexpected(&mut self, wanted: &str) -> Error {
        let rule = self.rules.syntax;
        self.mismatch(rule, wanted)
    }

    fn mismatch(&mut self, rule: &'static str, wanted: &str) -> Error {
        let found = match self.text.get(self.pos..).and_then(|rest| rest.chars().next()) {
            None => "the end of the text".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        Error::corruption(rule, format!("expected {wanted}, found {found}")).at(self.here())
    }

    fn not_finite(&mut self) -> Error {
        let rest = self.text.get(self.pos..).unwrap_or_default();
        match ["NaN", "Infinity"].iter().find(|word| rest.starts_with(**word)) {
            Some(word) => {
                Error::corruption(self.rules.number, format!("{word} is not a JSON number")).at(self.here())
            }
            None => self.unexpected("a value"),
        }
    }

    fn open(&mut self, bracket: u8, what: &str) -> Result<()> {
        if self.peek() != Some(bracket) {
            return Err(self.wrong_kind(what));
        }
        if self.depth == MAX_DEPTH {
            let message = format!("values are nested more than {MAX_DEPTH} deep");
            return Err(Error::corruption(self.rules.depth, message).at(self.here()));
        }
        self.depth += 1;
        self.pos += 1;
        Ok(())
    }

    fn take(&mut self, punctuation: u8) -> bool {
        let found = self.peek() == Some(punctuation);
        self.pos += usize::from(found);
        found
    }

    fn literal(&mut self, word: &str) -> Result<()> {
        if !self.text[self.pos..].starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.pos += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Result<()> {
        let n = self.rest().iter().take_while(|b| b.is_ascii_digit()).count();
        self.pos += n;
        if n == 0 { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    /// Reads an escape sequence, standing on its backslash.
    fn escaped(&mut self) -> Result<char> {
        let at = self.here();
        self.pos += 1;
        let c = match self.byte() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.pos += 1;
                return self.code_point(at);
            }
            _ => return Err(self.unexpected("an escape sequence")),
        };
        self.pos += 1;
        Ok(c)
    }

    /// Reads the digits of a `\u` escape that began at `at`, and of its other half where it is one of a pair.
    fn code_point(&mut self, at: u64) -> Result<char> {
        let lone = Error::corruption(self.rules.surrogate, "half a surrogate pair in a string").at(at);
        let first = self.hex4()?;
        if !(0xd800..=0xdbff).contains(&first) {
            return char::from_u32(first).ok_or(lone);
        }
        if !self.rest().starts_with(b"\\u") {
            return Err(lone);
        }
        self.pos += 2;
        match self.hex4()? {
            second @ 0xdc00..=0xdfff => {
                char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(lone)
            }
            _ => Err(lone),
        }
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.rest().get(..4).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else { return Err(self.unexpected("four hexadecimal digits")) };
        let code = digits.iter().fold(0, |n, &d| n * 16 + char::from(d).to_digit(16).unwrap_or(0));
        self.pos += 4;
        Ok(code)
    }

    fn skip_whitespace(&mut self) {
        let n = self.rest().iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.pos += n;
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.pos..).unwrap_or(&[])
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn here(&self) -> u64 {
        self.base + self.pos as u64
    }
}
