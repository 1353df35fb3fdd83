//! Second moments of the inputs of one or more maps, in memory or from inputs that lie in a file.

use crate::{Error, Result};
use candle_core::{Device, Tensor};
use lsb_quant::calibrate::Moments;
use lsb_stream::{ActivationStore, Reservation};
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
    /// Of `tokens` inputs, of which `squares` are the sums of squares.
    pub(super) fn new(
        tokens: usize,
        squares: &[f64],
        kept: Kept,
        drift: Option<Drift>,
        block_limit: usize,
    ) -> Self {
        let count = tokens.max(1) as f64;
        let diagonal = squares.iter().map(|s| (s / count) as f32).collect();
        InputMoments { n: squares.len(), tokens, diagonal, kept, drift, block_limit }
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
            Kept::Sums { sums, .. } => {
                let row = |&i: &usize| columns.iter().map(move |&j| sums[i * self.n + j]);
                columns.iter().flat_map(row).collect()
            }
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
            (DriftKept::Sums { sums, .. }, _) => {
                let row = |&i: &usize| columns.iter().map(move |&j| sums[i * self.n + j]);
                columns.iter().flat_map(row).collect()
            }
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
            let wanted: Vec<f32> = rows.chunks(self.n).flat_map(|x| columns.iter().map(|&c| x[c])).collect();
            let x = Tensor::from_vec(wanted, (rows.len() / self.n, columns.len()), &Device::Cpu);
            add_products(&x.map_err(Error::compute("inputs"))?, &mut sums)
        })?;
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
            let chosen = |values: &[f32]| -> Vec<f32> {
                values.chunks(self.n).take(count).flat_map(|x| columns.iter().map(|&c| x[c])).collect()
            };
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
                Ok((x.narrow(1, first, rows.len())?, x.narrow(1, first, width)?.contiguous()?))
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

/// Adds `x^T x` of inputs `x`, [tokens, n], to `sums`.
pub(super) fn add_products(x: &Tensor, sums: &mut [f32]) -> Result<()> {
    add_products_of(x, x, sums)
}

/// Adds `a^T b` of `a`, [tokens, m], and `b`, [tokens, n], to `sums`, [m, n].
pub(super) fn add_products_of(a: &Tensor, b: &Tensor, sums: &mut [f32]) -> Result<()> {
    let _phase = tracing::debug_span!("moments").entered();
    let products = a
        .t()
        .and_then(|t| t.contiguous())
        .and_then(|t| t.matmul(b))
        .and_then(|p| p.flatten_all()?.to_vec1::<f32>())
        .map_err(Error::compute("second moments"))?;
    sums.iter_mut().zip(products).for_each(|(s, p)| *s += p);
    Ok(())
}
