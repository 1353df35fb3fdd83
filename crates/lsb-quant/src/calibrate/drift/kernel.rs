//! Rows times the inverse of moments, over vectors of whatever width there is.

use crate::calibrate::UpperFactor;
use pulp::{Simd, WithSimd};

/// Values of a row that are added up side by side, whatever the width of vectors.
pub(super) const LANES: usize = 16;
/// Rows whose products with a row of the factor are taken at once.
const ROWS: usize = 8;
/// Rows of the factor that are added to a row of the result at once.
const STEPS: usize = 4;

/// Rows times `U^T U`.
pub(super) struct TimesInverse<'a> {
    /// Of as many values as the factor has inputs.
    pub(super) rows: &'a [f32],
    pub(super) factor: &'a UpperFactor,
    /// Zeros, as many as `rows`; takes the result.
    pub(super) out: &'a mut [f32],
}

impl WithSimd for TimesInverse<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = self.factor.len();
        for (rows, out) in self.rows.chunks(ROWS * n).zip(self.out.chunks_mut(ROWS * n)) {
            for first in (0..n).step_by(STEPS) {
                let steps = first..n.min(first + STEPS);
                let mut products = [[0.0; ROWS]; STEPS];
                for (products, j) in products.iter_mut().zip(steps.clone()) {
                    let u = &self.factor.row(j)[j..];
                    if rows.len() == ROWS * n {
                        *products = dots(simd, std::array::from_fn(|r| &rows[r * n + j..(r + 1) * n]), u);
                    } else {
                        for (product, row) in products.iter_mut().zip(rows.chunks(n)) {
                            [*product] = dots(simd, [&row[j..]], u);
                        }
                    }
                }
                for (r, out) in out.chunks_mut(n).enumerate() {
                    add(self.factor, steps.clone(), std::array::from_fn(|k| products[k][r]), out);
                }
            }
        }
    }
}

/// The sum of products of each row with `u`, always in the same order.
#[inline(always)]
fn dots<S: Simd, const R: usize>(simd: S, rows: [&[f32]; R], u: &[f32]) -> [f32; R] {
    let vectors = LANES / S::F32_LANES;
    let (u_chunks, u_rest) = u.as_chunks::<LANES>();
    let rows = rows.map(|row| row.as_chunks::<LANES>());
    let mut lanes = [[0.0f32; LANES]; R];
    for v in 0..vectors {
        let mut sums = [simd.splat_f32s(0.0); R];
        for (i, u) in u_chunks.iter().enumerate() {
            let u = S::as_simd_f32s(u).0[v];
            for (sum, (row, _)) in sums.iter_mut().zip(&rows) {
                *sum = simd.add_f32s(*sum, simd.mul_f32s(S::as_simd_f32s(&row[i]).0[v], u));
            }
        }
        for (lanes, sum) in lanes.iter_mut().zip(sums) {
            S::as_mut_simd_f32s(lanes).0[v] = sum;
        }
    }
    std::array::from_fn(|r| {
        let rest: f32 = rows[r].1.iter().zip(u_rest).map(|(a, b)| a * b).sum();
        lanes[r].iter().sum::<f32>() + rest
    })
}

/// Adds rows `steps` of the factor to `out`, each times its product, one after the other.
#[inline(always)]
fn add(factor: &UpperFactor, steps: std::ops::Range<usize>, products: [f32; STEPS], out: &mut [f32]) {
    let first = steps.start;
    let one = |out: &mut [f32], product: f32, u: &[f32]| {
        out.iter_mut().zip(u).for_each(|(x, u)| *x += product * u);
    };
    if steps.len() < STEPS {
        for (j, product) in steps.zip(products) {
            one(&mut out[j..], product, &factor.row(j)[j..]);
        }
        return;
    }
    // Before all of them have begun.
    let (head, tail) = out.split_at_mut(first + STEPS);
    for (j, product) in steps.zip(products) {
        one(&mut head[j..], product, &factor.row(j)[j..first + STEPS]);
    }
    let [a, b, c, d]: [&[f32]; STEPS] = std::array::from_fn(|k| &factor.row(first + k)[first + STEPS..]);
    for (i, x) in tail.iter_mut().enumerate() {
        *x = (((*x + products[0] * a[i]) + products[1] * b[i]) + products[2] * c[i]) + products[3] * d[i];
    }
}
