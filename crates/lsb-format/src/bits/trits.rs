//! Base-3 digits, five to a byte: 1.6 bits each.

use crate::{Error, Result};

/// Bytes of `count` digits.
pub fn trits_len(count: usize) -> usize {
    count.div_ceil(5)
}

/// Appends digits 0, 1, 2, five to a byte, the first one lowest; missing digits at the end are 0.
pub fn pack_trits(digits: &[u8], out: &mut Vec<u8>) {
    debug_assert!(digits.iter().all(|&d| d < 3));
    // Byte 4 of the product is the sum of digit i times 3^i; bytes below it stay below 243 and carry nothing.
    const POWERS: u64 = 1 << 32 | 3 << 24 | 9 << 16 | 27 << 8 | 81;
    let byte = |digits: &[u8; 8]| (u64::from_le_bytes(*digits).wrapping_mul(POWERS) >> 32) as u8;
    let start = out.len();
    out.resize(start + trits_len(digits.len()), 0);
    let mut digits = digits;
    for packed in &mut out[start..] {
        // Digits of the next byte do no harm.
        match digits.first_chunk::<8>() {
            Some(eight) => *packed = byte(eight),
            None => {
                let (mut last, n) = ([0; 8], digits.len().min(5));
                last[..n].copy_from_slice(&digits[..n]);
                *packed = byte(&last);
            }
        }
        digits = digits.get(5..).unwrap_or_default();
    }
}

/// Digits of every byte below 243.
const DIGITS: [[u8; 5]; 243] = {
    let mut table = [[0; 5]; 243];
    let mut byte = 0;
    while byte < 243 {
        let (mut rest, mut i) = (byte, 0);
        while i < 5 {
            table[byte][i] = (rest % 3) as u8;
            rest /= 3;
            i += 1;
        }
        byte += 1;
    }
    table
};

/// Fills `out` with the digits that all of `bytes` hold.
///
/// # Errors
/// If the length is wrong, a byte is above 242, or a missing digit is not 0.
pub fn unpack_trits(bytes: &[u8], out: &mut [u8]) -> Result<()> {
    let bad = |what: &str| Error::corruption("P55", format!("base-3 digits: {what}"));
    if bytes.len() != trits_len(out.len()) {
        return Err(bad("wrong length"));
    }
    let (groups, rest) = out.as_chunks_mut::<5>();
    for (group, &byte) in groups.iter_mut().zip(bytes) {
        *group = *DIGITS.get(usize::from(byte)).ok_or_else(|| bad("a byte above 242"))?;
    }
    if let (false, Some(&byte)) = (rest.is_empty(), bytes.last()) {
        let digits = DIGITS.get(usize::from(byte)).ok_or_else(|| bad("a byte above 242"))?;
        if digits[rest.len()..].iter().any(|&d| d != 0) {
            return Err(bad("digits behind the last one"));
        }
        rest.copy_from_slice(&digits[..rest.len()]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_roundtrip_is_identity(digits in prop::collection::vec(0u8..3, 0..100)) {
            let mut bytes = Vec::new();
            pack_trits(&digits, &mut bytes);
            let mut back = vec![9; digits.len()];
            unpack_trits(&bytes, &mut back).unwrap();
            prop_assert_eq!(back, digits);
        }

        #[test]
        fn prop_any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..20), n in 0usize..100) {
            let mut out = vec![9; n];
            if unpack_trits(&bytes, &mut out).is_ok() {
                let mut again = Vec::new();
                pack_trits(&out, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
