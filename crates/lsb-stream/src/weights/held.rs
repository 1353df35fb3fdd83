//! Plain elements in memory: what a held tensor of a model is, and every tensor of [`super::MemoryWeights`].

use super::bytes::Bytes;
use super::{Scratch, TensorFacts, TensorWeights, check_float, check_run};
use crate::Result;
use lsb_format::Tiling;
use lsb_quant::to_f32_into;
use std::ops::Range;
use std::sync::Arc;

/// A tensor whose elements lie in memory, row-major, little-endian, in their own type.
pub(super) struct Plain {
    facts: TensorFacts,
    tiling: Tiling,
    bytes: Arc<Bytes>,
}

impl Plain {
    /// The tensor of these `bytes`, which are as many as its facts say.
    pub(super) fn new(facts: TensorFacts, bytes: Arc<Bytes>) -> Result<Self> {
        let matrix = facts.matrix();
        let tiling = Tiling::standard(matrix.rows, matrix.cols).map_err(|e| e.in_tensor(&facts.name))?;
        Ok(Plain { facts, tiling, bytes })
    }

    /// The bytes of a run that was checked.
    fn run(&self, elements: &Range<u64>) -> &[u8] {
        let at = |element: u64| (element * self.facts.dtype.bits() / 8) as usize;
        &self.bytes[at(elements.start)..at(elements.end)]
    }
}

impl TensorWeights for Plain {
    fn facts(&self) -> &TensorFacts {
        &self.facts
    }

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
        check_float(&self.facts)?;
        check_run(&self.facts, &elements, size_of_val(out), 32)?;
        to_f32_into(self.facts.dtype, self.run(&elements), out);
        Ok(())
    }

    fn read_exact(&self, elements: Range<u64>, out: &mut [u8], _: &mut Scratch) -> Result<()> {
        check_run(&self.facts, &elements, out.len(), self.facts.dtype.bits())?;
        out.copy_from_slice(self.run(&elements));
        Ok(())
    }
}
