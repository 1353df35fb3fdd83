//! Weights that already lie in memory: for tests, small tools and programs that made them themselves.

use super::bytes::Bytes;
use super::held::Plain;
use super::{TensorFacts, TensorWeights, WeightSource, facts_of};
use crate::Result;
use lsb_format::{DType, Error};
use std::sync::Arc;

/// A source whose tensors are byte vectors in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryWeights {
    facts: Vec<TensorFacts>,
    bytes: Vec<Arc<Bytes>>,
}

impl MemoryWeights {
    /// A source without tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more tensor: `bytes` are its elements row-major, little-endian.
    ///
    /// # Errors
    /// If the bytes are not as many as shape and type say, or the name is taken.
    pub fn with(mut self, name: &str, dtype: DType, shape: &[u64], bytes: Vec<u8>) -> Result<Self> {
        // Zeros are left out of the product that must not overflow: part of the shape must not either.
        let product = shape.iter().filter(|&&d| d != 0).try_fold(1u64, |n, &d| n.checked_mul(d));
        let elements = if shape.contains(&0) { product.map(|_| 0) } else { product };
        let expected = elements.and_then(|n| dtype.byte_len(n));
        let bad = |message: String| Error::argument(message).in_tensor(name);
        if expected != Some(bytes.len() as u64) {
            return Err(bad(format!("{} bytes for {dtype} of shape {shape:?}", bytes.len())).into());
        }
        if self.find(name).is_some() {
            return Err(bad("there is a tensor of that name already".to_owned()).into());
        }
        self.facts.push(TensorFacts {
            name: name.to_owned(),
            layer: String::new(),
            dtype,
            shape: shape.to_vec(),
            stored_bytes: bytes.len() as u64,
            codec: None,
            same_as: None,
        });
        self.bytes.push(Arc::new(Bytes::Allocated(bytes)));
        Ok(self)
    }

    /// With one more tensor of f32 values.
    ///
    /// # Errors
    /// As [`MemoryWeights::with`].
    pub fn with_f32(self, name: &str, shape: &[u64], values: &[f32]) -> Result<Self> {
        self.with(name, DType::F32, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }
}

impl WeightSource for MemoryWeights {
    fn tensors(&self) -> &[TensorFacts] {
        &self.facts
    }

    fn open(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        let facts = facts_of(&self.facts, tensor)?;
        let bytes = self.bytes.get(tensor).cloned().unwrap_or_default();
        Ok(Box::new(Plain::new(facts.clone(), bytes)?))
    }

    /// The same as opening: the bytes are shared.
    fn hold(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        self.open(tensor)
    }

    /// The bytes of the tensor, although holding shares them, so that this stands for other sources.
    fn held_bytes(&self, tensor: usize) -> u64 {
        self.facts.get(tensor).map_or(0, |t| t.stored_bytes)
    }
}
