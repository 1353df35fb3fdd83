//! A tensor together with the memory it was promised.

use super::{Scratch, TensorFacts, TensorWeights, UnpackedWeights};
use crate::{Reservation, Result};
use lsb_format::Tiling;
use lsb_quant::Activations;
use std::ops::Range;
use std::sync::Arc;

/// A tensor in memory that was reserved for it, which goes back to the budget when the last user drops the tensor.
#[derive(Debug)]
pub struct ReservedWeights {
    // Fields are dropped in this order: the memory is free before the budget says so.
    weights: Box<dyn TensorWeights>,
    _memory: Arc<Reservation>,
}

impl ReservedWeights {
    /// `weights` together with `memory`, which several tensors may share.
    pub fn new(weights: Box<dyn TensorWeights>, memory: impl Into<Arc<Reservation>>) -> Self {
        ReservedWeights { weights, _memory: memory.into() }
    }
}

impl TensorWeights for ReservedWeights {
    fn facts(&self) -> &TensorFacts {
        self.weights.facts()
    }

    fn tiling(&self) -> &Tiling {
        self.weights.tiling()
    }

    fn is_exact(&self) -> bool {
        self.weights.is_exact()
    }

    fn scratch_bytes(&self) -> u64 {
        self.weights.scratch_bytes()
    }

    fn read_f32(&self, elements: Range<u64>, out: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        self.weights.read_f32(elements, out, scratch)
    }

    fn read_exact(&self, elements: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        self.weights.read_exact(elements, out, scratch)
    }

    fn has_products(&self, tokens: usize) -> bool {
        self.weights.has_products(tokens)
    }

    fn products_tiling(&self, tokens: usize) -> Tiling {
        self.weights.products_tiling(tokens)
    }

    fn add_products(
        &self,
        tiles: Range<u64>,
        x: &Activations<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        self.weights.add_products(tiles, x, y, scratch)
    }

    fn unpacked_bytes(&self) -> Option<u64> {
        self.weights.unpacked_bytes()
    }

    fn unpack(&self, room: u64) -> Result<Option<UnpackedWeights>> {
        self.weights.unpack(room)
    }
}
