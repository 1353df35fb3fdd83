//! Cholesky factor and triangular inverse in f64, blocked and parallel.
//!
//! Packages depend on what is computed here. Every sum has one order, whatever the threads or the CPU are, and no
//! multiplication is fused with an addition.

use rayon::prelude::*;

/// Rows and columns handled together.
const BLOCK: usize = 64;

/// Replaces the lower triangle of the symmetric matrix `a`, `n` x `n`, row-major, by `L` with `L L^T = a`. What is
/// above the diagonal is left as it was. Returns false where a pivot is not positive: `a` is then spoilt.
pub(super) fn factor(a: &mut [f64], n: usize) -> bool {
    assert_eq!(a.len(), n * n, "a square matrix");
    let mut panel = vec![0.0; n * BLOCK];
    for first in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - first);
        if !factor_block(a, n, first, width) {
            return false;
        }
        let below = first + width;
        let (top, rest) = a.split_at_mut(below * n);
        let diagonal = |i: usize, k: usize| top[(first + i) * n + first + k];
        // Rows below: L21 = A21 L11^-T.
        rest.par_chunks_mut(n).for_each(|row| {
            let row = &mut row[first..below];
            for i in 0..width {
                let mut sum = row[i];
                for (k, &x) in row[..i].iter().enumerate() {
                    sum -= x * diagonal(i, k);
                }
                row[i] = sum / diagonal(i, i);
            }
        });
        // What is left: A22 - L21 L21^T, from a copy of the panel whose rows are of one length.
        for (out, row) in panel.chunks_mut(BLOCK).zip(rest.chunks(n)) {
            out[..width].copy_from_slice(&row[first..below]);
            out[width..].fill(0.0);
        }
        let panel = panel.as_chunks::<BLOCK>().0;
        rest.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            for (x, other) in row[below..=below + i].iter_mut().zip(panel) {
                *x -= dot(&panel[i], other);
            }
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

/// The product of two rows, in eight interleaved sums.
fn dot(a: &[f64; BLOCK], b: &[f64; BLOCK]) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// The inverse of the lower triangle of `l`, handed over row by row of column blocks: `take(row, first, values)` gets
/// entries `first..` of a row, from any thread.
pub(super) fn invert(l: &[f64], n: usize, take: impl Fn(usize, usize, &[f64]) + Sync) {
    (0..n.div_ceil(BLOCK)).into_par_iter().for_each(|block| {
        let first = block * BLOCK;
        let width = BLOCK.min(n - first);
        // Rows above `first` are zero in these columns.
        let mut x = vec![[0.0; BLOCK]; n - first];
        for i in first..n {
            let mut sums = [0.0; BLOCK];
            if i < first + width {
                sums[i - first] = 1.0;
            }
            for (row, &factor) in x[..i - first].iter().zip(&l[i * n + first..i * n + i]) {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum -= factor * value;
                }
            }
            let pivot = l[i * n + i];
            x[i - first] = sums.map(|s| s / pivot);
            take(i, first, &x[i - first][..width]);
        }
    });
}
