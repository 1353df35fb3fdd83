//! What weights have to change by, so that drifted inputs give the outputs that the original inputs gave.
//!
//! With inputs `x` of the original map and `x'` of the same map behind quantized layers, `W' = W (1 + D H^-1)` with
//! `D = mean((x - x') x'^T)` and `H = mean(x' x'^T)` makes the outputs `W' x'` nearest to `W x` (QEP, arXiv 2504.09629;
//! Qronos, arXiv 2505.11695).

mod kernel;
#[cfg(test)]
mod tests;

use super::UpperFactor;
use crate::isa::Isa;
use crate::vectorize::vectorize;
use half::bf16;
use kernel::TimesInverse;
use rayon::prelude::*;

/// Rows that are worked on together, so that the factor is read once for all of them.
const TOGETHER: usize = 16;

/// The change of the weights of a block of inputs, as factors of weights: `C = D H^-1` with `H^-1 = U^T U`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    n: usize,
    /// Column by column. Changes are small: 8 bits of each are enough.
    columns: Vec<bf16>,
}

impl Change {
    /// For the drift `D`, row-major.
    ///
    /// # Panics
    /// If it is not as large as the factor squared.
    pub(super) fn new(drift: &[f32], factor: &UpperFactor) -> Change {
        let n = factor.len();
        assert_eq!(drift.len(), n * n, "a drift between all inputs");
        let isa = Isa::chosen();
        let mut columns = vec![bf16::ZERO; n * n];
        let parts: Vec<Vec<f32>> =
            drift.par_chunks(TOGETHER * n.max(1)).map(|rows| times_inverse(rows, factor, isa)).collect();
        for (k, part) in parts.iter().enumerate() {
            for (r, row) in part.chunks(n).enumerate() {
                for (j, &x) in row.iter().enumerate() {
                    columns[j * n + k * TOGETHER + r] = bf16::from_f32(x);
                }
            }
        }
        Change { n, columns }
    }

    /// What the weights of each input contribute to the change of those of input `j`.
    pub(super) fn column(&self, j: usize) -> &[bf16] {
        &self.columns[j * self.n..(j + 1) * self.n]
    }
}

/// A few rows times `U^T U`.
fn times_inverse(rows: &[f32], factor: &UpperFactor, isa: Isa) -> Vec<f32> {
    let mut out = vec![0.0; rows.len()];
    vectorize(isa, TimesInverse { rows, factor, out: &mut out });
    out
}
