//! `model.safetensors.index.json`: which shard holds which tensor.
//!
//! The names of shards in it come from strangers and are about to be opened. [`ShardName`] is the only way to
//! such a name, and it holds nothing that leaves the model's folder.

use crate::json::{Reader, Rules};
use crate::safetensors::MAX_NAME_LEN;
use crate::{Error, Result, escape};
use std::fmt;

const RULES: Rules = Rules {
    encoding: "B73",
    syntax: "B73",
    kind: "B73",
    depth: "B73",
    surrogate: "B73",
    number: "B73",
    duplicate: "B73",
};

/// The longest index that is read, in bytes: twice the text of a million tensors with long names would be.
pub const MAX_INDEX_LEN: u64 = 256 << 20;

/// Bytes of a shard's name, at most: what file systems allow for one component.
const MAX_SHARD_NAME: usize = 255;

/// The name of a file inside the model's folder.
///
/// It is one plain path component, or, where subfolders were allowed, several joined by `/`: never absolute,
/// without `.` and `..`, backslashes, drive letters, control characters or percent-encoded forms of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardName(String);

impl ShardName {
    /// Checks that `name` names a file in the folder itself.
    ///
    /// # Errors
    /// `B65` where it could leave the folder, `B66` where it names a file in a subfolder.
    pub fn new(name: &str) -> Result<Self> {
        if name.split('/').count() > 1 {
            // A path that would be refused in any case is reported as such.
            ShardName::nested(name)?;
            let message = format!("the shard \"{}\" is in a subfolder", escape(name));
            return Err(Error::corruption("B66", message)
                .advise("allow subfolders if this layout is intended and the source is trusted"));
        }
        ShardName::nested(name)
    }

    /// Checks that `name` names a file in the folder or a folder below it.
    ///
    /// # Errors
    /// `B65` where it could leave the folder.
    pub fn nested(name: &str) -> Result<Self> {
        let fault = if name.is_empty() {
            Some("is empty")
        } else if name.starts_with('/') {
            Some("is an absolute path")
        } else if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            Some("steps through \".\", \"..\" or nothing")
        } else if name.contains(['\\', ':']) {
            Some("has a backslash or a colon")
        } else if name.chars().any(char::is_control) {
            Some("has control characters")
        } else if encodes_a_step(name) {
            Some("has percent-encoded dots or slashes")
        } else if name.split('/').any(|part| part.len() > MAX_SHARD_NAME) {
            Some("is too long")
        } else {
            None
        };
        match fault {
            None => Ok(ShardName(name.to_owned())),
            Some(fault) => {
                let message = format!("the shard name \"{}\" {fault}", escape(name));
                Err(Error::corruption("B65", message).advise(
                    "only plain file names inside the model's folder are opened; do not trust this model",
                ))
            }
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

fn encodes_a_step(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    ["%2e", "%2f", "%5c", "%00"].iter().any(|code| lower.contains(code))
}

/// A checked index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIndex {
    shards: Vec<ShardName>,
    /// Tensor names in order, each with the number of its shard.
    tensors: Vec<(Box<str>, u32)>,
    total_size: TotalSize,
}

/// `metadata.total_size` of an index: what the tensors' bytes should add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TotalSize {
    /// Not there.
    Missing,
    /// A number of bytes.
    Bytes(u64),
    /// Something else, standing at this byte offset.
    Malformed(u64),
}

impl ShardIndex {
    /// Reads the text of an index. With `subfolders`, shards may be in folders below the model's.
    ///
    /// # Errors
    /// `B73` for a malformed or oversized index, `B65` and `B66` for names of shards; with the offset.
    pub fn parse(bytes: &[u8], subfolders: bool) -> Result<Self> {
        if bytes.len() as u64 > MAX_INDEX_LEN {
            let message = format!("the index has {} bytes, the limit is {MAX_INDEX_LEN}", bytes.len());
            return Err(Error::corruption("B73", message));
        }
        let mut reader = Reader::new(bytes, 0, RULES)?;
        let mut map: Option<(Map, u64)> = None;
        let mut total_size = TotalSize::Missing;
        let mut metadata_at = None;
        reader.object(|reader, key, at| match &*key {
            "weight_map" => match map.replace((read_map(reader, subfolders)?, at)) {
                Some((_, first)) => Err(twice(&key, first, at)),
                None => Ok(()),
            },
            "metadata" => {
                if let Some(first) = metadata_at.replace(at) {
                    return Err(twice(&key, first, at));
                }
                total_size = read_total_size(reader)?;
                Ok(())
            }
            _ => reader.skip(),
        })?;
        reader.end()?;
        let Some((Map { shards, mut tensors }, _)) = map else {
            return Err(Error::corruption("B73", "the index has no \"weight_map\""));
        };
        tensors.sort_unstable_by(|a, b| (&a.name, a.at).cmp(&(&b.name, b.at)));
        if let Some(pair) = tensors.windows(2).find(|w| w[0].name == w[1].name) {
            return Err(twice(&pair[0].name, pair[0].at, pair[1].at).in_tensor(&*pair[0].name));
        }
        let mut order: Vec<u32> = (0..shards.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| shards[a as usize].cmp(&shards[b as usize]));
        let mut rank = vec![0; shards.len()];
        for (new, &old) in (0u32..).zip(&order) {
            rank[old as usize] = new;
        }
        Ok(ShardIndex {
            tensors: tensors.into_iter().map(|t| (t.name, rank[t.shard as usize])).collect(),
            shards: order.iter().map(|&i| shards[i as usize].clone()).collect(),
            total_size,
        })
    }

    /// The shards, in order of name.
    pub fn shards(&self) -> &[ShardName] {
        &self.shards
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// True for an index of no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensors in order of name, each with the position of its shard in [`shards`](Self::shards).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, usize)> {
        self.tensors.iter().map(|(name, shard)| (&**name, *shard as usize))
    }

    /// The position in [`shards`](Self::shards) of the shard that holds a tensor.
    pub fn shard_of(&self, tensor: &str) -> Option<usize> {
        let at = self.tensors.binary_search_by(|(name, _)| (**name).cmp(tensor)).ok()?;
        self.tensors.get(at).map(|(_, shard)| *shard as usize)
    }

    /// What the index says the tensors' bytes add up to.
    pub fn total_size(&self) -> &TotalSize {
        &self.total_size
    }
}

struct Map {
    shards: Vec<ShardName>,
    tensors: Vec<Mapped>,
}

struct Mapped {
    name: Box<str>,
    shard: u32,
    at: u64,
}

fn read_map(reader: &mut Reader<'_>, subfolders: bool) -> Result<Map> {
    let mut map = Map { shards: Vec::new(), tensors: Vec::new() };
    // Neighbours are nearly always in the same shard; the rest is found by search in order of name.
    let mut by_name: Vec<u32> = Vec::new();
    reader.object(|reader, tensor, at| {
        if tensor.len() > MAX_NAME_LEN {
            let message = format!("a tensor name of {} bytes, the limit is {MAX_NAME_LEN}", tensor.len());
            return Err(Error::corruption("B42", message).at(at));
        }
        let value_at = reader.offset();
        let value = reader.string().map_err(|e| e.in_tensor(&*tensor))?;
        let found = by_name.binary_search_by(|&i| map.shards[i as usize].as_str().cmp(&value));
        let shard = match found {
            Ok(i) => by_name[i],
            Err(i) => {
                let check = if subfolders { ShardName::nested } else { ShardName::new };
                let shard = map.shards.len() as u32;
                map.shards.push(check(&value).map_err(|e| e.in_tensor(&*tensor).at(value_at))?);
                by_name.insert(i, shard);
                shard
            }
        };
        if map.shards.len() > MAX_SHARDS {
            let message = format!("the index names more than {MAX_SHARDS} shards");
            return Err(Error::corruption("B73", message).at(value_at));
        }
        map.tensors.push(Mapped { name: tensor.into(), shard, at });
        Ok(())
    })?;
    Ok(map)
}

/// Shards of one model, at most; the largest published models have a few hundred.
const MAX_SHARDS: usize = 10_000;

fn read_total_size(reader: &mut Reader<'_>) -> Result<TotalSize> {
    let mut total_size = TotalSize::Missing;
    let mut first_at = None;
    if reader.peek() != Some(b'{') {
        // Some tools write null here; nothing of it is needed.
        reader.skip()?;
        return Ok(total_size);
    }
    reader.object(|reader, key, at| {
        if key != "total_size" {
            return reader.skip();
        }
        if let Some(first) = first_at.replace(at) {
            return Err(twice(&key, first, at));
        }
        let value_at = reader.offset();
        total_size = match reader.unsigned()? {
            Some(bytes) => TotalSize::Bytes(bytes),
            None => TotalSize::Malformed(value_at),
        };
        Ok(())
    })?;
    Ok(total_size)
}

fn twice(key: &str, first: u64, at: u64) -> Error {
    Error::corruption("B73", format!("\"{}\" is there twice, at bytes {first} and {at}", escape(key))).at(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(map: &str) -> Result<ShardIndex> {
        ShardIndex::parse(format!("{{\"weight_map\":{map}}}").as_bytes(), false)
    }

    #[test]
    fn shards_are_sorted_and_tensors_found() {
        let index = index(r#"{"b":"2.safetensors","a":"1.safetensors","c":"2.safetensors"}"#).unwrap();
        let names: Vec<_> = index.shards().iter().map(ShardName::as_str).collect();
        assert_eq!(names, ["1.safetensors", "2.safetensors"]);
        assert_eq!(index.iter().collect::<Vec<_>>(), [("a", 0), ("b", 1), ("c", 1)]);
        assert_eq!(index.shard_of("b"), Some(1));
        assert_eq!(index.shard_of("d"), None);
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/../../x",
            "a/./x",
            "a//x",
            "a/",
            "/etc/x",
            "C:\\x",
            "c:x",
            "\\\\srv\\x",
            "a\\x",
            "a\0",
            "a\n",
            "%2e%2e",
            "%2E%2e%2Fx",
            "..%2fx",
            "x%5cy",
        ] {
            assert_eq!(ShardName::new(name).unwrap_err().rule(), "B65", "{name:?}");
            assert_eq!(ShardName::nested(name).unwrap_err().rule(), "B65", "{name:?}");
        }
        assert_eq!(ShardName::new("sub/x").unwrap_err().rule(), "B66");
        assert_eq!(ShardName::nested("sub/x").unwrap().as_str(), "sub/x");
        assert_eq!(ShardName::new("100%.safetensors").unwrap().as_str(), "100%.safetensors");
        assert!(ShardName::new(&"x".repeat(256)).is_err());
    }

    #[test]
    fn duplicates_are_refused_where_they_stand() {
        let e = index(r#"{"a":"1","\u0061":"2"}"#).unwrap_err();
        assert_eq!((e.rule(), e.tensor(), e.offset()), ("B73", Some("a"), Some(23)));
        let e = ShardIndex::parse(br#"{"weight_map":{},"weight_map":{}}"#, false).unwrap_err();
        assert_eq!((e.rule(), e.offset()), ("B73", Some(17)));
    }

    #[test]
    fn total_size_is_read_or_marked() {
        let read = |metadata: &str| {
            let text = format!("{{\"weight_map\":{{}},\"metadata\":{metadata}}}");
            ShardIndex::parse(text.as_bytes(), false).unwrap().total_size
        };
        assert_eq!(read("{\"total_size\":12}"), TotalSize::Bytes(12));
        assert_eq!(read("{}"), TotalSize::Missing);
        assert_eq!(read("null"), TotalSize::Missing);
        for odd in ["-1", "1.5", "\"7\"", "null", "1e10"] {
            assert_eq!(read(&format!("{{\"total_size\":{odd}}}")), TotalSize::Malformed(42), "{odd}");
        }
    }
}
