//! Logarithms and powers of two that are the same on every machine: additions, multiplications and divisions only,
//! because the library's functions differ between systems in their last bits and these decide bytes.

/// Base-two logarithm of a positive, normal number, within 1e-13.
pub(crate) fn log2(x: f64) -> f64 {
    debug_assert!(x.is_normal() && x > 0.0);
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)), with an argument of at most 0.172.
    let y = (mantissa - 1.0) / (mantissa + 1.0);
    let square = y * y;
    let mut sum = 0.0;
    for k in (0..9).rev() {
        sum = sum * square + 1.0 / f64::from(2 * k + 1);
    }
    exponent as f64 + 2.0 * y * sum * std::f64::consts::LOG2_E
}

/// `2^x` within 1e-13, relative; 0 below the normal numbers and the largest normal power above them.
pub(crate) fn exp2(x: f64) -> f64 {
    let whole = (x + 0.5).floor();
    if whole < -1022.0 {
        return 0.0;
    }
    let whole = whole.min(1023.0);
    // |fraction| <= 1/2: the thirteenth term of the series is below 1e-15.
    let t = (x - whole).min(1.0) * std::f64::consts::LN_2;
    let mut sum = 1.0;
    for k in (1..=13).rev() {
        sum = 1.0 + sum * t / f64::from(k);
    }
    sum * f64::from_bits(((1023 + whole as i64) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_they_match_the_library(x in -300.0f64..300.0) {
            prop_assert!((exp2(x) / x.exp2() - 1.0).abs() < 1e-13);
            prop_assert!((log2(x.exp2()) - x).abs() < 1e-12);
        }
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!((log2(1.0), log2(8.0), exp2(0.0), exp2(-3.0)), (0.0, 3.0, 1.0, 0.125));
        assert_eq!(exp2(-5000.0), 0.0);
        assert!(exp2(5000.0).is_finite());
    }
}
