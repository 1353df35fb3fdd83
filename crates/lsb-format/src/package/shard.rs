//! The header of a shard: a strict subset of a safetensors header.
//!
//! Every stored tensor is one `U8` tensor of its stored bytes, in the order of the file, without holes. The
//! header is padded with spaces to a length that is known before the first tile is coded, so that data can be
//! streamed behind it and the header written last.

use super::{Digest, Hash, MAX_HEADER_BYTES, MAX_TENSORS};
use crate::{Error, Result};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Data of a shard starts at a multiple of this many bytes.
pub const SHARD_ALIGNMENT: u64 = 64;

/// One stored tensor of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardEntry {
    /// Name of the source tensor.
    pub name: String,
    /// Stored bytes.
    pub bytes: u64,
}

/// What the header of a shard says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardHeader {
    /// Id of the package: the first 16 digits of its fingerprint.
    pub package: String,
    /// Number of this shard, from 1.
    pub shard: usize,
    /// Number of shards.
    pub of: usize,
    /// The tensors in the order of their bytes.
    pub tensors: Vec<ShardEntry>,
}

impl ShardHeader {
    /// The JSON of the header, without padding.
    fn json(&self) -> String {
        let mut out = format!(
            "{{\"__metadata__\":{{\"format\":\"lsb\",\"package\":{},\"shard\":\"{}/{}\"}}",
            quote(&self.package),
            self.shard,
            self.of
        );
        let mut start = 0u64;
        for entry in &self.tensors {
            let end = start.saturating_add(entry.bytes);
            out.push_str(&format!(
                ",{}:{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}",
                quote(&entry.name),
                entry.bytes
            ));
            start = end;
        }
        out.push('}');
        out
    }

    /// Bytes to reserve in front of the data: enough for this header whatever the stored bytes turn out to be,
    /// as long as they stay below `max_data` together. The stored bytes given are not looked at.
    pub fn reserve(&self, max_data: u64) -> u64 {
        let digits = max_data.checked_ilog10().unwrap_or(0) as usize + 1;
        let blank = ShardHeader { tensors: Vec::new(), ..self.clone() };
        let per_tensor = ",:{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[,]}".len() + 3 * digits;
        let names: usize = self.tensors.iter().map(|t| quote(&t.name).len() + per_tensor).sum();
        (8 + blank.json().len() + names).next_multiple_of(SHARD_ALIGNMENT as usize) as u64
    }

    /// The header as it stands at the start of the file: length, JSON, and spaces up to `reserved` bytes.
    ///
    /// # Errors
    /// P13 if it does not fit into `reserved` bytes, or into [`MAX_HEADER_BYTES`].
    pub fn render(&self, reserved: u64) -> Result<Vec<u8>> {
        let json = self.json();
        let needed = 8 + json.len() as u64;
        if needed > reserved || reserved > MAX_HEADER_BYTES {
            return Err(Error::corruption(
                "P13",
                format!(
                    "a shard header of {needed} bytes: {reserved} are reserved, at most {MAX_HEADER_BYTES} allowed"
                ),
            ));
        }
        let mut out = (reserved - 8).to_le_bytes().to_vec();
        out.extend(json.as_bytes());
        out.resize(reserved as usize, b' ');
        Ok(out)
    }

    /// Bytes of the header of a file of `file_bytes` bytes, given its first 8: the length field included.
    ///
    /// # Errors
    /// P13 if it is zero (the file was never finished), too large, unaligned, or does not fit into the file.
    pub fn locate(file_bytes: u64, first: [u8; 8]) -> Result<u64> {
        let length = u64::from_le_bytes(first);
        if length == 0 {
            return Err(Error::corruption("P13", "the header was never written: this shard is unfinished")
                .at(0)
                .advise("run the same command again to finish it"));
        }
        let total = length.checked_add(8).filter(|t| *t <= MAX_HEADER_BYTES.min(file_bytes));
        total.filter(|t| t.is_multiple_of(SHARD_ALIGNMENT)).ok_or_else(|| {
            Error::corruption("P13", format!("a header of {length} bytes in a shard of {file_bytes} bytes"))
                .at(0)
        })
    }

    /// Reads the header `bytes` (length field included) of a shard with `data_bytes` bytes behind it.
    ///
    /// # Errors
    /// P15 if it is not exactly what [`ShardHeader::render`] writes for what it says, or if its tensors do not
    /// fill the data.
    pub fn parse(bytes: &[u8], data_bytes: u64) -> Result<Self> {
        let bad = |message: String| Error::corruption("P15", message);
        let (_, text) = bytes.split_first_chunk::<8>().ok_or_else(|| bad("no header".to_owned()))?;
        let text = std::str::from_utf8(text)
            .map_err(|e| bad("the header is not UTF-8".to_owned()).at(8 + e.valid_up_to() as u64))?;
        let wire: Wire = serde_json::from_str(text.trim_end_matches(' '))
            .map_err(|e| bad(format!("the header is not an lsb shard header: {e}")))?;
        let header = wire.0;
        // One form only: what is read must be what would be written, padding included.
        let again = header.render(bytes.len() as u64)?;
        if let Some(at) = again.iter().zip(bytes).position(|(a, b)| a != b) {
            return Err(bad("the header is not in its one valid form".to_owned()).at(at as u64));
        }
        let mut total = 0u64;
        for entry in &header.tensors {
            total = total
                .checked_add(entry.bytes)
                .ok_or_else(|| bad("the stored bytes overflow".to_owned()).in_tensor(entry.name.as_str()))?;
        }
        if total != data_bytes {
            return Err(bad(format!("the tensors fill {total} bytes and the file holds {data_bytes}")));
        }
        Ok(header)
    }

    /// The hash of a rendered header, which the manifest stores.
    pub fn digest(rendered: &[u8]) -> Digest {
        Hash::of(rendered)
    }
}

/// A JSON string.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct Wire(ShardHeader);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "format")]
    _format: IgnoredAny,
    package: String,
    shard: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "dtype")]
    _dtype: IgnoredAny,
    shape: [u64; 1],
    #[serde(rename = "data_offsets")]
    _data_offsets: IgnoredAny,
}

// Fields ignored here are compared byte for byte when the header is rendered again.
impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Wire;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a safetensors header")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire, A::Error> {
                use serde::de::Error as _;
                let Some("__metadata__") = map.next_key::<String>()?.as_deref() else {
                    return Err(A::Error::custom("__metadata__ must come first"));
                };
                let metadata: Metadata = map.next_value()?;
                let numbers = metadata.shard.split_once('/');
                let (Some(shard), Some(of)) =
                    (numbers.and_then(|n| n.0.parse().ok()), numbers.and_then(|n| n.1.parse().ok()))
                else {
                    return Err(A::Error::custom("shard must be like \"1/3\""));
                };
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key()? {
                    let entry: Entry = map.next_value()?;
                    tensors.push(ShardEntry { name, bytes: entry.shape[0] });
                    if tensors.len() > MAX_TENSORS {
                        return Err(A::Error::custom("too many tensors"));
                    }
                }
                Ok(Wire(ShardHeader { package: metadata.package, shard, of, tensors }))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> ShardHeader {
        let entry = |name: &str, bytes| ShardEntry { name: name.to_owned(), bytes };
        ShardHeader {
            package: "0123456789abcdef".to_owned(),
            shard: 1,
            of: 3,
            tensors: vec![entry("a", 44), entry("b \"quoted\" \u{1} ü", 100), entry("c", 9)],
        }
    }

    fn file(header: &ShardHeader, reserved: u64) -> Vec<u8> {
        let mut file = header.render(reserved).unwrap();
        let data: u64 = header.tensors.iter().map(|t| t.bytes).sum();
        file.resize(file.len() + data as usize, 7);
        file
    }

    #[test]
    fn the_reference_reader_lists_our_shards() {
        let header = sample();
        let reserved = header.reserve(1 << 20);
        assert!(reserved.is_multiple_of(SHARD_ALIGNMENT));
        let file = file(&header, reserved);
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(tensors.len(), 3);
        for entry in &header.tensors {
            let view = tensors.tensor(&entry.name).unwrap();
            assert_eq!(view.shape(), [entry.bytes as usize]);
            assert_eq!(view.dtype(), safetensors::Dtype::U8);
        }
        let first = *file.first_chunk::<8>().unwrap();
        assert_eq!(ShardHeader::locate(file.len() as u64, first).unwrap(), reserved);
        let (head, data) = file.split_at(reserved as usize);
        assert_eq!(ShardHeader::parse(head, data.len() as u64).unwrap(), header);
        assert_eq!(ShardHeader::parse(head, data.len() as u64 + 1).unwrap_err().rule(), "P15");
    }

    #[test]
    fn reserved_space_is_enough_for_any_sizes_below_the_bound() {
        for max in [1u64, 9, 10, 999, 1 << 33] {
            let mut header = sample();
            let reserved = header.reserve(max);
            for (i, entry) in header.tensors.iter_mut().enumerate() {
                entry.bytes = if i == 0 { max } else { 0 };
            }
            assert!(header.render(reserved).is_ok(), "{max}");
        }
    }

    #[test]
    fn every_other_form_is_refused() {
        let header = sample();
        let bytes = header.render(512).unwrap();
        for i in 8..bytes.len() {
            for change in [1u8, 0x20, 0x80] {
                let mut damaged = bytes.clone();
                damaged[i] ^= change;
                // A change inside a name or a number may be valid by itself; the manifest's hash sees those.
                if let Ok(read) = ShardHeader::parse(&damaged, 153) {
                    assert_ne!(read, header, "byte {i}");
                }
            }
        }
        let text = String::from_utf8(bytes[8..].to_vec()).unwrap();
        for (from, to) in [
            ("\"U8\"", "\"I8\""),
            ("[0,44]", "[1,44]"),
            ("[44,144]", "[44,145]"),
            ("\"lsb\"", "\"lsc\""),
            ("\"1/3\"", "\"01/3\""),
            (":[9]", ": [9]"),
        ] {
            assert!(text.contains(from), "{from}");
            let mut damaged = bytes[..8].to_vec();
            damaged.extend(text.replacen(from, to, 1).as_bytes());
            damaged.resize(512, b' ');
            assert_eq!(ShardHeader::parse(&damaged, 153).unwrap_err().rule(), "P15", "{to}");
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_read() {
        let rule = |file, length: u64| ShardHeader::locate(file, length.to_le_bytes()).unwrap_err();
        assert!(rule(1000, 0).message().contains("unfinished"));
        for (file, length) in [(1000, 1016), (1000, u64::MAX), (1 << 40, MAX_HEADER_BYTES), (1000, 57)] {
            assert_eq!(rule(file, length).rule(), "P13");
        }
    }

    proptest! {
        #[test]
        fn prop_random_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), data: u64) {
            let _ = ShardHeader::parse(&bytes, data);
        }

        #[test]
        fn prop_mutated_headers_never_panic(at in 8usize..512, to: u8, at2 in 8usize..512, to2: u8) {
            let mut bytes = sample().render(512).unwrap();
            bytes[at] = to;
            bytes[at2] = to2;
            let _ = ShardHeader::parse(&bytes, 153);
        }
    }
}
