//! Magnitudes of outliers.
//!
//! Outliers lie above a threshold, so most of what a half would store of them is the same for all. Stored
//! are the smallest magnitude of the tile as f32 bits, a step, and for each outlier how many steps its bits lie
//! above the smallest, in a Rice code: the tail of a distribution falls about geometrically. At 2 % of
//! Gaussian weights in bf16 an outlier takes 6.4 bits, exactly as it was.
//!
//! ```text
//! u32 smallest magnitude, f32 bits   u32 step in f32 bits   u8 low bits of the Rice code   codes
//! ```

use super::OutlierBits;
use crate::codec::bitstream::{BitReader, BitWriter, best_rice};
use crate::codec::payload::Payload;
use crate::lanes::{Lanes, Work, dispatch};
use lsb_format::{Error, Result};

/// One past the bits of the largest finite f32.
const INFINITY: u32 = 0x7f80_0000;
const F32_MANTISSA_BITS: u32 = 23;
const SIGN: u32 = 1 << 31;

/// Low bits of an f32 that a precision drops; `None` where that depends on all outliers of a tile.
fn dropped_bits(precision: OutlierBits) -> Option<u32> {
    match precision {
        OutlierBits::F16 => Some(F32_MANTISSA_BITS - 10),
        OutlierBits::BF16 => Some(F32_MANTISSA_BITS - 7),
        OutlierBits::EightBit => None,
    }
}

/// The nearest finite value that is kept exactly, where that can be told without the other outliers.
pub(super) fn nearest(x: f32, precision: OutlierBits) -> f32 {
    let Some(shift) = dropped_bits(precision) else { return x };
    let bits = x.to_bits();
    f32::from_bits(round_bits(bits & !SIGN, shift) << shift | bits & SIGN)
}

/// Half to even, as a conversion to a half rounds; the largest values do not become infinite.
#[inline(always)]
fn round_bits(magnitude: u32, shift: u32) -> u32 {
    ((magnitude + (1 << (shift - 1)) - 1 + (magnitude >> shift & 1)) >> shift).min((INFINITY >> shift) - 1)
}

/// Appends the coded form of `magnitudes` (f32 bits, finite); nothing where there are none.
pub(super) fn encode(magnitudes: &[u32], precision: OutlierBits, out: &mut Vec<u8>) {
    dispatch(Encode { magnitudes, precision, out });
}

struct Encode<'a> {
    magnitudes: &'a [u32],
    precision: OutlierBits,
    out: &'a mut Vec<u8>,
}

impl Work for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Encode { magnitudes, precision, out } = self;
        let (Some(&min), Some(&max)) = (magnitudes.iter().min(), magnitudes.iter().max()) else { return };
        let (smallest, step, codes): (u32, u32, Vec<u32>) = match dropped_bits(precision) {
            Some(shift) => on_grid(magnitudes, shift),
            None => {
                let step = (max - min).div_ceil(255).max(1);
                let last = (INFINITY - 1 - min) / step;
                (min, step, magnitudes.iter().map(|m| ((m - min + step / 2) / step).min(last)).collect())
            }
        };
        let (low_bits, _) = best_rice(&codes);
        out.extend_from_slice(&smallest.to_le_bytes());
        out.extend_from_slice(&step.to_le_bytes());
        out.push(low_bits as u8);
        let mut writer = BitWriter::new(out);
        codes.iter().for_each(|&code| writer.push_rice(code, low_bits));
        writer.finish();
    }
}

/// Rounds to multiples of `2^shift`, and takes out the smallest and the zero bits that all share.
#[inline(always)]
fn on_grid(magnitudes: &[u32], shift: u32) -> (u32, u32, Vec<u32>) {
    let grid: Vec<u32> = magnitudes.iter().map(|&m| round_bits(m, shift)).collect();
    let smallest = grid.iter().copied().min().unwrap_or(0);
    let spare = grid.iter().fold(0, |bits, g| bits | (g - smallest)).trailing_zeros().min(31 - shift);
    (smallest << shift, 1 << (shift + spare), grid.iter().map(|g| (g - smallest) >> spare).collect())
}

/// Decodes `count` magnitudes (f32 bits, finite) from all of `bytes`, calling `each` with one after the other.
///
/// # Errors
/// If the bytes are not what [`encode`] writes.
pub(super) fn decode(bytes: &[u8], count: usize, mut each: impl FnMut(u32)) -> Result<()> {
    let mut payload = Payload::new(bytes);
    if count == 0 {
        return payload.finish();
    }
    let smallest = payload.u32("smallest outlier")?;
    let step = payload.u32("step between outliers")?;
    let [low_bits] = payload.array("Rice parameter")?;
    if smallest >= INFINITY || step == 0 || low_bits > 31 {
        let message = format!("outliers from bits {smallest:#x} in steps of {step}, {low_bits} low bits");
        return Err(Error::corruption("P34", message));
    }
    let max = (INFINITY - 1 - smallest) / step;
    let mut reader = BitReader::new(payload.rest());
    reader.rices(u32::from(low_bits), max, count, |steps| each(smallest + step * steps))?;
    reader.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(magnitudes: &[u32], precision: OutlierBits) -> Vec<u32> {
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        encode(magnitudes, precision, &mut bytes);
        decode(&bytes, magnitudes.len(), |m| back.push(m)).unwrap();
        back
    }

    proptest! {
        #[test]
        fn prop_f16_keeps_half_precision_at_any_magnitude(m in prop::collection::vec(prop_oneof![0u32..INFINITY, INFINITY - 3..INFINITY], 0..60)) {
            for (back, &m) in round_trip(&m, OutlierBits::F16).into_iter().zip(&m) {
                let (q, w) = (f64::from(f32::from_bits(back)), f64::from(f32::from_bits(m)));
                // Half a step of an 11-bit float; below the normal range half of 2^-136; at the top the
                // largest 11-bit float instead of infinity.
                let bound = (w / 2048.0).max(2f64.powi(-137));
                prop_assert!((q - w).abs() <= bound, "{} {}", q, w);
            }
        }

        #[test]
        fn prop_bf16_is_exact_for_bf16_at_either_precision(m in prop::collection::vec(0u32..0x7f80, 0..60)) {
            let m: Vec<u32> = m.iter().map(|m| m << 16).collect();
            prop_assert_eq!(&round_trip(&m, OutlierBits::F16), &m);
            prop_assert_eq!(&round_trip(&m, OutlierBits::BF16), &m);
        }

        #[test]
        fn prop_eight_bits_are_within_half_a_step(m in prop::collection::vec(0u32..INFINITY, 1..60), narrow in any::<bool>()) {
            let m: Vec<u32> = m.iter().map(|&m| if narrow { INFINITY - 1 - m % 1000 } else { m }).collect();
            let step = (m.iter().max().unwrap() - m.iter().min().unwrap()).div_ceil(255).max(1);
            for (q, &w) in round_trip(&m, OutlierBits::EightBit).into_iter().zip(&m) {
                prop_assert!(q < INFINITY && q.abs_diff(w) <= step, "{} {} {}", q, w, step);
            }
        }

        #[test]
        fn prop_any_bytes_end_in_finite_values_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..40), count in 0usize..50) {
            let mut all_finite = true;
            let _ = decode(&bytes, count, |m| all_finite &= m < INFINITY);
            prop_assert!(all_finite);
        }
    }
}
