//! The error of everything that reads bytes: whose fault it is, where it is, and what to do.

use std::fmt;

/// Result of reading or writing a record.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bytes are damaged or hostile: fetch or build the file again.
    Corruption,
    /// The bytes end too early: the file was cut short.
    Truncated,
    /// The bytes are something else, or of a version this build does not read.
    Compatibility,
    /// The caller asked for something impossible.
    InvalidArgument,
}

/// Something is wrong with bytes that were read, and where.
///
/// `rule` is a short stable name (`B35`) listed with its meaning in `docs/bad-inputs.md`. File and tensor
/// are filled in by whoever knows them, so a low layer may leave them empty and a higher one add them
/// with [`Error::in_file`] and [`Error::in_tensor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Details>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Details {
    kind: ErrorKind,
    rule: &'static str,
    message: String,
    advice: &'static str,
    file: Option<String>,
    tensor: Option<String>,
    tile: Option<u64>,
    offset: Option<u64>,
}

impl Error {
    /// A new error of `kind` under `rule`, saying `message`.
    pub fn new(kind: ErrorKind, rule: &'static str, message: impl Into<String>) -> Self {
        Error(Box::new(Details {
            kind,
            rule,
            message: message.into(),
            advice: "",
            file: None,
            tensor: None,
            tile: None,
            offset: None,
        }))
    }

    /// Shorthand for [`ErrorKind::Corruption`].
    pub fn corruption(rule: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corruption, rule, message)
    }

    /// Shorthand for [`ErrorKind::InvalidArgument`], which needs no rule.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, "", message)
    }

    /// Adds what the reader of the message should do.
    #[must_use]
    pub fn advise(mut self, advice: &'static str) -> Self {
        self.0.advice = advice;
        self
    }

    /// Names the file, unless a lower layer already did.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.0.file.get_or_insert_with(|| file.into());
        self
    }

    /// Names the tensor, unless a lower layer already did.
    #[must_use]
    pub fn in_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.0.tensor.get_or_insert_with(|| tensor.into());
        self
    }

    /// Names the tile, unless a lower layer already did.
    #[must_use]
    pub fn in_tile(mut self, tile: u64) -> Self {
        self.0.tile.get_or_insert(tile);
        self
    }

    /// Gives the byte offset inside the file, unless a lower layer already did.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Who must act.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The rule that was broken, such as `B35`; empty for arguments.
    pub fn rule(&self) -> &'static str {
        self.0.rule
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it; empty when the message says all there is.
    pub fn advice(&self) -> &'static str {
        self.0.advice
    }

    /// The file, where known.
    pub fn file(&self) -> Option<&str> {
        self.0.file.as_deref()
    }

    /// The tensor, where known (unescaped: use [`escape`] before printing).
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }

    /// The tile, where known.
    pub fn tile(&self) -> Option<u64> {
        self.0.tile
    }

    /// The byte offset inside the file, where known.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }
}

/// Prints a name from a file so that it cannot act on a terminal: control and direction-changing
/// characters are escaped, and long names are cut.
pub fn escape(name: &str) -> String {
    const LIMIT: usize = 160;
    let mut out = String::new();
    for c in name.chars() {
        if out.len() > LIMIT {
            out.push('…');
            break;
        }
        let direction =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || direction || c == '\u{feff}' {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &*self.0;
        if !d.rule.is_empty() {
            write!(f, "[{}] ", d.rule)?;
        }
        let mut place = Vec::new();
        if let Some(file) = &d.file {
            place.push(escape(file));
        }
        if let Some(tensor) = &d.tensor {
            place.push(format!("tensor \"{}\"", escape(tensor)));
        }
        if let Some(tile) = d.tile {
            place.push(format!("tile {tile}"));
        }
        if let Some(offset) = d.offset {
            place.push(format!("at byte {offset}"));
        }
        if !place.is_empty() {
            write!(f, "{}: ", place.join(", "))?;
        }
        f.write_str(&d.message)?;
        if !d.advice.is_empty() {
            write!(f, "; {}", d.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_rule_file_tensor_offset_and_advice() {
        let e = Error::corruption("B35", "shape overflows")
            .in_tensor("a\nb")
            .in_file("m.safetensors")
            .in_file("ignored: the lower layer knew better")
            .at(17)
            .advise("download it again");
        assert_eq!(
            e.to_string(),
            "[B35] m.safetensors, tensor \"a\\u{a}b\", at byte 17: shape overflows; download it again"
        );
    }

    #[test]
    fn escape_cuts_long_names_and_neutralises_direction_marks() {
        assert!(escape(&"x".repeat(5000)).chars().count() < 200);
        assert_eq!(escape("a\u{202e}b"), "a\\u{202e}b");
    }
}
