//! Second moments of the inputs of one or more maps, in memory or from inputs that lie in a file.

use super::products::{add_products, add_products_of, mirror};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use lsb_quant::calibrate::{InputsId, LastFactor, Moments};
use lsb_stream::{ActivationStore, Reservation};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Sums over inputs, or the inputs themselves.
#[derive(Debug)]
pub(super) struct InputMoments {
    n: usize,
    tokens: usize,
    diagonal: Vec<f32>,
    kept: Kept,
    drift: Option<Drift>,
    block_limit: usize,
    id: InputsId,
    last: Arc<LastFactor>,
}

/// How far the original's inputs are from those that were seen.
#[derive(Debug)]
pub(super) struct Drift {
    /// The share of it that weights make up for.
    pub(super) share: f32,
    pub(super) kept: DriftKept,
}

#[derive(Debug)]
pub(super) enum DriftKept {
    /// Sums of products of differences and inputs that were seen, and the original's inputs.
    Sums { sums: Vec<f32>, inputs: Arc<ActivationStore>, _memory: Reservation },
    /// The original's inputs, in slots with the numbers of those that were seen.
    Inputs(Arc<ActivationStore>),
}

#[derive(Debug)]
pub(super) enum Kept {
    /// Sums of products, both triangles.
    Sums { sums: Vec<f32>, _memory: Reservation },
    /// The inputs.
    Inputs(Spilled),
}

impl InputMoments {
    /// Of `tokens` inputs, of which `squares` are the sums of squares. Of sums of products the upper triangle is read.
    pub(super) fn new(
        tokens: usize,
        squares: &[f64],
        mut kept: Kept,
        drift: Option<Drift>,
        block_limit: usize,
        last: Arc<LastFactor>,
    ) -> Self {
        let count = tokens.max(1) as f64;
        let diagonal = squares.iter().map(|s| (s / count) as f32).collect();
        if let Kept::Sums { sums, .. } = &mut kept {
            mirror(sums, squares.len());
        }
        InputMoments {
            n: squares.len(),
            tokens,
            diagonal,
            kept,
            drift,
            block_limit,
            id: InputsId::unique(),
            last,
        }
    }

    /// Inputs that were seen.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Drift is known half from so many tokens for each input; from fewer, weights would make up for whatever these tokens
/// happened to drift by. (At 2.3 bits per weight on a small model, 8 tokens for each input were best used by a quarter,
/// 128 by all.)
const TOKENS_PER_INPUT: f32 = 16.0;

impl Moments for InputMoments {
    fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }

    fn block(&self, columns: &[usize]) -> lsb_quant::Result<Vec<f32>> {
        let inverse = 1.0 / self.tokens.max(1) as f32;
        let mut out = match &self.kept {
            Kept::Sums { sums, .. } => square(sums, self.n, columns),
            Kept::Inputs(inputs) => self.sums_over(inputs, columns).map_err(failed)?,
        };
        out.iter_mut().for_each(|x| *x *= inverse);
        Ok(out)
    }

    fn upper(&self, rows: Range<usize>) -> lsb_quant::Result<Vec<f32>> {
        let inverse = 1.0 / self.tokens.max(1) as f32;
        let mut out: Vec<f32> = match &self.kept {
            Kept::Sums { sums, .. } => {
                rows.flat_map(|i| &sums[i * self.n + i..(i + 1) * self.n]).copied().collect()
            }
            Kept::Inputs(inputs) => {
                // Everything right of the first row's diagonal, of which the corner on the left is not wanted.
                let width = self.n - rows.start;
                let sums = self.strip_over(inputs, rows.clone()).map_err(failed)?;
                (0..rows.len()).flat_map(|i| &sums[i * width + i..(i + 1) * width]).copied().collect()
            }
        };
        out.iter_mut().for_each(|x| *x *= inverse);
        Ok(out)
    }

    fn drift(&self, columns: &[usize]) -> lsb_quant::Result<Option<Vec<f32>>> {
        let Some(drift) = &self.drift else { return Ok(None) };
        let mut out = match (&drift.kept, &self.kept) {
            (DriftKept::Sums { sums, .. }, _) => square(sums, self.n, columns),
            (DriftKept::Inputs(originals), Kept::Inputs(inputs)) => {
                self.drift_over(originals, inputs, columns).map_err(failed)?
            }
            (DriftKept::Inputs(_), Kept::Sums { .. }) => return Ok(None),
        };
        let (tokens, n) = (self.tokens as f32, columns.len() as f32);
        let known = tokens / (tokens + TOKENS_PER_INPUT * n).max(1.0);
        let scale = drift.share * known / self.tokens.max(1) as f32;
        out.iter_mut().for_each(|x| *x *= scale);
        Ok(Some(out))
    }

    fn last_factor(&self) -> Option<(&LastFactor, InputsId)> {
        Some((&self.last, self.id))
    }

    fn block_limit(&self) -> usize {
        self.block_limit
    }
}

fn failed(error: Error) -> lsb_quant::Error {
    let message = format!("second moments of inputs: {error}");
    lsb_quant::Error::Payload(lsb_format::Error::argument(message))
}

impl InputMoments {
    fn sums_over(&self, inputs: &Spilled, columns: &[usize]) -> Result<Vec<f32>> {
        let mut sums = vec![0.0; columns.len() * columns.len()];
        inputs.each(self.n, &mut |rows| {
            let size = (rows.len() / self.n, columns.len());
            let x = Tensor::from_vec(chosen(rows, self.n, columns), size, &Device::Cpu);
            add_products(&x.map_err(Error::compute("inputs"))?, &mut sums)
        })?;
        mirror(&mut sums, columns.len());
        Ok(sums)
    }

    /// Sums of products of what the originals are apart from inputs `columns`, with these.
    fn drift_over(
        &self,
        originals: &ActivationStore,
        inputs: &Spilled,
        columns: &[usize],
    ) -> Result<Vec<f32>> {
        let mut sums = vec![0.0; columns.len() * columns.len()];
        let (mut seen, mut original) = (Vec::new(), Vec::new());
        for &(slot, count) in &inputs.slots {
            inputs.store.get(slot, &mut seen)?;
            originals.get(slot, &mut original)?;
            let chosen = |values: &[f32]| chosen(&values[..count * self.n], self.n, columns);
            let x = chosen(&seen);
            let mut apart = chosen(&original);
            apart.iter_mut().zip(&x).for_each(|(o, x)| *o -= x);
            let tensor = |values: Vec<f32>| {
                Tensor::from_vec(values, (count, columns.len()), &Device::Cpu)
                    .map_err(Error::compute("inputs"))
            };
            add_products_of(&tensor(apart)?, &tensor(x)?, &mut sums)?;
        }
        Ok(sums)
    }

    /// Sums of products of inputs `rows` with all inputs from the first of them on, [rows, n - first].
    fn strip_over(&self, inputs: &Spilled, rows: Range<usize>) -> Result<Vec<f32>> {
        let (first, width) = (rows.start, self.n - rows.start);
        let mut sums = vec![0.0; rows.len() * width];
        inputs.each(self.n, &mut |values| {
            let x = Tensor::from_slice(values, (values.len() / self.n, self.n), &Device::Cpu);
            let parts = x.and_then(|x| {
                let part = |length| x.narrow(1, first, length);
                // A single product is summed by the order of its factors in memory.
                if width == 1 {
                    Ok((part(1)?.contiguous()?, part(1)?.contiguous()?))
                } else {
                    Ok((part(rows.len())?, part(width)?))
                }
            });
            let (a, b) = parts.map_err(Error::compute("inputs"))?;
            add_products_of(&a, &b, &mut sums)
        })?;
        Ok(sums)
    }
}

/// Inputs that lie in slots of a store, which others may use too.
#[derive(Debug)]
pub(super) struct Spilled {
    pub(super) store: Arc<ActivationStore>,
    /// Slots, and how many inputs are in each.
    pub(super) slots: Vec<(usize, usize)>,
}

/// Inputs that are at least multiplied at once.
const TOGETHER: usize = 512;

impl Spilled {
    /// Shows all inputs of `n` values each, many at once.
    fn each(&self, n: usize, visit: &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> {
        let (mut slot, mut waiting) = (Vec::new(), Vec::new());
        for &(number, count) in self.slots.iter().filter(|(_, count)| *count > 0) {
            self.store.get(number, &mut slot)?;
            let values = &slot[..count * n];
            if waiting.is_empty() && count >= TOGETHER {
                visit(values)?;
                continue;
            }
            waiting.extend_from_slice(values);
            if waiting.len() >= TOGETHER * n {
                visit(&waiting)?;
                waiting.clear();
            }
        }
        if waiting.is_empty() { Ok(()) } else { visit(&waiting) }
    }
}

/// Columns `columns` of rows of `n` values.
fn chosen(values: &[f32], n: usize, columns: &[usize]) -> Vec<f32> {
    let mut out = vec![0.0; values.len() / n.max(1) * columns.len()];
    let rows = out.par_chunks_mut(columns.len().max(1)).zip(values.par_chunks(n.max(1)));
    rows.for_each(|(out, row)| out.iter_mut().zip(columns).for_each(|(x, &c)| *x = row[c]));
    out
}

/// Rows and columns `columns` of a matrix [n, n].
fn square(values: &[f32], n: usize, columns: &[usize]) -> Vec<f32> {
    let mut out = vec![0.0; columns.len() * columns.len()];
    out.par_chunks_mut(columns.len().max(1)).zip(columns).for_each(|(out, &i)| {
        let row = &values[i * n..(i + 1) * n];
        out.iter_mut().zip(columns).for_each(|(x, &j)| *x = row[j]);
    });
    out
}
