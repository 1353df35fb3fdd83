//! Scales in half precision with one power of two per tile, so that weights of any magnitude keep all
//! eleven bits.

use half::f16;
use lsb_format::Error;

/// The power of two that a tile's weights are divided by before scales are computed.
///
/// It places the largest magnitude in `[2^14, 2^15)`: scales of up to twice that still fit a half, and groups
/// `2^-28` times smaller than the largest keep full precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TileExponent(i16);

/// Exponent of the largest magnitude after division.
const TOP: i32 = 14;

impl TileExponent {
    /// Of the smallest denormal and of the largest finite f32.
    const MIN: i16 = -149 - TOP as i16;
    const MAX: i16 = 127 - TOP as i16;

    /// The exponent for weights whose largest magnitude has these f32 bits (finite).
    pub(crate) fn of_magnitude(bits: u32) -> Self {
        let top = match bits {
            0 => TOP,
            1..0x0080_0000 => 31 - bits.leading_zeros() as i32 - 149,
            _ => (bits >> 23) as i32 - 127,
        };
        TileExponent((top - TOP) as i16)
    }

    /// The exponent as stored.
    pub(crate) fn to_le_bytes(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }

    /// Checks a stored exponent.
    ///
    /// # Errors
    /// If no f32 magnitude has it.
    pub(crate) fn from_le_bytes(bytes: [u8; 2]) -> Result<Self, Error> {
        let e = i16::from_le_bytes(bytes);
        if (Self::MIN..=Self::MAX).contains(&e) {
            return Ok(TileExponent(e));
        }
        let message = format!("a tile exponent of {e} is not in {} to {}", Self::MIN, Self::MAX);
        Err(Error::corruption("P33", message))
    }

    /// Two factors whose product divides by the power of two. Applied one after the other they are exact
    /// for every finite f32, where a single one would overflow.
    pub(crate) fn divide(self) -> [f32; 2] {
        halves(-i32::from(self.0))
    }

    /// Two factors whose product multiplies by the power of two; only the last multiplication rounds.
    pub(crate) fn multiply(self) -> [f32; 2] {
        halves(i32::from(self.0))
    }

    /// Divides weights in place.
    #[inline(always)]
    pub(crate) fn divide_all(self, weights: &mut [f32]) {
        let [a, b] = self.divide();
        for w in weights {
            *w = *w * a * b;
        }
    }

    /// Multiplies finite values back in place, saturating at the largest finite f32.
    #[inline(always)]
    pub(crate) fn multiply_all(self, values: &mut [f32]) {
        let [a, b] = self.multiply();
        for x in values {
            *x = (*x * a * b).clamp(f32::MIN, f32::MAX);
        }
    }

    /// The power of two itself.
    pub(crate) fn power(self) -> f64 {
        // |e| < 1023, so this is a normal f64.
        f64::from_bits(((1023 + i64::from(self.0)) as u64) << 52)
    }

    /// The lower and the upper level of a group: its mean less and plus its scale, multiplied back.
    #[inline(always)]
    pub(crate) fn levels(self, scale: f32, mean: f32) -> [f32; 2] {
        let (scale, mean) = (f64::from(scale), f64::from(mean));
        [self.restore(mean - scale), self.restore(mean + scale)]
    }

    /// Multiplies a level back, saturating at the largest finite f32.
    pub(crate) fn restore(self, level: f64) -> f32 {
        // The product is exact.
        ((level * self.power()) as f32).clamp(f32::MIN, f32::MAX)
    }
}

fn halves(exponent: i32) -> [f32; 2] {
    let first = exponent / 2;
    [power_of_two(first), power_of_two(exponent - first)]
}

/// `2^exponent` for exponents of normal f32 values.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((127 + exponent) as u32) << 23)
}

/// Rounds a divided value to half precision, saturating, never to an infinity or a NaN.
pub(crate) fn to_half(x: f64) -> f16 {
    f16::from_f32((x as f32).clamp(-65504.0, 65504.0))
}

/// The half nearest to a divided value, as [`to_half`] rounds it, without the conversion to a half and back.
#[inline(always)]
pub(crate) fn nearest_half(x: f64) -> f32 {
    const DROPPED: u32 = 13;
    const SMALLEST_NORMAL: f32 = 1.0 / 16384.0;
    let x = (x as f32).clamp(-65504.0, 65504.0);
    let magnitude = x.abs().to_bits();
    // Half to even.
    let rounded = magnitude + ((1 << (DROPPED - 1)) - 1) + (magnitude >> DROPPED & 1);
    let normal = f32::from_bits(rounded >> DROPPED << DROPPED);
    // The last bit of an f32 from 0.5 to 1 is that of a half below the smallest normal one.
    let denormal = x.abs() + 0.5 - 0.5;
    if x.abs() < SMALLEST_NORMAL { denormal } else { normal }.copysign(x)
}

/// A finite half as f32, exactly, in a way that compilers put side by side in vectors.
#[inline(always)]
pub(crate) fn half_to_f32(bits: u16) -> f32 {
    // Its exponent counts from 15 below, that of an f32 from 127.
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * power_of_two(127 - 15);
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// Reads little-endian halves.
///
/// # Errors
/// If one is not finite, or negative where `signed` is false.
pub(crate) fn read_halves(what: &str, bytes: &[u8], signed: bool) -> Result<Vec<f32>, Error> {
    let values: Vec<f32> = bytes.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect();
    for (i, x) in values.iter().enumerate() {
        if !x.is_finite() || (!signed && x.is_sign_negative()) {
            return Err(Error::corruption("P32", format!("{what} {i} is {x}")));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_any_finite_magnitude_survives(bits in 0u32..0x7f80_0000, smaller in 0u32..20) {
            let e = TileExponent::of_magnitude(bits);
            let x = f32::from_bits(bits);
            let [a, b] = e.divide();
            let divided = x * a * b;
            prop_assert!(bits == 0 || (16384.0..32768.0).contains(&divided), "{divided}");
            let [a, b] = e.multiply();
            prop_assert_eq!(divided * a * b, x);
            prop_assert_eq!(e.restore(f64::from(divided)), x);
            prop_assert_eq!(TileExponent::from_le_bytes(e.to_le_bytes()), Ok(e));
            let level = f64::from(divided) / f64::from(1 << smaller);
            let half = f64::from(to_half(level).to_f32());
            prop_assert!((half - level).abs() <= level / 2048.0);
        }
    }

    proptest! {
        #[test]
        fn prop_the_nearest_half_is_that_of_a_conversion(x in prop_oneof![-1e5f64..1e5, -1e-3f64..1e-3, -1e-7f64..1e-7], bits in any::<u16>(), down in any::<bool>()) {
            // Values, halves, and what lies halfway between two of them.
            let half = f16::from_bits(bits & 0x7bff);
            let next = f16::from_bits((bits & 0x7bff) + 1);
            let between = 0.5 * (half.to_f64() + if next.is_finite() { next.to_f64() } else { half.to_f64() });
            let sign = if down { -1.0 } else { 1.0 };
            for x in [x, sign * half.to_f64(), sign * between, sign * between.next_down(), sign * between.next_up()] {
                prop_assert_eq!(nearest_half(x).to_bits(), to_half(x).to_f32().to_bits(), "{}", x);
            }
        }
    }

    #[test]
    fn every_finite_half_is_converted_exactly() {
        for half in (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite()) {
            assert_eq!(half_to_f32(half.to_bits()).to_bits(), half.to_f32().to_bits(), "{half}");
        }
    }

    #[test]
    fn levels_beyond_f32_saturate() {
        let e = TileExponent::of_magnitude(f32::MAX.to_bits());
        assert_eq!(e.restore(65504.0), f32::MAX);
        assert_eq!(e.restore(-65504.0), f32::MIN);
    }

    #[test]
    fn hostile_exponents_and_scales_are_refused() {
        for e in [i16::MIN, -164, 114, i16::MAX] {
            assert!(TileExponent::from_le_bytes(e.to_le_bytes()).is_err());
        }
        let bytes = |x: f32| f16::from_f32(x).to_le_bytes();
        assert!(read_halves("scale", &bytes(f32::NAN), true).is_err());
        assert!(read_halves("scale", &bytes(f32::INFINITY), true).is_err());
        assert!(read_halves("scale", &bytes(-1.0), false).is_err());
        assert_eq!(read_halves("mean", &bytes(-1.0), true), Ok(vec![-1.0]));
    }
}
