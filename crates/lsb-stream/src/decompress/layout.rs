//! Which tensor goes where in the weight files that are made.

use crate::weights::{TensorFacts, WeightSource};
use crate::{Error, Result};
use lsb_format::DType;
use lsb_format::safetensors::{NewEntry, write_header};
use std::ops::Range;

/// A tensor as it will be written.
#[derive(Clone, Debug)]
pub(super) struct OutTensor {
    /// Its number in the package.
    pub(super) index: usize,
    pub(super) dtype: DType,
    pub(super) bytes: u64,
}

impl OutTensor {
    pub(super) fn new(index: usize, facts: &TensorFacts, dtype: Option<DType>) -> Result<Self> {
        let dtype = dtype.filter(|_| facts.dtype.is_float()).unwrap_or(facts.dtype);
        let bytes = dtype.byte_len(facts.weights()).ok_or_else(|| {
            Error::Config(format!("\"{}\" is too large as {dtype}", lsb_format::escape(&facts.name)))
        })?;
        Ok(OutTensor { index, dtype, bytes })
    }
}

/// One weight file.
#[derive(Clone, Debug)]
pub(super) struct OutShard {
    pub(super) tensors: Range<usize>,
}

/// Fills files up to `limit` bytes each, in order.
pub(super) fn plan_shards(tensors: &[OutTensor], limit: u64) -> Vec<OutShard> {
    let mut out = Vec::new();
    let (mut first, mut held) = (0, 0);
    for (i, t) in tensors.iter().enumerate() {
        if i > first && held + t.bytes > limit {
            out.push(OutShard { tensors: first..i });
            (first, held) = (i, 0);
        }
        held += t.bytes;
    }
    out.push(OutShard { tensors: first..tensors.len() });
    out
}

impl OutShard {
    /// The name Hugging Face gives file `number` of `count`.
    pub(super) fn file_name(&self, number: usize, count: usize) -> String {
        if count == 1 {
            "model.safetensors".into()
        } else {
            format!("model-{:05}-of-{count:05}.safetensors", number + 1)
        }
    }

    pub(super) fn header(&self, tensors: &[OutTensor], weights: &dyn WeightSource) -> Result<Vec<u8>> {
        let mut at = 0;
        let entries: Vec<NewEntry<'_>> = tensors[self.tensors.clone()]
            .iter()
            .map(|t| {
                let facts = &weights.tensors()[t.index];
                let begin = at;
                at += t.bytes;
                NewEntry { name: &facts.name, dtype: t.dtype, shape: &facts.shape, begin, end: at }
            })
            .collect();
        Ok(write_header(&entries, &[("format", "pt")], 8)?)
    }
}

/// `model.safetensors.index.json`.
pub(super) fn index_json(tensors: &[OutTensor], shards: &[OutShard], weights: &dyn WeightSource) -> Vec<u8> {
    let total: u64 = tensors.iter().map(|t| t.bytes).sum();
    let mut map = serde_json::Map::new();
    for (number, shard) in shards.iter().enumerate() {
        for t in &tensors[shard.tensors.clone()] {
            map.insert(weights.tensors()[t.index].name.clone(), shard.file_name(number, shards.len()).into());
        }
    }
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
    format!("{index:#}\n").into_bytes()
}
