//! Weights of a tensor with other scales of its rows and columns.

use lsb_format::{Error, Tiling};
use lsb_stream::{Reservation, Result, Scratch, TensorFacts, TensorWeights};
use std::ops::Range;
use std::sync::Arc;

/// The weights that scales are multiplied onto.
#[derive(Clone)]
pub(super) struct Base {
    weights: Arc<dyn TensorWeights>,
    /// All of them decoded, where the budget had room.
    decoded: Option<Arc<(Vec<f32>, Reservation)>>,
}

impl Base {
    pub(super) fn new(weights: Arc<dyn TensorWeights>) -> Base {
        Base { weights, decoded: None }
    }

    /// Decodes everything into memory that was reserved for it: 4 bytes for each weight.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub(super) fn decode(&mut self, memory: Reservation) -> Result<()> {
        let elements = self.weights.facts().weights();
        let mut values = vec![0.0; usize::try_from(elements).unwrap_or(0)];
        self.weights.read_f32(0..elements, &mut values, &mut Scratch::default())?;
        self.decoded = Some(Arc::new((values, memory)));
        Ok(())
    }

    /// Rows and columns of the stored matrix.
    pub(super) fn shape(&self) -> [usize; 2] {
        let matrix = self.weights.facts().matrix();
        [matrix.rows as usize, matrix.cols as usize]
    }

    /// The weights with row `r` multiplied by `rows[r]` and column `c` by `cols[c]`.
    pub(super) fn scaled(&self, rows: Vec<f32>, cols: Vec<f32>) -> Scaled {
        Scaled { base: self.clone(), rows, cols }
    }
}

/// Weights whose rows and columns are multiplied by factors.
pub(super) struct Scaled {
    base: Base,
    rows: Vec<f32>,
    cols: Vec<f32>,
}

impl TensorWeights for Scaled {
    fn facts(&self) -> &TensorFacts {
        self.base.weights.facts()
    }

    fn tiling(&self) -> &Tiling {
        self.base.weights.tiling()
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn scratch_bytes(&self) -> u64 {
        self.base.weights.scratch_bytes()
    }

    fn read_f32(&self, elements: Range<u64>, out: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        let run = elements.start as usize..elements.end as usize;
        match self.base.decoded.as_deref().and_then(|(values, _)| values.get(run)) {
            Some(values) if values.len() == out.len() => out.copy_from_slice(values),
            _ => self.base.weights.read_f32(elements.clone(), out, scratch)?,
        }
        let width = self.cols.len().max(1) as u64;
        let (mut at, mut rest) = (elements.start, out);
        while !rest.is_empty() {
            let (row, first) = ((at / width) as usize, (at % width) as usize);
            let (part, behind) = rest.split_at_mut(rest.len().min(self.cols.len() - first));
            let factor = self.rows.get(row).copied().unwrap_or(1.0);
            for (w, col) in part.iter_mut().zip(&self.cols[first..]) {
                *w *= factor * col;
            }
            at += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    fn read_exact(&self, _: Range<u64>, _: &mut [u8], _: &mut Scratch) -> Result<()> {
        let error = Error::argument("weights that are being tuned are not those of the source");
        Err(error.in_tensor(&self.facts().name).into())
    }
}
