//! A tile's weights as f32, divided by the tile's power of two.

use crate::lanes::{LANES, Lanes, WORD, Work, dispatch};
use crate::scale::TileExponent;
use crate::{Error, Result, to_f32, to_f32_into};
use lsb_format::DType;

/// Elements converted to f32 at a time.
const BLOCK: usize = 4096;

/// Converts and divides the weights of a tile.
///
/// # Errors
/// [`Error::NonFinite`] at the first NaN or infinity, counted inside the tile.
pub(crate) fn divided_weights(dtype: DType, bytes: &[u8]) -> Result<(TileExponent, Vec<f32>)> {
    let exponent = exponent_of(dtype, bytes)?;
    let mut weights = to_f32(dtype, bytes);
    exponent.divide_all(&mut weights);
    Ok((exponent, weights))
}

/// The power of two that the weights of a tile are divided by.
///
/// # Errors
/// As [`divided_weights`].
pub(crate) fn exponent_of(dtype: DType, bytes: &[u8]) -> Result<TileExponent> {
    let largest = dispatch(LargestMagnitude { dtype, bytes });
    if largest >= f32::INFINITY.to_bits() {
        let weights = to_f32(dtype, bytes);
        let index = weights.iter().position(|w| !w.is_finite()).unwrap_or(0);
        return Err(Error::NonFinite { index: index as u64, value: weights[index] });
    }
    Ok(TileExponent::of_magnitude(largest))
}

/// Converts and divides the next weights of a tile.
#[inline(always)]
pub(crate) fn divide_into(dtype: DType, bytes: &[u8], exponent: TileExponent, weights: &mut [f32]) {
    to_f32_into(dtype, bytes, weights);
    exponent.divide_all(weights);
}

/// The largest magnitude as f32 bits. Those order as magnitudes do, NaN above infinity above all others.
struct LargestMagnitude<'a> {
    dtype: DType,
    bytes: &'a [u8],
}

impl Work for LargestMagnitude<'_> {
    type Output = u32;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> u32 {
        if self.dtype == DType::BF16 {
            let magnitude = |two: [u8; 2]| (u16::from_le_bytes(two) & 0x7fff) as i16;
            return (largest::<_, _, WORD>(self.bytes.as_chunks().0, magnitude) as u32) << 16;
        }
        let width = (self.dtype.bits() / 8) as usize;
        let (mut found, mut values) = (0, [0.0f32; BLOCK]);
        for block in self.bytes.chunks(BLOCK * width) {
            let values = &mut values[..block.len() / width];
            to_f32_into(self.dtype, block, values);
            let magnitude = |w: f32| (w.to_bits() & 0x7fff_ffff) as i32;
            found = found.max(largest::<_, _, LANES>(values, magnitude));
        }
        found as u32
    }
}

#[inline(always)]
fn largest<T: Copy, K: Ord + Copy + Default, const N: usize>(values: &[T], key: impl Fn(T) -> K) -> K {
    let mut found = [K::default(); N];
    let (chunks, rest) = values.as_chunks::<N>();
    for chunk in chunks {
        for (found, &x) in found.iter_mut().zip(chunk) {
            *found = key(x).max(*found);
        }
    }
    let rest = rest.iter().map(|&x| key(x));
    rest.chain(found).fold(K::default(), K::max)
}
