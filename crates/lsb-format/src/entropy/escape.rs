//! Integers beyond an alphabet: a bit stream of Exp-Golomb codes.
//!
//! A codec whose levels have no bound codes the common ones as symbols, one symbol meaning "elsewhere", and
//! appends what that one stands for here, in order. A value `v` is cut into `v + 2^k` with `m` bits: `m - k - 1`
//! zeros, a one, then all but the top bit of it, lowest first. Small values take `k + 1` bits, values twice as large two
//! bits more. Signed values are folded first: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.
//!
//! Bits fill bytes from the lowest up; the bits behind the last value are zero.

use crate::{Error, Result};

/// Largest `k`.
pub const MAX_ESCAPE_BITS: u32 = 24;

/// Folds a signed value into an unsigned one, small magnitudes first.
pub fn fold(value: i32) -> u32 {
    (value << 1 ^ value >> 31) as u32
}

/// Undoes [`fold`].
pub fn unfold(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

/// Appends `values` with `k` (at most [`MAX_ESCAPE_BITS`]) low bits.
///
/// # Panics
/// If `k` is larger.
pub fn encode_escapes(values: &[u32], k: u32, out: &mut Vec<u8>) {
    assert!(k <= MAX_ESCAPE_BITS, "{k} low bits");
    let (mut pending, mut held) = (0u64, 0);
    let mut push = |bits: u64, n: u32| {
        // Fewer than 8 bits are held here and at most 33 come.
        pending |= bits << held;
        held += n;
        while held >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            held -= 8;
        }
    };
    for &value in values {
        let code = u64::from(value) + (1 << k);
        let low_bits = code.ilog2();
        push(1 << (low_bits - k), low_bits - k + 1);
        push(code & ((1 << low_bits) - 1), low_bits);
    }
    if held > 0 {
        out.push(pending as u8);
    }
}

/// Appends to `out` the `count` values that all of `bytes` hold.
///
/// # Errors
/// If the bytes are not what [`encode_escapes`] writes for so many values and this `k`.
pub fn decode_escapes(bytes: &[u8], k: u32, count: usize, out: &mut Vec<u32>) -> Result<()> {
    let bad = |what: &str| Error::corruption("P56", format!("escaped integers: {what}"));
    // Every value takes at least k + 1 bits, so that a wrong count reserves nothing.
    if k > MAX_ESCAPE_BITS || count.saturating_mul(k as usize + 1) > bytes.len().saturating_mul(8) {
        return Err(bad("more values than bits"));
    }
    out.reserve(count);
    let mut next = bytes.iter();
    let (mut pending, mut held) = (0u64, 0);
    // `pending` holds at least `n` bits after this, n <= 33.
    let mut fill = |pending: &mut u64, held: &mut u32, n: u32| {
        while *held < n {
            *pending |= u64::from(*next.next().ok_or_else(|| bad("cut short"))?) << *held;
            *held += 8;
        }
        Ok(())
    };
    for _ in 0..count {
        let mut zeros = 0;
        loop {
            fill(&mut pending, &mut held, 1)?;
            let bit = pending & 1;
            pending >>= 1;
            held -= 1;
            if bit == 1 {
                break;
            }
            zeros += 1;
            if zeros + k > 32 {
                return Err(bad("a value above 2^32"));
            }
        }
        let low_bits = zeros + k;
        fill(&mut pending, &mut held, low_bits)?;
        let code = 1 << low_bits | pending & ((1 << low_bits) - 1);
        pending >>= low_bits;
        held -= low_bits;
        let value = u32::try_from(code - (1 << k)).map_err(|_| bad("a value above 2^32"))?;
        out.push(value);
    }
    if pending != 0 || next.next().is_some() {
        return Err(bad("bits behind the last value"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_those_of_the_code() {
        let bits = |value: u32, k: u32| {
            let mut out = Vec::new();
            encode_escapes(&[value; 8], k, &mut out);
            out.len()
        };
        // Eight equal values take as many bytes as one takes bits.
        assert_eq!([0, 1, 2, 3, 6, 7].map(|v| bits(v, 0)), [1, 3, 3, 5, 5, 7]);
        assert_eq!([0, 7, 8, 24].map(|v| bits(v, 3)), [4, 4, 6, 8]);
        assert_eq!(bits(u32::MAX, 0), 65);
        let mut out = Vec::new();
        encode_escapes(&[0, 4], 0, &mut out);
        // 1, then 00 1 10 from the low end: 4 + 1 = 0b101 without its top bit is 01, lowest bit first.
        assert_eq!(out, [0b0001_1001]);
    }

    #[test]
    fn folding_orders_by_magnitude() {
        assert_eq!([0, -1, 1, -2, 2].map(fold), [0, 1, 2, 3, 4]);
        for v in [0, 1, -1, 12345, i32::MIN, i32::MAX] {
            assert_eq!(unfold(fold(v)), v);
        }
    }

    proptest! {
        #[test]
        fn prop_roundtrip_is_identity(values in prop::collection::vec((any::<u32>(), 0u32..32), 0..200), k in 0u32..=24) {
            let values: Vec<u32> = values.iter().map(|(v, shift)| v >> shift).collect();
            let mut bytes = Vec::new();
            encode_escapes(&values, k, &mut bytes);
            let mut back = vec![];
            decode_escapes(&bytes, k, values.len(), &mut back).unwrap();
            prop_assert_eq!(back, values);
        }

        #[test]
        fn prop_any_bytes_decode_to_what_encodes_to_them_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..40), k in 0u32..=30, count in 0usize..60) {
            let mut values = Vec::new();
            if decode_escapes(&bytes, k, count, &mut values).is_ok() {
                prop_assert_eq!(values.len(), count);
                let mut again = Vec::new();
                encode_escapes(&values, k, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn a_huge_count_reserves_nothing() {
        let mut out = Vec::new();
        let e = decode_escapes(&[1, 2], 0, usize::MAX, &mut out).unwrap_err();
        assert_eq!((e.rule(), out.capacity()), ("P56", 0));
    }
}
