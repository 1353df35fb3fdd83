//! Writes headers of the strict form that every reader takes.

use super::{Header, PREFIX_LEN};
use crate::{DType, Error, Result};
use std::fmt::Write;

/// A tensor to be described by a new header.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// Name, unique in the file and at most 1 KiB.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [u64],
    /// First byte, counted from the start of the data.
    pub begin: u64,
    /// Byte after the last.
    pub end: u64,
}

/// Writes the beginning of a safetensors file, length field included, padded with spaces so that the data
/// begins at a multiple of `align` bytes. Entries and metadata keep the order given.
///
/// # Errors
/// If `align` is 0, or if the entries do not describe a file that [`Header::parse`] accepts: the same rules
/// hold for what is written and for what is read.
pub fn write_header(entries: &[NewEntry<'_>], metadata: &[(&str, &str)], align: u64) -> Result<Vec<u8>> {
    if align == 0 {
        return Err(Error::argument("data cannot be aligned to 0 bytes"));
    }
    let mut json = String::from("{");
    if !metadata.is_empty() {
        json.push_str("\"__metadata__\":{");
        for (i, (key, value)) in metadata.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(json, "{comma}{}:{}", quoted(key), quoted(value));
        }
        json.push('}');
    }
    for entry in entries {
        let comma = if json.len() == 1 { "" } else { "," };
        let shape: Vec<_> = entry.shape.iter().map(u64::to_string).collect();
        let _ = write!(
            json,
            "{comma}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
            quoted(entry.name),
            entry.dtype,
            shape.join(","),
            entry.begin,
            entry.end
        );
    }
    json.push('}');
    let len = json.len() as u64 + PREFIX_LEN;
    let padding = (align - len % align) % align;
    json.extend(std::iter::repeat_n(' ', padding as usize));
    let data_len = entries.iter().map(|e| e.end).max().unwrap_or(0);
    Header::parse(json.as_bytes(), data_len)?;
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    Ok(bytes)
}

fn quoted(text: &str) -> String {
    // The display of a JSON value is its text; strings have no other failure.
    serde_json::Value::from(text).to_string()
}
