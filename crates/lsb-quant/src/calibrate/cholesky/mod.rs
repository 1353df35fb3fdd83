//! Cholesky factor and triangular inverse in f64, blocked and parallel.
//!
//! Packages depend on what is computed here. Every sum has one order, whatever the threads or the CPU are, and no
//! multiplication is fused with an addition: `kernel.rs` keeps the order that `tests.rs` writes down plainly.

mod kernel;
#[cfg(test)]
mod tests;

use crate::isa::Isa;
use crate::vectorize::vectorize;
use kernel::{Inverse, Products, Solve};
use rayon::prelude::*;

/// Rows and columns handled together.
const BLOCK: usize = 64;
/// Rows of a panel that lie side by side in a vector.
const TILE: usize = 8;
/// Rows of what is left that one thread takes at a time.
const ROWS: usize = 32;

/// Replaces the lower triangle of the symmetric matrix `a`, `n` x `n`, row-major, by `L` with `L L^T = a`. What is
/// above the diagonal is left as it was. Returns false where a pivot is not positive: `a` is then spoilt.
pub(super) fn factor(a: &mut [f64], n: usize, isa: Isa) -> bool {
    assert_eq!(a.len(), n * n, "a square matrix");
    let mut panel = vec![[0.0; BLOCK]; n];
    let mut turned = vec![[[0.0; TILE]; BLOCK]; n.div_ceil(TILE)];
    for first in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - first);
        if !factor_block(a, n, first, width) {
            return false;
        }
        let below = first + width;
        let left = n - below;
        if left == 0 {
            break;
        }
        let (top, rest) = a.split_at_mut(below * n);
        let mut diagonal = [[0.0; BLOCK]; BLOCK];
        for (to, from) in diagonal.iter_mut().zip(top[first * n..].chunks(n)) {
            to.copy_from_slice(&from[first..below]);
        }
        // Rows below: L21 = A21 L11^-T, left in the matrix and in a panel whose rows are of one length.
        let panel = &mut panel[..left];
        rest.par_chunks_mut(ROWS * n).zip(panel.par_chunks_mut(ROWS)).for_each(|(rows, panel)| {
            vectorize(isa, Solve { rows, n, first, diagonal: &diagonal, panel });
        });
        // What is left: A22 - L21 L21^T. The same panel with eight rows side by side, whose products are taken at once.
        let turned = &mut turned[..left.div_ceil(TILE)];
        for (tile, rows) in turned.iter_mut().zip(panel.chunks(TILE)) {
            for (j, row) in rows.iter().enumerate() {
                tile.iter_mut().zip(row).for_each(|(to, &x)| to[j] = x);
            }
        }
        let (panel, turned) = (&*panel, &*turned);
        rest.par_chunks_mut(ROWS * n).enumerate().for_each(|(k, rows)| {
            vectorize(isa, Products { rows, n, below, first: k * ROWS, panel, turned });
        });
    }
    true
}

fn factor_block(a: &mut [f64], n: usize, first: usize, width: usize) -> bool {
    for i in first..first + width {
        for j in first..=i {
            let mut sum = a[i * n + j];
            for k in first..j {
                sum -= a[i * n + k] * a[j * n + k];
            }
            if i == j {
                if !(sum > 0.0 && sum.is_finite()) {
                    return false;
                }
                a[i * n + i] = sum.sqrt();
            } else {
                a[i * n + j] = sum / a[j * n + j];
            }
        }
    }
    true
}

/// The inverse of the lower triangle of `l`, handed over row by row of column blocks: `take(row, first, values)` gets
/// entries `first..` of a row, from any thread.
pub(super) fn invert(l: &[f64], n: usize, isa: Isa, take: impl Fn(usize, usize, &[f64]) + Sync) {
    (0..n.div_ceil(BLOCK)).into_par_iter().for_each(|block| {
        let first = block * BLOCK;
        let width = BLOCK.min(n - first);
        // Rows above `first` are zero in these columns.
        let mut x = vec![[0.0; BLOCK]; n - first];
        vectorize(isa, Inverse { l, n, first, width, x: &mut x });
        for (i, row) in x.iter().enumerate() {
            take(first + i, first, &row[..width]);
        }
    });
}
