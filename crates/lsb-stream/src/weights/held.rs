//! Plain elements in memory: what a held tensor of a model is, and every tensor of [`super::MemoryWeights`];
//! and reading stored bytes in large pieces.

use super::{Scratch, TensorFacts, TensorWeights, check_float, check_run};
use crate::Result;
use crate::manager::CHUNK_BYTES;
use lsb_format::{Error, Tiling};
use lsb_quant::to_f32_into;
use std::ops::Range;
use std::sync::Arc;

/// A tensor whose elements lie in memory, row-major, little-endian, in their own type.
pub(super) struct Plain {
    facts: TensorFacts,
    tiling: Tiling,
    bytes: Arc<Vec<u8>>,
}

impl Plain {
    /// The tensor of these `bytes`, which are as many as its facts say.
    pub(super) fn new(facts: TensorFacts, bytes: Arc<Vec<u8>>) -> Result<Self> {
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

/// Reads `len` bytes in order, [`CHUNK_BYTES`] at a time: `read` fills a piece from the byte it is told, and
/// `seen` is shown all bytes read so far after each.
pub(super) fn read_whole(
    len: u64,
    tensor: &str,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    mut seen: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let total = usize::try_from(len).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(total).map_err(|_| {
        Error::argument(format!("no memory to hold {len} bytes"))
            .in_tensor(tensor)
            .advise("lower --target-ram-mb, so that less is held at once")
    })?;
    let mut at = 0;
    while at < total {
        let end = total.min(at + CHUNK_BYTES as usize);
        // Piece by piece: what is zeroed here is still in the cache when it is filled.
        bytes.resize(end, 0);
        read(at as u64, &mut bytes[at..end])?;
        seen(&bytes)?;
        at = end;
    }
    Ok(bytes)
}
