//! Weights that already lie in memory: for tests, small tools and programs that made them themselves.

use super::{Scratch, TensorFacts, TensorWeights, WeightSource, check_float, check_run};
use crate::Result;
use lsb_format::{DType, Error, Tiling};
use lsb_quant::to_f32_into;
use std::ops::Range;

/// A source whose tensors are byte vectors in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryWeights {
    facts: Vec<TensorFacts>,
    bytes: Vec<Vec<u8>>,
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
        self.bytes.push(bytes);
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

    fn open(&self, tensor: usize) -> Result<Box<dyn TensorWeights + '_>> {
        let (Some(facts), Some(bytes)) = (self.facts.get(tensor), self.bytes.get(tensor)) else {
            return Err(Error::argument(format!("tensor {tensor} of {}", self.facts.len())).into());
        };
        let matrix = facts.matrix();
        Ok(Box::new(Open { facts, bytes, tiling: Tiling::standard(matrix.rows, matrix.cols)? }))
    }
}

struct Open<'a> {
    facts: &'a TensorFacts,
    bytes: &'a [u8],
    tiling: Tiling,
}

impl Open<'_> {
    fn bytes(&self, elements: &Range<u64>) -> &[u8] {
        let at = |element: u64| (element * self.facts.dtype.bits() / 8) as usize;
        &self.bytes[at(elements.start)..at(elements.end)]
    }
}

impl TensorWeights for Open<'_> {
    fn tiling(&self) -> &Tiling {
        &self.tiling
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn read_f32(&self, elements: Range<u64>, out: &mut [f32], _: &mut Scratch) -> Result<()> {
        check_float(self.facts)?;
        check_run(self.facts, &elements, size_of_val(out), 32)?;
        to_f32_into(self.facts.dtype, self.bytes(&elements), out);
        Ok(())
    }

    fn read_exact(&self, elements: Range<u64>, out: &mut [u8], _: &mut Scratch) -> Result<()> {
        check_run(self.facts, &elements, out.len(), self.facts.dtype.bits())?;
        out.copy_from_slice(self.bytes(&elements));
        Ok(())
    }
}
