//! Bytes to records and back.
//!
//! This crate reads safetensors headers and shard indices, reads and writes the records of an lsb
//! package, and holds the checksums, the bit packing and the entropy coder they need. It performs no
//! input or output: every function takes bytes and returns records, or the other way round. It does not
//! know what the integers mean, what a model is, or who owns the threads.

pub mod bits;
mod dtype;
pub mod entropy;
mod error;
pub mod json;
pub mod package;
pub mod safetensors;
pub mod shard_index;
mod tiling;

pub use dtype::DType;
pub use error::{Error, ErrorKind, Result, escape};
pub use tiling::{MAX_TILE_WEIGHTS, TILE_WEIGHTS, Tile, Tiling};
