//! Several columns less errors of earlier ones, over vectors of whatever width there is.
//!
//! Lanes are rows, which never meet: neither the width nor how many columns are taken at once changes any bits.

use super::{BLOCK, STRIP};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Columns that are worked on at once: what they share, the errors, is loaded once.
pub(super) const COLUMNS: usize = 4;
/// Groups of columns for which a strip of errors stays where it is.
const GROUPS: usize = 16;

/// Factors of errors `k` in columns `j`, at `[j / COLUMNS][k][j % COLUMNS]`.
pub(super) type Factors = [[[f32; COLUMNS]; BLOCK]; GROUPS];

/// Takes off errors: `column[j] -= sum over k of factor(j, k) errors[k]`, in the order of `k`, at most [`BLOCK`] of them.
pub(super) struct Update<'a, F> {
    /// Columns, each of `stride` rows.
    pub(super) columns: &'a mut [f32],
    /// Columns of errors, as long.
    pub(super) errors: &'a [f32],
    /// A multiple of [`STRIP`], not 0.
    pub(super) stride: usize,
    /// Tells the factors of a range of columns, the first of which is column 0 of what is filled.
    pub(super) fill: F,
}

impl<F: Fn(Range<usize>, &mut Factors)> WithSimd for Update<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Update { columns, errors, stride, fill } = self;
        let n = errors.len() / stride;
        let mut factors = [[[0.0; COLUMNS]; BLOCK]; GROUPS];
        let mut strip = [[simd.splat_f32s(0.0); 2]; BLOCK];
        for (g, columns) in columns.chunks_mut(GROUPS * COLUMNS * stride).enumerate() {
            let first = g * GROUPS * COLUMNS;
            fill(first..first + columns.len() / stride, &mut factors);
            // The width of two vectors divides a strip.
            for at in (0..stride / S::F32_LANES).step_by(2) {
                for (to, column) in strip.iter_mut().zip(errors.chunks(stride)) {
                    to.copy_from_slice(&S::as_simd_f32s(column).0[at..at + 2]);
                }
                for (columns, factors) in columns.chunks_mut(COLUMNS * stride).zip(&factors) {
                    let (strip, factors) = (&strip[..n], &factors[..n]);
                    if columns.len() == COLUMNS * stride {
                        take_off(simd, columns, stride, at, strip, factors);
                        continue;
                    }
                    for (j, column) in columns.chunks_mut(stride).enumerate() {
                        let column = &mut S::as_mut_simd_f32s(column).0[at..at + 2];
                        let mut sums = [column[0], column[1]];
                        for (errors, factors) in strip.iter().zip(factors) {
                            step(simd, &mut sums, factors[j], errors);
                        }
                        column.copy_from_slice(&sums);
                    }
                }
            }
        }
    }
}

/// The same for one column.
pub(super) struct UpdateOne<'a> {
    pub(super) column: &'a mut [f32],
    pub(super) errors: &'a [f32],
    pub(super) factors: &'a [f32],
}

impl WithSimd for UpdateOne<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let stride = self.column.len();
        for (at, column) in S::as_mut_simd_f32s(self.column).0.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let mut sums = *column;
            for (errors, &factor) in self.errors.chunks(stride).zip(self.factors) {
                step(simd, &mut sums, factor, &S::as_simd_f32s(errors).0.as_chunks::<2>().0[at]);
            }
            *column = sums;
        }
    }
}

/// For two vectors of rows of [`COLUMNS`] columns.
#[inline(always)]
fn take_off<S: Simd>(
    simd: S,
    columns: &mut [f32],
    stride: usize,
    at: usize,
    strip: &[[S::f32s; 2]],
    factors: &[[f32; COLUMNS]],
) {
    let mut sums = [[simd.splat_f32s(0.0); 2]; COLUMNS];
    for (sums, column) in sums.iter_mut().zip(columns.chunks(stride)) {
        sums.copy_from_slice(&S::as_simd_f32s(column).0[at..at + 2]);
    }
    for (errors, factors) in strip.iter().zip(factors) {
        for (sums, &factor) in sums.iter_mut().zip(factors) {
            step(simd, sums, factor, errors);
        }
    }
    for (sums, column) in sums.iter().zip(columns.chunks_mut(stride)) {
        S::as_mut_simd_f32s(column).0[at..at + 2].copy_from_slice(sums);
    }
}

#[inline(always)]
fn step<S: Simd>(simd: S, sums: &mut [S::f32s; 2], factor: f32, errors: &[S::f32s; 2]) {
    let factor = simd.splat_f32s(factor);
    for (sum, &e) in sums.iter_mut().zip(errors) {
        *sum = simd.sub_f32s(*sum, simd.mul_f32s(factor, e));
    }
}

const _: () = assert!(STRIP.is_multiple_of(32), "two vectors of 16 rows");
