//! Reading a manifest that may be damaged, hostile or of another version.

use super::write::{HASH_KEY, PREFIX, TAIL_BYTES};
use super::{Content, Features, Manifest, StoredTensor, TensorRecord};
use crate::package::{
    CodecRecord, Digest, FORMAT_VERSION, FileRecord, Hash, MAX_MANIFEST_BYTES, ShardRecord, ShortDigest,
    Source,
};
use crate::{DType, Error, ErrorKind, Result};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;

/// Fields of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(rename = "format")]
    _format: IgnoredAny,
    #[serde(rename = "version")]
    _version: IgnoredAny,
    features: Features,
    tool: String,
    fingerprint: Digest,
    source: Source,
    weights: u64,
    codecs: Vec<CodecRecord>,
    shards: Vec<ShardRecord>,
    tensors: Vec<TensorRecord>,
    files: Vec<FileRecord>,
    #[serde(default)]
    extra: BTreeMap<String, Value>,
}

/// The fields that a reader of an older version must find whatever else changed.
#[derive(Deserialize)]
struct Preamble {
    features: Features,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorFields {
    name: String,
    dtype: Option<DType>,
    shape: Option<Vec<u64>>,
    codec: Option<usize>,
    shard: Option<usize>,
    blake3: Option<ShortDigest>,
    same_as: Option<String>,
}

impl<'de> Deserialize<'de> for TensorRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let t = TensorFields::deserialize(deserializer)?;
        let content = match (t.dtype, t.shape, t.codec, t.shard, t.blake3, t.same_as) {
            (Some(dtype), Some(shape), Some(codec), Some(shard), Some(blake3), None) => {
                Content::Stored(StoredTensor { dtype, shape, codec, shard, blake3 })
            }
            (None, None, None, None, None, Some(other)) => Content::SameAs(other),
            _ => {
                return Err(D::Error::custom(
                    "a tensor has either dtype, shape, codec, shard and blake3, or same_as",
                ));
            }
        };
        Ok(TensorRecord { name: t.name, content })
    }
}

impl Manifest {
    /// Reads the bytes of `lsb.json`.
    ///
    /// # Errors
    /// P01 if it is something else, P02 for another format version, P03 for a required feature this build does
    /// not know, P04 if the bytes are not those that were written, P05 if they are not in the one valid form,
    /// and the rules of [`Manifest::render`] where the records contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::corruption(
                "P06",
                format!("a manifest of {} bytes: at most {MAX_MANIFEST_BYTES}", bytes.len()),
            ));
        }
        check_version(bytes)?;
        let body = check_hash(bytes)?;

        let mut json = body.to_vec();
        json.push(b'}');
        let fields: Body = match serde_json::from_slice(&json) {
            Ok(fields) => fields,
            Err(error) => {
                // A required feature may explain a field that this version does not know.
                if let Ok(preamble) = serde_json::from_slice::<Preamble>(&json) {
                    check_features(&preamble.features)?;
                }
                let message = format!("the manifest cannot be read: {error}");
                return Err(Error::corruption("P05", message));
            }
        };
        check_features(&fields.features)?;
        let manifest = Manifest {
            features: fields.features,
            tool: fields.tool,
            fingerprint: fields.fingerprint,
            source: fields.source,
            weights: fields.weights,
            codecs: fields.codecs,
            shards: fields.shards,
            tensors: fields.tensors,
            files: fields.files,
            extra: fields.extra,
        };
        let mut same = SameBytes { expected: &json, matched: 0 };
        let rendered = manifest.write_body(&mut same);
        if rendered.is_err() || same.matched != json.len() {
            return Err(Error::corruption(
                "P05",
                "the manifest is not in its one valid form (repeated key, space, order)",
            )
            .at(same.matched as u64));
        }
        manifest.validate()?;
        Ok(manifest)
    }
}

fn check_version(bytes: &[u8]) -> Result<()> {
    let digits = bytes.strip_prefix(PREFIX.as_bytes()).map(|rest| {
        let end = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned()
    });
    match digits {
        Some(version) if version == FORMAT_VERSION.to_string() => Ok(()),
        Some(version) if !version.is_empty() => Err(Error::new(
            ErrorKind::Compatibility,
            "P02",
            format!("a package of format version {version}: this build reads version {FORMAT_VERSION}"),
        )
        .advise("use a newer lsb")),
        _ if bytes.len() < PREFIX.len() && PREFIX.as_bytes().starts_with(bytes) => Err(cut_short()),
        _ => {
            Err(Error::new(ErrorKind::Compatibility, "P01", "this is not the manifest of an lsb package")
                .at(0))
        }
    }
}

fn cut_short() -> Error {
    Error::new(ErrorKind::Truncated, "P04", "the manifest ends without its hash: it was cut short or edited")
        .advise("fetch the package again")
}

/// The bytes in front of the last field, once its hash has been checked.
fn check_hash(bytes: &[u8]) -> Result<&[u8]> {
    let split = bytes.len().checked_sub(TAIL_BYTES).and_then(|at| bytes.split_at_checked(at));
    let (body, tail) = split.ok_or_else(cut_short)?;
    let stored = tail
        .strip_prefix(HASH_KEY.as_bytes())
        .and_then(|t| t.strip_suffix(b"\"}\n"))
        .and_then(|hex| std::str::from_utf8(hex).ok())
        .and_then(Digest::from_hex)
        .ok_or_else(cut_short)?;
    let found: Digest = Hash::of(body);
    if found != stored {
        return Err(Error::corruption(
            "P04",
            format!("the manifest's hash is {found} and should be {stored}"),
        )
        .advise("the manifest was damaged or edited: fetch or build the package again"));
    }
    Ok(body)
}

fn check_features(features: &Features) -> Result<()> {
    // Format version 1 has no features beyond itself.
    match features.required.first() {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Compatibility,
            "P03",
            format!("the package needs the feature \"{}\"", crate::escape(name)),
        )
        .advise("use a newer lsb")),
    }
}

/// Takes written bytes and counts how far they are the expected ones, without keeping them.
struct SameBytes<'a> {
    expected: &'a [u8],
    matched: usize,
}

impl io::Write for SameBytes<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let expected = self.expected.get(self.matched..).unwrap_or_default();
        let same = bytes.iter().zip(expected).take_while(|(a, b)| a == b).count();
        self.matched += same;
        if same == bytes.len() { Ok(same) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
