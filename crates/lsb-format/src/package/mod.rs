//! Records of an lsb package: manifest, shard headers, tile tables, fingerprints. No input or output.
//!
//! `docs/format.md` describes the bytes. Whatever a reader could compute is computed here and compared, never
//! believed: a record that disagrees with its neighbours is refused under a `P` rule listed in that document.

mod checksum;
mod fingerprint;
mod manifest;
mod names;
mod shard;
mod table;

pub use checksum::{Digest, Hash, ShortDigest, TensorKey};
pub use fingerprint::Fingerprint;
pub use manifest::{
    CodecRecord, Content, Features, FileRecord, FileRole, Manifest, ShardRecord, Source, SourceFile,
    StoredTensor, TensorRecord,
};
pub use names::{MAX_FILE_NAME_DEPTH, check_file_name, check_tensor_name, shard_file_name};
pub use shard::{SHARD_ALIGNMENT, ShardEntry, ShardHeader};
pub use table::{MAX_SIDE_BYTES, TileTable, max_tile_bytes};

/// Name of the manifest inside a package.
pub const MANIFEST_FILE: &str = "lsb.json";

/// The format version this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Most tensors a package may list.
pub const MAX_TENSORS: usize = 200_000;

/// Most dimensions a tensor may have.
pub const MAX_RANK: usize = 8;

/// Longest tensor name in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// Largest manifest in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// Largest shard header in bytes, its length field included.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;
