//! The manifest of a package, `lsb.json`: what it holds, where, and the hashes of all of it.
//!
//! A manifest has exactly one form: compact JSON, fields in the order of the types below, one line feed at the
//! end, and as its last field the BLAKE3 hash of everything in front of that field. Reading compares the bytes
//! with what writing would give, so repeated keys, unknown fields and other spellings cannot hide anything.

mod read;
mod validate;
mod write;

use super::{Digest, ShortDigest};
use crate::DType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Everything a reader needs to know about a package.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Features beyond format version 1.
    pub features: Features,
    /// The program that wrote the package, such as `lsb 0.1.0`.
    pub tool: String,
    /// Hash of everything that decided the bytes.
    pub fingerprint: Digest,
    /// What was compressed.
    pub source: Source,
    /// Weights of the model: elements of all stored tensors, shared ones counted once.
    pub weights: u64,
    /// The codecs that tensors refer to by index.
    pub codecs: Vec<CodecRecord>,
    /// The shards that tensors refer to by index.
    pub shards: Vec<ShardRecord>,
    /// The tensors. Those of one shard stand in the order of their bytes, shard after shard.
    pub tensors: Vec<TensorRecord>,
    /// All other files.
    pub files: Vec<FileRecord>,
    /// Data of optional features, by feature name.
    pub extra: BTreeMap<String, Value>,
}

/// Names of features that a package uses beyond format version 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// A reader that does not know one of these must refuse the package.
    pub required: Vec<String>,
    /// A reader that does not know these may ignore them and their entries in `extra`.
    pub optional: Vec<String>,
}

/// What was compressed: sizes and hashes, no paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Bytes of all weights of the source, as its files hold them (shared tensors as often as they are there).
    pub weight_bytes: u64,
    /// The files that held them.
    pub files: Vec<SourceFile>,
}

/// One weight file of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Its name, without folders.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Hash of its header.
    pub header_blake3: Digest,
}

/// A configured codec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodecRecord {
    /// Its id, such as `outlier-binary`.
    pub id: String,
    /// Its parameters: booleans, numbers and texts.
    pub parameters: BTreeMap<String, Value>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Its name; always that of [`super::shard_file_name`].
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Hash of its header, length field and padding included.
    pub header_blake3: Digest,
}

/// One tensor of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRecord {
    /// Its name.
    pub name: String,
    /// Where its weights are.
    pub content: Content,
}

/// Where the weights of a tensor are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// In a shard.
    Stored(StoredTensor),
    /// The same as those of the stored tensor of this name.
    SameAs(String),
}

/// A tensor that has bytes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Element type of the source.
    pub dtype: DType,
    /// Shape of the source.
    pub shape: Vec<u64>,
    /// Index into [`Manifest::codecs`].
    pub codec: usize,
    /// Index into [`Manifest::shards`].
    pub shard: usize,
    /// Hash of the stored bytes.
    pub blake3: ShortDigest,
}

impl StoredTensor {
    /// Number of elements; the manifest's validation has shown that it fits.
    pub fn weights(&self) -> u64 {
        self.shape.iter().fold(1, |n, d| n.saturating_mul(*d))
    }
}

/// One file that holds no weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its name inside the package.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Its hash.
    pub blake3: Digest,
    /// Why it is there.
    pub role: FileRole,
}

/// Why a file without weights is in a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileRole {
    /// Copied from the source byte for byte.
    Copied,
    /// Written by the tool: report, model card.
    Document,
}

impl Manifest {
    /// Id of the package, which binds its shards to it: the first 16 digits of the fingerprint.
    pub fn package_id(&self) -> String {
        package_id(&self.fingerprint)
    }

    /// The record of tensor `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorRecord> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// Names and records of the tensors stored in shard `shard`, in the order of their bytes.
    pub fn stored_in(&self, shard: usize) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().filter_map(move |t| match &t.content {
            Content::Stored(s) if s.shard == shard => Some((t.name.as_str(), s)),
            _ => None,
        })
    }
}

/// Id of the package with this fingerprint.
pub(super) fn package_id(fingerprint: &Digest) -> String {
    let mut text = fingerprint.to_string();
    text.truncate(16);
    text
}

#[cfg(test)]
mod tests;
