//! The targets: each feeds bytes to one reader, and names what came out.

pub(super) mod codecs;
mod config;
mod entropy;
mod headers;
mod records;

use anyhow::Result;

/// Inputs to start from: name and bytes.
pub type Seeds = Vec<(String, Vec<u8>)>;

/// Something that reads untrusted bytes.
pub struct Target {
    /// Name of the target, of its fuzz shim and of its corpus folder.
    pub name: &'static str,
    /// Runs one input and names what happened. Panics where the code under test is wrong.
    pub run: fn(&[u8]) -> String,
    /// Makes the inputs to start from.
    pub seeds: fn() -> Result<Seeds>,
    /// Corrects lengths and checksums of a changed input.
    pub repair: fn(&mut [u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    headers::SAFETENSORS_HEADER,
    headers::SHARD_INDEX,
    config::CONFIG_JSON,
    records::MANIFEST,
    records::SHARD_HEADER,
    records::TILE_TABLE,
    entropy::RANS_TILE,
    entropy::POSITIONS,
    codecs::CODEC_DECODE,
    codecs::ROUNDTRIP,
];

/// For inputs without lengths or checksums.
fn nothing(_: &mut [u8]) {}

/// What an error of the format is called: its rule and the words of its message without the numbers and names.
fn class(error: &lsb_format::Error) -> String {
    // Names come from the input and stand in quotes: from there on the message says nothing about the code.
    let words: Vec<_> = error
        .message()
        .split(['"', ':'])
        .next()
        .unwrap_or_default()
        .split(' ')
        .filter(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase()))
        .take(4)
        .collect();
    format!("{} {}", error.rule(), words.join(" "))
}

/// The name of a size, so that outcomes of different orders of magnitude are told apart.
fn magnitude(n: usize) -> u32 {
    usize::BITS - n.leading_zeros()
}
