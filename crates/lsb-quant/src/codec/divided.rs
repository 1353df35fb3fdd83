//! A tile's weights as f32, divided by the tile's power of two.

use crate::scale::TileExponent;
use crate::{Error, Result, to_f32};
use lsb_format::DType;

/// Converts and divides the weights of a tile.
///
/// # Errors
/// [`Error::NonFinite`] at the first NaN or infinity, counted inside the tile.
pub(crate) fn divided_weights(dtype: DType, bytes: &[u8]) -> Result<(TileExponent, Vec<f32>)> {
    const LANES: usize = 16;
    let mut weights = to_f32(dtype, bytes);
    // Bits of magnitudes order as the magnitudes do, NaN above infinity above all others.
    let mut largest = [0i32; LANES];
    let magnitude = |w: f32| (w.to_bits() & 0x7fff_ffff) as i32;
    let (chunks, rest) = weights.as_chunks::<LANES>();
    for chunk in chunks {
        for (largest, &w) in largest.iter_mut().zip(chunk) {
            *largest = if magnitude(w) > *largest { magnitude(w) } else { *largest };
        }
    }
    let largest = rest.iter().map(|&w| magnitude(w)).chain(largest).fold(0, i32::max) as u32;
    if largest >= f32::INFINITY.to_bits() {
        let index = weights.iter().position(|w| !w.is_finite()).unwrap_or(0);
        return Err(Error::NonFinite { index: index as u64, value: weights[index] });
    }
    let exponent = TileExponent::of_magnitude(largest);
    exponent.divide_all(&mut weights);
    Ok((exponent, weights))
}
