//! Headers of safetensors files: what a file claims, checked before anything trusts it.
//!
//! A file is 8 bytes with the header's length N, N bytes of JSON, and the tensors' data without holes.
//! [`header_len`] judges the first 8 bytes, [`Header::parse`] the JSON against the size of the data, and
//! [`write_header`] makes headers of the same strict form. Nothing here reads files.

mod header;
mod layout;
mod parse;
#[cfg(test)]
mod tests;
mod write;

pub use header::{Entry, Header, Note};
pub use write::{NewEntry, write_header};

use crate::{Error, ErrorKind, Result};

/// Bytes before the JSON text: its length as a little-endian `u64`.
pub const PREFIX_LEN: u64 = 8;

/// The longest header read unless the caller allows more; the largest published ones are near 10 MB.
pub const DEFAULT_HEADER_LIMIT: u64 = 64 << 20;

/// No caller can allow longer headers than this (positions inside them are kept in 32 bits).
pub const MAX_HEADER_LIMIT: u64 = 1 << 30;

/// Dimensions of a tensor, at most.
pub const MAX_RANK: usize = 8;

/// Bytes of a tensor's name, at most.
pub const MAX_NAME_LEN: usize = 1024;

/// Length of the header from a file's first 8 bytes, checked against the file's length and a limit in bytes.
///
/// # Errors
/// `B18` for 0, `B19` for a length that neither limit nor file allows, `B20` above the limit alone, `B9`
/// (truncated) where the file ends inside the header.
pub fn header_len(first8: [u8; 8], file_len: u64, limit: u64) -> Result<u64> {
    let len = u64::from_le_bytes(first8);
    let limit = limit.min(MAX_HEADER_LIMIT);
    let rest = file_len.saturating_sub(PREFIX_LEN);
    if len == 0 {
        return Err(Error::corruption("B18", "the header has length 0")
            .at(0)
            .advise("the file is damaged or not a safetensors file; download it again"));
    }
    if len > rest && len > limit {
        let message = format!("the first 8 bytes give a header of {len} bytes, the file has {file_len}");
        return Err(Error::corruption("B19", message)
            .at(0)
            .advise("the file is damaged or not a safetensors file; download it again"));
    }
    if len > limit {
        let message = format!("the header has {len} bytes, the limit is {limit}");
        return Err(Error::corruption("B20", message)
            .at(0)
            .advise("raise the limit with --max-header if the source is trusted"));
    }
    if len > rest {
        let message =
            format!("the header has {len} bytes and the file ends {} bytes before its end", len - rest);
        return Err(Error::new(ErrorKind::Truncated, "B9", message)
            .at(file_len)
            .advise("the file was cut short; download it again"));
    }
    Ok(len)
}
