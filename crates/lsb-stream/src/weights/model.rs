//! Weights of a source model, read by position in their own type.

use super::{Scratch, TensorFacts, TensorWeights, WeightSource, check_float, check_run};
use crate::Result;
use crate::layers::layer_of;
use crate::source::{Model, TensorReader};
use lsb_format::{TILE_WEIGHTS, Tiling};
use lsb_quant::to_f32_into;
use std::ops::Range;

/// An opened [`Model`] as a [`WeightSource`]. Everything is exact; no tensor names another, because which
/// ones are equal is known only after reading them.
#[derive(Debug)]
pub struct ModelWeights {
    model: Model,
    facts: Vec<TensorFacts>,
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
        ModelWeights { facts: facts.collect(), model }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

impl WeightSource for ModelWeights {
    fn tensors(&self) -> &[TensorFacts] {
        &self.facts
    }

    fn open(&self, tensor: usize) -> Result<Box<dyn TensorWeights + '_>> {
        let reader = self.model.reader(tensor)?;
        let Some(facts) = self.facts.get(tensor) else {
            return Err(lsb_format::Error::argument(format!("no tensor number {tensor}")).into());
        };
        let matrix = facts.matrix();
        let tiling = Tiling::standard(matrix.rows, matrix.cols).map_err(|e| e.in_tensor(&facts.name))?;
        Ok(Box::new(Open { facts, reader, tiling }))
    }
}

struct Open<'a> {
    facts: &'a TensorFacts,
    reader: TensorReader<'a>,
    tiling: Tiling,
}

impl Open<'_> {
    fn bytes(&self, elements: u64) -> u64 {
        // Inside the tensor this cannot overflow: its bytes were counted when the model was opened.
        elements * self.facts.dtype.bits() / 8
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
        self.bytes(self.facts.weights().min(TILE_WEIGHTS))
    }

    fn read_f32(&self, elements: Range<u64>, out: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        check_float(self.facts)?;
        check_run(self.facts, &elements, size_of_val(out), 32)?;
        let mut at = elements.start;
        for piece in out.chunks_mut(TILE_WEIGHTS as usize) {
            let end = at + piece.len() as u64;
            scratch.stored.resize((self.bytes(end) - self.bytes(at)) as usize, 0);
            self.reader.read_at(self.bytes(at), &mut scratch.stored)?;
            to_f32_into(self.facts.dtype, &scratch.stored, piece);
            at = end;
        }
        Ok(())
    }

    fn read_exact(&self, elements: Range<u64>, out: &mut [u8], _: &mut Scratch) -> Result<()> {
        check_run(self.facts, &elements, out.len(), self.facts.dtype.bits())?;
        self.reader.read_at(self.bytes(elements.start), out)
    }
}
