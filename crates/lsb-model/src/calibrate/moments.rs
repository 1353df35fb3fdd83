//! Second moments of the inputs of one or more maps, in memory or from inputs that lie in a file.

use crate::{Error, Result};
use candle_core::{Device, Tensor};
use lsb_quant::calibrate::Moments;
use lsb_stream::{ActivationStore, Reservation};

/// Sums over inputs, or the inputs themselves.
#[derive(Debug)]
pub(super) struct InputMoments {
    n: usize,
    tokens: usize,
    diagonal: Vec<f32>,
    kept: Kept,
    block_limit: usize,
}

#[derive(Debug)]
pub(super) enum Kept {
    /// Sums of products, both triangles.
    Sums { sums: Vec<f32>, _memory: Reservation },
    /// A slot of inputs for each chunk of tokens.
    Inputs { store: ActivationStore, chunks: Vec<usize> },
}

impl InputMoments {
    /// Of `tokens` inputs, of which `squares` are the sums of squares.
    pub(super) fn new(tokens: usize, squares: &[f64], kept: Kept, block_limit: usize) -> Self {
        let count = tokens.max(1) as f64;
        let diagonal = squares.iter().map(|s| (s / count) as f32).collect();
        InputMoments { n: squares.len(), tokens, diagonal, kept, block_limit }
    }
}

impl Moments for InputMoments {
    fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }

    fn block(&self, columns: &[usize]) -> lsb_quant::Result<Vec<f32>> {
        let inverse = 1.0 / self.tokens.max(1) as f32;
        let mut out = match &self.kept {
            Kept::Sums { sums, .. } => {
                let row = |&i: &usize| columns.iter().map(move |&j| sums[i * self.n + j]);
                columns.iter().flat_map(row).collect()
            }
            Kept::Inputs { store, chunks } => self.sums_over(store, chunks, columns).map_err(|e| {
                let message = format!("second moments of {} inputs: {e}", columns.len());
                lsb_quant::Error::Payload(lsb_format::Error::argument(message))
            })?,
        };
        out.iter_mut().for_each(|x| *x *= inverse);
        Ok(out)
    }

    fn block_limit(&self) -> usize {
        self.block_limit
    }
}

impl InputMoments {
    fn sums_over(&self, store: &ActivationStore, chunks: &[usize], columns: &[usize]) -> Result<Vec<f32>> {
        let mut sums = vec![0.0; columns.len() * columns.len()];
        let mut inputs = Vec::new();
        for (i, &tokens) in chunks.iter().enumerate().filter(|(_, t)| **t > 0) {
            store.get(i, &mut inputs)?;
            let wanted: Vec<f32> = inputs[..tokens * self.n]
                .chunks(self.n)
                .flat_map(|x| columns.iter().map(|&c| x[c]))
                .collect();
            let x = Tensor::from_vec(wanted, (tokens, columns.len()), &Device::Cpu)
                .map_err(Error::compute("inputs"))?;
            add_products(&x, &mut sums)?;
        }
        Ok(sums)
    }
}

/// Adds `x^T x` of inputs `x`, [tokens, n], to `sums`.
pub(super) fn add_products(x: &Tensor, sums: &mut [f32]) -> Result<()> {
    let products = x
        .t()
        .and_then(|t| t.contiguous())
        .and_then(|t| t.matmul(x))
        .and_then(|p| p.flatten_all()?.to_vec1::<f32>())
        .map_err(Error::compute("second moments"))?;
    sums.iter_mut().zip(products).for_each(|(s, p)| *s += p);
    Ok(())
}
