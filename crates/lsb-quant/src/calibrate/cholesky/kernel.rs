//! The loops in which factor and inverse spend their time, over vectors of whatever width there is.
//!
//! Lanes are different rows or columns of the result, never parts of one sum: the width does not change any bits.

use super::{BLOCK, TILE};
use pulp::{Simd, WithSimd};

/// Sums of a product that are added up in the end.
const SUMS: usize = 8;
/// Rows that are solved side by side.
const SIDE: usize = 32;

/// Solves `X L^T = A` for rows of `A`.
pub(super) struct Solve<'a> {
    /// Whole rows of the matrix, `n` values each, of which those from `first` on are replaced.
    pub(super) rows: &'a mut [f64],
    pub(super) n: usize,
    pub(super) first: usize,
    /// `L`, lower triangle.
    pub(super) diagonal: &'a [[f64; BLOCK]; BLOCK],
    /// Takes a copy of what is found.
    pub(super) panel: &'a mut [[f64; BLOCK]],
}

impl WithSimd for Solve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut turned = [[0.0; SIDE]; BLOCK];
        let range = self.first..self.first + BLOCK;
        for (rows, panel) in self.rows.chunks_mut(SIDE * self.n).zip(self.panel.chunks_mut(SIDE)) {
            for (r, row) in rows.chunks(self.n).enumerate() {
                turned.iter_mut().zip(&row[range.clone()]).for_each(|(to, &x)| to[r] = x);
            }
            for part in 0..SIDE / (4 * S::F64_LANES) {
                solve(simd, &mut turned, self.diagonal, part);
            }
            for (r, (row, panel)) in rows.chunks_mut(self.n).zip(panel).enumerate() {
                panel.iter_mut().zip(&turned).for_each(|(to, from)| *to = from[r]);
                row[range.clone()].copy_from_slice(panel);
            }
        }
    }
}

/// The same for four vectors of rows.
#[inline(always)]
fn solve<S: Simd>(simd: S, rows: &mut [[f64; SIDE]; BLOCK], diagonal: &[[f64; BLOCK]; BLOCK], part: usize) {
    let at = 4 * part;
    for (i, factors) in diagonal.iter().enumerate() {
        let (done, rest) = rows.split_at_mut(i);
        let target = &mut S::as_mut_simd_f64s(&mut rest[0]).0[at..at + 4];
        let mut sums = [target[0], target[1], target[2], target[3]];
        for (x, &factor) in done.iter().zip(factors) {
            let (x, factor) = (&S::as_simd_f64s(x).0[at..at + 4], simd.splat_f64s(factor));
            for (sum, &x) in sums.iter_mut().zip(x) {
                *sum = simd.sub_f64s(*sum, simd.mul_f64s(x, factor));
            }
        }
        let pivot = simd.splat_f64s(factors[i]);
        for (to, &sum) in target.iter_mut().zip(&sums) {
            *to = simd.div_f64s(sum, pivot);
        }
    }
}

/// Takes the products of a panel's rows off the lower triangle of what is left.
pub(super) struct Products<'a> {
    /// Whole rows of the matrix, `n` values each; the triangle begins in column `below`.
    pub(super) rows: &'a mut [f64],
    pub(super) n: usize,
    pub(super) below: usize,
    /// Row of the panel that belongs to the first of `rows`.
    pub(super) first: usize,
    pub(super) panel: &'a [[f64; BLOCK]],
    /// The panel with [`TILE`] rows side by side.
    pub(super) turned: &'a [[[f64; TILE]; BLOCK]],
}

/// Tiles that stay in the first cache while many rows are multiplied with them.
const TILES: usize = 6;

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let end = self.first + self.rows.len() / self.n;
        for (group, tiles) in self.turned[..end.div_ceil(TILE)].chunks(TILES).enumerate() {
            for (pair, rows) in self.rows.chunks_mut(2 * self.n).enumerate() {
                let i = self.first + 2 * pair;
                let last = (i + 1).min(end - 1);
                for (tile, j) in tiles.iter().zip((group * TILES * TILE..=last).step_by(TILE)) {
                    let dots = products(simd, [&self.panel[i], &self.panel[last]], tile);
                    for (r, (row, dots)) in rows.chunks_mut(self.n).zip(&dots).enumerate() {
                        // As far as the diagonal, which column `i + r` is.
                        let row = &mut row[self.below..=self.below + i + r];
                        let Some(row) = row.get_mut(j..) else { continue };
                        match row.first_chunk_mut::<TILE>() {
                            Some(whole) => whole.iter_mut().zip(dots).for_each(|(x, dot)| *x -= dot),
                            None => row.iter_mut().zip(dots).for_each(|(x, dot)| *x -= dot),
                        }
                    }
                }
            }
        }
    }
}

/// The products of two rows with those of a tile, each in eight interleaved sums.
#[inline(always)]
fn products<S: Simd>(simd: S, rows: [&[f64; BLOCK]; 2], tile: &[[f64; TILE]; BLOCK]) -> [[f64; TILE]; 2] {
    let mut out = [[0.0; TILE]; 2];
    let vectors = TILE / S::F64_LANES;
    let others = S::as_simd_f64s(tile.as_flattened()).0;
    for v in 0..vectors {
        let low = half(simd, rows, others, v, 0);
        let high = half(simd, rows, others, v, SUMS / 2);
        for (out, (&low, &high)) in out.iter_mut().zip(low.iter().zip(&high)) {
            S::as_mut_simd_f64s(out).0[v] = simd.add_f64s(low, high);
        }
    }
    out
}

/// Four of the eight sums of a vector of products, added up. (A function: closures are not compiled for wide vectors.)
#[inline(always)]
fn half<S: Simd>(
    simd: S,
    rows: [&[f64; BLOCK]; 2],
    others: &[S::f64s],
    v: usize,
    first: usize,
) -> [S::f64s; 2] {
    let vectors = TILE / S::F64_LANES;
    let mut sums = [[simd.splat_f64s(0.0); SUMS / 2]; 2];
    for k in (first..BLOCK).step_by(SUMS) {
        for lane in 0..SUMS / 2 {
            let other = others[(k + lane) * vectors + v];
            for (sums, row) in sums.iter_mut().zip(rows) {
                let product = simd.mul_f64s(simd.splat_f64s(row[k + lane]), other);
                sums[lane] = simd.add_f64s(sums[lane], product);
            }
        }
    }
    let mut out = [simd.splat_f64s(0.0); 2];
    for (out, [a, b, c, d]) in out.iter_mut().zip(sums) {
        *out = simd.add_f64s(simd.add_f64s(a, b), simd.add_f64s(c, d));
    }
    out
}

/// Columns `first..first + width` of the inverse of a lower triangle, from row `first` on.
pub(super) struct Inverse<'a> {
    /// The triangle, `n` x `n`.
    pub(super) l: &'a [f64],
    pub(super) n: usize,
    pub(super) first: usize,
    pub(super) width: usize,
    pub(super) x: &'a mut [[f64; BLOCK]],
}

/// Rows of the inverse that what lies above is taken off at once.
const TOGETHER: usize = 4;

impl WithSimd for Inverse<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Inverse { l, n, first, width, x } = self;
        let row = |i: usize| &l[(first + i) * n + first..(first + i) * n + n];
        for start in (0..x.len()).step_by(TOGETHER) {
            let (done, rest) = x.split_at_mut(start);
            let count = rest.len().min(TOGETHER);
            let rest = &mut rest[..count];
            for (i, sums) in rest.iter_mut().enumerate() {
                if start + i < width {
                    sums[start + i] = 1.0;
                }
            }
            match rest.first_chunk_mut::<TOGETHER>() {
                Some(rows) => {
                    take_off(simd, rows, [0, 1, 2, 3].map(|i| &row(start + i)[..start]), done);
                }
                None => {
                    for (i, sums) in rest.iter_mut().enumerate() {
                        take_off(simd, std::array::from_mut(sums), [&row(start + i)[..start]], done);
                    }
                }
            }
            for i in 0..count {
                let (done, sums) = rest.split_at_mut(i);
                let (factors, sums) = (row(start + i), &mut sums[0]);
                take_off(simd, std::array::from_mut(sums), [&factors[start..start + i]], done);
                let pivot = factors[start + i];
                sums.iter_mut().for_each(|x| *x /= pivot);
            }
        }
    }
}

/// `sums[r] -= sum over k of factors[r][k] rows[k]`, in the order of `k`.
#[inline(always)]
fn take_off<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[f64; BLOCK]; R],
    factors: [&[f64]; R],
    rows: &[[f64; BLOCK]],
) {
    for at in (0..BLOCK / S::F64_LANES).step_by(2) {
        let mut parts = [[simd.splat_f64s(0.0); 2]; R];
        for (part, sums) in parts.iter_mut().zip(&*sums) {
            part.copy_from_slice(&S::as_simd_f64s(sums).0[at..at + 2]);
        }
        for (k, row) in rows.iter().enumerate() {
            let row = &S::as_simd_f64s(row).0[at..at + 2];
            for (part, factors) in parts.iter_mut().zip(factors) {
                let factor = simd.splat_f64s(factors[k]);
                for (sum, &x) in part.iter_mut().zip(row) {
                    *sum = simd.sub_f64s(*sum, simd.mul_f64s(factor, x));
                }
            }
        }
        for (part, sums) in parts.iter().zip(&mut *sums) {
            S::as_mut_simd_f64s(sums).0[at..at + 2].copy_from_slice(part);
        }
    }
}
