//! The headers of safetensors files that these commands write.

use lsb_format::safetensors::{NewEntry, write_header};
use lsb_format::{DType, Error, Result};

/// Length prefix and header of a file that holds tensors of these names, types and shapes one after the other, with
/// the metadata that transformers writes.
///
/// # Errors
/// If a name is repeated, or a shape overflows.
pub fn header<'a>(tensors: impl IntoIterator<Item = (&'a str, DType, &'a [u64])>) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    let mut begin = 0u64;
    for (name, dtype, shape) in tensors {
        let end = shape
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(d))
            .and_then(|elements| begin.checked_add(dtype.byte_len(elements)?))
            .ok_or_else(|| Error::argument(format!("{dtype} of shape {shape:?} has no size in bytes")))?;
        entries.push(NewEntry { name, dtype, shape, begin, end });
        begin = end;
    }
    write_header(&entries, &[("format", "pt")], 8)
}
