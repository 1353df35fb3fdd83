//! What is it, when it is not a safetensors file? The usual mistakes have clear marks.

use lsb_format::{Error, ErrorKind};

/// Bytes from the start of a file that [`not_safetensors`] looks at.
pub(super) const MARK_LEN: usize = 512;

/// True where byte 8 begins a header's JSON. Marks of other formats may also be small header lengths, so they
/// are looked for only where this is false.
pub(super) fn begins_like_safetensors(start: &[u8]) -> bool {
    let json = start.get(8..).unwrap_or(&[]);
    !json.is_empty() && json.trim_ascii_start().first().is_none_or(|&b| b == b'{')
}

/// Names the other kind of file that begins with `start`, in the words of an error.
pub(super) fn not_safetensors(start: &[u8], file_len: u64) -> Option<Error> {
    if let Some(pointer) = start.strip_prefix(b"version https://git-lfs") {
        let size = lfs_size(pointer).map_or(String::new(), |n| format!(" to a file of {n} bytes"));
        return Some(
            other("B3", format!("this is a Git LFS pointer of {file_len} bytes{size}, not the weights"))
                .advise("run git lfs pull, or download the weights"),
        );
    }
    let (rule, what, advice) = match start {
        [b'P', b'K', 3, 4, ..] => ("B5", "a zip archive, as PyTorch checkpoints are", CONVERT),
        [0x80, 2..=5, ..] => ("B5", "a Python pickle, as PyTorch checkpoints are", CONVERT),
        [b'G', b'G', b'U', b'F', ..] => ("B6", "a GGUF file", "use the safetensors model it was made from"),
        [0x1f, 0x8b, ..] => ("B7", "a gzip archive", UNPACK),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("B7", "a zstd archive", UNPACK),
        [b'B', b'Z', b'h', ..] => ("B7", "a bzip2 archive", UNPACK),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => ("B7", "an xz archive", UNPACK),
        [0x89, b'H', b'D', b'F', ..] => ("B7", "an HDF5 file", CONVERT),
        _ if start.get(257..262) == Some(b"ustar") => ("B7", "a tar archive", UNPACK),
        _ => match start.trim_ascii_start() {
            [b'<', ..] => ("B4", "an HTML or XML page", AGAIN),
            [b'{' | b'[', ..] => ("B4", "a JSON text", AGAIN),
            _ => return None,
        },
    };
    Some(other(rule, format!("this is {what} of {file_len} bytes, not a safetensors file")).advise(advice))
}

const CONVERT: &str = "convert it to safetensors with the tool that made it; pickles are never opened here";
const UNPACK: &str = "unpack it first";
const AGAIN: &str = "probably an error message saved in its place; download the file again";

fn other(rule: &'static str, message: String) -> Error {
    Error::new(ErrorKind::Compatibility, rule, message).at(0)
}

/// The size that an LFS pointer gives.
fn lfs_size(pointer: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(pointer).ok()?;
    text.lines().find_map(|line| line.strip_prefix("size "))?.trim().parse().ok()
}
