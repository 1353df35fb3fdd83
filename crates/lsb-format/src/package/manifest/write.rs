//! The one form of a manifest, and its hash.

use super::{Content, Features, Manifest, TensorRecord};
use crate::package::{CodecRecord, Digest, FORMAT_VERSION, FileRecord, Hash, ShardRecord, Source};
use crate::{Error, Result};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;

/// What every manifest of this version starts with; readers of all versions may rely on it up to the number.
pub(super) const PREFIX: &str = "{\"format\":\"lsb\",\"version\":";

/// Start of the last field.
pub(super) const HASH_KEY: &str = ",\"blake3\":\"";

/// Bytes from the start of the last field to the end of the file.
pub(super) const TAIL_BYTES: usize = HASH_KEY.len() + 64 + 3;

/// Fields in the order of the file. The hash comes behind them.
#[derive(Serialize)]
struct Body<'a> {
    format: &'static str,
    version: u32,
    features: &'a Features,
    tool: &'a str,
    fingerprint: &'a Digest,
    source: &'a Source,
    weights: u64,
    codecs: &'a [CodecRecord],
    shards: &'a [ShardRecord],
    tensors: &'a [TensorRecord],
    files: &'a [FileRecord],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Value>,
}

impl Serialize for TensorRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.content {
            Content::Stored(stored) => {
                let mut s = serializer.serialize_struct("TensorRecord", 6)?;
                s.serialize_field("name", &self.name)?;
                s.serialize_field("dtype", &stored.dtype)?;
                s.serialize_field("shape", &stored.shape)?;
                s.serialize_field("codec", &stored.codec)?;
                s.serialize_field("shard", &stored.shard)?;
                s.serialize_field("blake3", &stored.blake3)?;
                s.end()
            }
            Content::SameAs(other) => {
                let mut s = serializer.serialize_struct("TensorRecord", 2)?;
                s.serialize_field("name", &self.name)?;
                s.serialize_field("same_as", other)?;
                s.end()
            }
        }
    }
}

impl Manifest {
    /// The bytes of `lsb.json`.
    ///
    /// # Errors
    /// If the manifest breaks one of its own rules, which reading would refuse.
    pub fn render(&self) -> Result<Vec<u8>> {
        self.validate()?;
        let mut out = Vec::new();
        self.write_body(&mut out)?;
        out.pop();
        let hash: Digest = Hash::of(&out);
        out.extend(HASH_KEY.as_bytes());
        out.extend(hash.to_string().as_bytes());
        out.extend(b"\"}\n");
        Ok(out)
    }

    /// Everything but the hash, closing brace included.
    pub(super) fn write_body(&self, out: impl io::Write) -> Result<()> {
        let body = Body {
            format: "lsb",
            version: FORMAT_VERSION,
            features: &self.features,
            tool: &self.tool,
            fingerprint: &self.fingerprint,
            source: &self.source,
            weights: self.weights,
            codecs: &self.codecs,
            shards: &self.shards,
            tensors: &self.tensors,
            files: &self.files,
            extra: &self.extra,
        };
        serde_json::to_writer(out, &body).map_err(|e| Error::corruption("P05", e.to_string()))
    }
}
