//! Weights of a source model, read by position in their own type.

use super::bytes::read_whole;
use super::held::Plain;
use super::{Scratch, TensorFacts, TensorWeights, WeightSource, check_float, check_run, facts_of};
use crate::Result;
use crate::layers::layer_of;
use crate::source::Model;
use lsb_format::{TILE_WEIGHTS, Tiling};
use lsb_quant::to_f32_into;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An opened [`Model`] as a [`WeightSource`]. Everything is exact; no tensor names another, because which
/// ones are equal is known only after reading them.
#[derive(Debug)]
pub struct ModelWeights {
    file: Arc<Metered>,
    facts: Vec<TensorFacts>,
}

/// The model, and how much of it was read.
#[derive(Debug)]
struct Metered {
    model: Model,
    bytes_read: AtomicU64,
}

impl Metered {
    fn read_at(&self, tensor: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        self.model.reader(tensor)?.read_at(offset, out)?;
        self.bytes_read.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl ModelWeights {
    /// The weights of `model`.
    pub fn new(model: Model) -> Self {
        let facts = model.tensors().iter().map(|t| TensorFacts {
            name: t.name.clone(),
            layer: layer_of(&t.name).to_string(),
            dtype: t.dtype,
            shape: t.shape.clone(),
            stored_bytes: t.bytes,
            codec: None,
            same_as: None,
        });
        ModelWeights {
            facts: facts.collect(),
            file: Arc::new(Metered { model, bytes_read: AtomicU64::new(0) }),
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.file.model
    }
}

impl WeightSource for ModelWeights {
    fn tensors(&self) -> &[TensorFacts] {
        &self.facts
    }

    fn open(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        let facts = facts_of(&self.facts, tensor)?.clone();
        let matrix = facts.matrix();
        let tiling = Tiling::standard(matrix.rows, matrix.cols).map_err(|e| e.in_tensor(&facts.name))?;
        Ok(Box::new(Open { facts, file: Arc::clone(&self.file), tensor, tiling }))
    }

    fn hold(&self, tensor: usize) -> Result<Box<dyn TensorWeights>> {
        let facts = facts_of(&self.facts, tensor)?.clone();
        let read = |at, out: &mut [u8]| self.file.read_at(tensor, at, out);
        let bytes = read_whole(facts.stored_bytes, &facts.name, read, |_| Ok(()))?;
        Ok(Box::new(Plain::new(facts, Arc::new(bytes))?))
    }

    fn held_bytes(&self, tensor: usize) -> u64 {
        self.facts.get(tensor).map_or(0, |t| t.stored_bytes)
    }

    fn bytes_read(&self) -> u64 {
        self.file.bytes_read.load(Ordering::Relaxed)
    }
}

struct Open {
    facts: TensorFacts,
    file: Arc<Metered>,
    tensor: usize,
    tiling: Tiling,
}

impl Open {
    fn bytes(&self, elements: u64) -> u64 {
        // Inside the tensor this cannot overflow: its bytes were counted when the model was opened.
        elements * self.facts.dtype.bits() / 8
    }
}

impl TensorWeights for Open {
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
        self.bytes(self.facts.weights().min(TILE_WEIGHTS))
    }

    fn read_f32(&self, elements: Range<u64>, out: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        check_float(&self.facts)?;
        check_run(&self.facts, &elements, size_of_val(out), 32)?;
        let mut at = elements.start;
        for piece in out.chunks_mut(TILE_WEIGHTS as usize) {
            let end = at + piece.len() as u64;
            scratch.stored.resize((self.bytes(end) - self.bytes(at)) as usize, 0);
            self.file.read_at(self.tensor, self.bytes(at), &mut scratch.stored)?;
            to_f32_into(self.facts.dtype, &scratch.stored, piece);
            at = end;
        }
        Ok(())
    }

    fn read_exact(&self, elements: Range<u64>, out: &mut [u8], _: &mut Scratch) -> Result<()> {
        check_run(&self.facts, &elements, out.len(), self.facts.dtype.bits())?;
        self.file.read_at(self.tensor, self.bytes(elements.start), out)
    }
}
