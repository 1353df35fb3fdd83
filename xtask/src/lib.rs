//! Developer commands, as a library so that the fuzz targets call the same entry points as the stable mutator.

pub mod bench;
pub mod checkpoint;
pub mod fixtures;
pub mod minilm;
pub mod mutate;
pub mod profile;
pub mod results;
pub mod synth;
pub mod tidy;

use std::path::PathBuf;

/// The root of the repository: the folder above this package.
pub fn repository_root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// The code in the guide is compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/adding-a-codec.md")]
struct AddingACodec;
