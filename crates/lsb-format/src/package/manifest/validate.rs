//! Rules between the records of a manifest, checked before writing and after reading.

use super::{CodecRecord, Content, Manifest, StoredTensor};
use crate::package::{
    MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS, check_file_name, check_tensor_name, shard_file_name,
};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Most entries of the smaller lists.
const MAX_ENTRIES: usize = 100_000;

/// Longest tool version, codec id, feature name and parameter.
const MAX_WORD_BYTES: usize = 256;

impl Manifest {
    pub(super) fn validate(&self) -> Result<()> {
        self.check_caps()?;
        self.codecs.iter().try_for_each(check_codec)?;
        self.check_shards()?;
        self.check_tensors()?;
        self.check_files()?;
        let known: BTreeSet<&String> = self.features.required.iter().chain(&self.features.optional).collect();
        if let Some(name) = self.extra.keys().find(|name| !known.contains(name)) {
            return Err(Error::corruption(
                "P05",
                format!("extra holds \"{}\", which is no feature", crate::escape(name)),
            ));
        }
        Ok(())
    }

    fn check_caps(&self) -> Result<()> {
        let counts = [
            ("tensors", self.tensors.len(), MAX_TENSORS),
            ("shards", self.shards.len(), MAX_ENTRIES - 1),
            ("codecs", self.codecs.len(), MAX_TENSORS),
            ("files", self.files.len(), MAX_ENTRIES),
            ("source files", self.source.files.len(), MAX_ENTRIES),
            ("features", self.features.required.len() + self.features.optional.len(), 1000),
        ];
        for (what, count, most) in counts {
            if count > most {
                return Err(Error::corruption("P06", format!("{count} {what}: at most {most} are allowed")));
            }
        }
        let words = std::iter::once(&self.tool).chain(&self.features.required).chain(&self.features.optional);
        check_words(words, MAX_WORD_BYTES)?;
        check_words(self.source.files.iter().map(|f| &f.file), MAX_NAME_BYTES)
    }

    fn check_shards(&self) -> Result<()> {
        for (index, shard) in self.shards.iter().enumerate() {
            let expected = shard_file_name(index);
            if shard.file != expected {
                return Err(Error::corruption(
                    "P08",
                    format!(
                        "shard {} is called \"{}\" and not {expected}",
                        index + 1,
                        crate::escape(&shard.file)
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_tensors(&self) -> Result<()> {
        let mut stored = BTreeMap::new();
        let mut names = BTreeSet::new();
        let mut weights = 0u64;
        let mut shard = 0;
        for tensor in &self.tensors {
            let name = tensor.name.as_str();
            check_tensor_name(name)?;
            if !names.insert(name) {
                return Err(Error::corruption("P07", "the tensor is listed twice").in_tensor(name));
            }
            let Content::Stored(t) = &tensor.content else { continue };
            let elements = self.check_stored(t, shard).map_err(|e| e.in_tensor(name))?;
            weights = weights.checked_add(elements).ok_or_else(|| {
                Error::corruption("B35", "the number of weights overflows 64 bits").in_tensor(name)
            })?;
            shard = t.shard;
            stored.insert(name, ());
        }
        for tensor in &self.tensors {
            if let Content::SameAs(other) = &tensor.content
                && !stored.contains_key(other.as_str())
            {
                return Err(Error::corruption(
                    "P09",
                    format!("it is the same as \"{}\", which is no stored tensor", crate::escape(other)),
                )
                .in_tensor(tensor.name.as_str()));
            }
        }
        if weights != self.weights {
            return Err(Error::corruption(
                "P09",
                format!("the manifest counts {} weights and its shapes hold {weights}", self.weights),
            ));
        }
        Ok(())
    }

    /// Number of elements, once type, shape and references are known to be possible.
    fn check_stored(&self, tensor: &StoredTensor, shard_before: usize) -> Result<u64> {
        if tensor.shape.len() > MAX_RANK {
            return Err(Error::corruption(
                "P06",
                format!("{} dimensions: at most {MAX_RANK} are allowed", tensor.shape.len()),
            ));
        }
        // The product of the dimensions that are not zero: rows times columns must fit for every tensor.
        let product = tensor.shape.iter().filter(|d| **d > 0).try_fold(1u64, |n, d| n.checked_mul(*d));
        let elements = product.map(|n| if tensor.shape.contains(&0) { 0 } else { n });
        let Some((elements, _)) = elements.and_then(|n| Some((n, tensor.dtype.byte_len(n)?))) else {
            return Err(Error::corruption(
                "B35",
                format!("shape {:?} of {} has no size in bytes", tensor.shape, tensor.dtype),
            ));
        };
        let references =
            [("codec", tensor.codec, self.codecs.len()), ("shard", tensor.shard, self.shards.len())];
        for (what, index, count) in references {
            if index >= count {
                return Err(Error::corruption("P09", format!("{what} {index} of {count} does not exist")));
            }
        }
        if tensor.shard < shard_before {
            return Err(Error::corruption(
                "P09",
                format!("shard {} comes after shard {shard_before}", tensor.shard),
            ));
        }
        Ok(elements)
    }

    fn check_files(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for file in &self.files {
            check_file_name(&file.file)?;
            // Two names that some file systems hold for one would overwrite each other there.
            if !names.insert(file.file.to_lowercase()) {
                return Err(Error::corruption(
                    "P08",
                    format!("the file name \"{}\" is listed twice", crate::escape(&file.file)),
                ));
            }
        }
        Ok(())
    }
}

fn check_codec(codec: &CodecRecord) -> Result<()> {
    check_words(std::iter::once(&codec.id).chain(codec.parameters.keys()), MAX_WORD_BYTES)?;
    for (name, value) in &codec.parameters {
        let scalar = match value {
            Value::Bool(_) | Value::Number(_) => true,
            Value::String(text) => text.len() <= MAX_WORD_BYTES,
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        if !scalar {
            return Err(Error::corruption(
                "P06",
                format!(
                    "parameter {} of codec {} is no boolean, number or short text",
                    crate::escape(name),
                    crate::escape(&codec.id)
                ),
            ));
        }
    }
    Ok(())
}

fn check_words<'a>(words: impl Iterator<Item = &'a String>, most: usize) -> Result<()> {
    for word in words {
        if word.is_empty() || word.len() > most {
            return Err(Error::corruption(
                "P06",
                format!("\"{}\" has {} bytes: 1 to {most} are allowed", crate::escape(word), word.len()),
            ));
        }
    }
    Ok(())
}
