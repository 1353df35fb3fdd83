//! Sums of products of inputs, `x^T x`, of which only what symmetry does not tell is computed.

use crate::{Error, Result};
use candle_core::{Storage, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Columns of products that are computed at once, so that only those on and above the diagonal are.
const STRIP: usize = 256;

/// Adds `x^T x` of inputs `x`, [tokens, n], to the upper triangle of `sums`, [n, n]; [`mirror`] makes the lower one of it. What is
/// below the diagonal is undefined until then. Every sum is the one that the product of the whole matrices has.
///
/// # Errors
/// If `x` is no matrix of f32 in memory.
///
/// # Panics
/// If there are not `n * n` sums.
pub fn add_products(x: &Tensor, sums: &mut [f32]) -> Result<()> {
    let _phase = tracing::debug_span!("moments").entered();
    let n = x.dim(1).map_err(Error::compute("second moments"))?;
    assert_eq!(sums.len(), n * n, "a square of sums");
    for columns in strips(n) {
        let strip =
            || x.narrow(1, 0, columns.end)?.t()?.matmul(&x.narrow(1, columns.start, columns.len())?);
        add(&strip().map_err(Error::compute("second moments"))?, sums, n, columns.start)?;
    }
    Ok(())
}

/// Ranges of columns, the last of which is never narrow: small products are summed in another order.
fn strips(n: usize) -> impl Iterator<Item = Range<usize>> {
    let count = (n / STRIP).max(1);
    (0..count).map(move |i| i * STRIP..if i + 1 == count { n } else { (i + 1) * STRIP })
}

/// Copies the upper triangle of `sums`, [n, n], to the lower one.
pub fn mirror(sums: &mut [f32], n: usize) {
    // Squares, so that lines of the cache that are read one below the other are used whole.
    const SIDE: usize = 64;
    for top in (0..n).step_by(SIDE) {
        for left in (0..=top).step_by(SIDE) {
            for i in top..n.min(top + SIDE) {
                for j in left..i.min(left + SIDE) {
                    sums[i * n + j] = sums[j * n + i];
                }
            }
        }
    }
}

/// Adds `a^T b` of `a`, [tokens, m], and `b`, [tokens, n], to `sums`, [m, n].
///
/// # Errors
/// As [`add_products`].
pub fn add_products_of(a: &Tensor, b: &Tensor, sums: &mut [f32]) -> Result<()> {
    let _phase = tracing::debug_span!("moments").entered();
    let n = b.dim(1).map_err(Error::compute("second moments"))?;
    let products = a.t().and_then(|t| t.matmul(b)).map_err(Error::compute("second moments"))?;
    add(&products, sums, n, 0)
}

/// Adds products to those columns of rows of `n` sums that begin with column `first`.
fn add(products: &Tensor, sums: &mut [f32], n: usize, first: usize) -> Result<()> {
    let failed = || Error::compute("second moments");
    let width = products.dim(1).map_err(failed())?;
    let (storage, layout) = products.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        return Err(failed()(candle_core::Error::Msg("products are not where they should be".into())));
    };
    let products = &storage.as_slice::<f32>().map_err(failed())?[start..end];
    let rows = sums.par_chunks_mut(n.max(1)).zip(products.par_chunks(width.max(1)));
    rows.for_each(|(sums, products)| sums[first..].iter_mut().zip(products).for_each(|(s, p)| *s += p));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn random(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn sums_are_those_of_whole_products() {
        for (tokens, n) in [(1, 300), (7, 5), (30, 64), (700, 300), (513, 517), (600, 1025)] {
            let mut sums = vec![0.0; n * n];
            let mut wanted = vec![0.0; n * n];
            for seed in 0..2 {
                let x = Tensor::from_vec(random(seed, tokens * n), (tokens, n), &Device::Cpu).unwrap();
                add_products(&x, &mut sums).unwrap();
                let products = x.t().unwrap().contiguous().unwrap().matmul(&x).unwrap();
                let products = products.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                wanted.iter_mut().zip(products).for_each(|(s, p)| *s += p);
            }
            mirror(&mut sums, n);
            let bits = |sums: &[f32]| -> Vec<u32> { sums.iter().map(|s| s.to_bits()).collect() };
            assert!(bits(&sums) == bits(&wanted), "{tokens} x {n}");
        }
    }
}
