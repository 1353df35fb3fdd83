//! Bit packing: integers of a fixed width, signs, and base-3 digits.
//!
//! Everything is little-endian: value `i` of width `w` occupies bits `i*w .. (i+1)*w` of the bytes, lowest
//! first. Bits behind the last value are zero, and readers insist on it.

mod trits;

pub use trits::{pack_trits, trits_len, unpack_trits};

use crate::{Error, Result};

/// Bytes of `count` values of `width` bits.
pub fn packed_len(width: u32, count: usize) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Appends `values`, `width` bits each (0 to 32). Higher bits of a value are dropped.
pub fn pack<T: Copy + Into<u32>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    debug_assert!(width <= 32);
    let mask = (1u64 << width) - 1;
    out.reserve(packed_len(width, values.len()));
    let (mut acc, mut held) = (0u64, 0);
    for &v in values {
        acc |= (u64::from(v.into()) & mask) << held;
        held += width;
        if held >= 32 {
            out.extend_from_slice(&(acc as u32).to_le_bytes());
            acc >>= 32;
            held -= 32;
        }
    }
    while held > 0 {
        out.push(acc as u8);
        acc >>= 8;
        held = held.saturating_sub(8);
    }
}

/// As [`pack`], for widths of 1 to 8 out of bytes; other widths append nothing.
pub fn pack_bytes(values: &[u8], width: u32, out: &mut Vec<u8>) {
    match width {
        1 => pack_sized::<1>(values, out),
        2 => pack_sized::<2>(values, out),
        3 => pack_sized::<3>(values, out),
        4 => pack_sized::<4>(values, out),
        5 => pack_sized::<5>(values, out),
        6 => pack_sized::<6>(values, out),
        7 => pack_sized::<7>(values, out),
        8 => out.extend_from_slice(values),
        _ => debug_assert!(false, "bytes hold 1 to 8 bits, not {width}"),
    }
}

/// Eight values of `W` bits are `W` whole bytes.
fn pack_sized<const W: usize>(values: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + packed_len(W as u32, values.len()), 0);
    let (packed, packed_rest) = out[start..].as_chunks_mut::<W>();
    let (groups, rest) = values.as_chunks::<8>();
    for (packed, group) in packed.iter_mut().zip(groups) {
        *packed = low_bytes(gather::<W>(u64::from_le_bytes(*group)));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let last: [u8; W] = low_bytes(gather::<W>(u64::from_le_bytes(last)));
        // Up to seven values may fill all `W` bytes, so that the last of `packed` may be theirs.
        match packed.get_mut(groups.len()) {
            Some(whole) => *whole = last,
            None => packed_rest.copy_from_slice(&last[..packed_rest.len()]),
        }
    }
}

fn low_bytes<const W: usize>(word: u64) -> [u8; W] {
    let mut low = [0; W];
    low.copy_from_slice(&word.to_le_bytes()[..W]);
    low
}

/// A word of fields of `bits` bits, each of which has ones in its lowest `ones` bits.
const fn fields(bits: usize, ones: usize) -> u64 {
    let (mut word, mut at) = (0, 0);
    while at < 64 {
        word |= ((1 << ones) - 1) << at;
        at += bits;
    }
    word
}

/// The lowest `W` bits of eight bytes, side by side: neighbours move together, then pairs of them, then fours.
fn gather<const W: usize>(bytes: u64) -> u64 {
    let x = bytes & fields(8, W);
    let x = x & fields(16, W) | x >> (8 - W) & (fields(16, W) << W);
    let x = x & fields(32, 2 * W) | x >> (16 - 2 * W) & (fields(32, 2 * W) << (2 * W));
    x & 0xffff_ffff | x >> 32 << (4 * W)
}

/// The reverse of [`gather`], whatever lies above the `8 * W` bits.
fn spread<const W: usize>(packed: u64) -> u64 {
    let half = (1u64 << (4 * W)) - 1;
    let x = packed & half | (packed >> (4 * W) & half) << 32;
    let x = x & fields(32, 2 * W) | (x & fields(32, 2 * W) << (2 * W)) << (16 - 2 * W);
    x & fields(16, W) | (x & fields(16, W) << W) << (8 - W)
}

/// Appends to `out` the `count` values of `width` bits (0 to 32) that all of `bytes` hold.
///
/// # Errors
/// If the length is not [`packed_len`], or a bit behind the last value is set.
pub fn unpack(bytes: &[u8], width: u32, count: usize, out: &mut Vec<u32>) -> Result<()> {
    check_len(bytes, width, count)?;
    let mask = (1u64 << width) - 1;
    out.reserve(count);
    let mut next = bytes.iter();
    let (mut acc, mut held) = (0u64, 0);
    for _ in 0..count {
        while held < width {
            acc |= u64::from(next.next().copied().unwrap_or(0)) << held;
            held += 8;
        }
        out.push((acc & mask) as u32);
        acc >>= width;
        held -= width;
    }
    Ok(())
}

/// As [`unpack`], for widths of 1 to 8 into bytes.
///
/// # Errors
/// As [`unpack`], or if the width is not 1 to 8.
pub fn unpack_bytes(bytes: &[u8], width: u32, out: &mut [u8]) -> Result<()> {
    check_len(bytes, width, out.len())?;
    match width {
        1 => unpack_sized::<1>(bytes, out),
        2 => unpack_sized::<2>(bytes, out),
        3 => unpack_sized::<3>(bytes, out),
        4 => unpack_sized::<4>(bytes, out),
        5 => unpack_sized::<5>(bytes, out),
        6 => unpack_sized::<6>(bytes, out),
        7 => unpack_sized::<7>(bytes, out),
        8 => out.copy_from_slice(bytes),
        _ => return Err(Error::argument(format!("bytes hold 1 to 8 bits, not {width}"))),
    }
    Ok(())
}

fn unpack_sized<const W: usize>(bytes: &[u8], out: &mut [u8]) {
    let of = |packed: &[u8]| -> [u8; 8] {
        let mut word = [0u8; 8];
        word[..packed.len()].copy_from_slice(packed);
        spread::<W>(u64::from_le_bytes(word)).to_le_bytes()
    };
    let (groups, rest) = out.as_chunks_mut::<8>();
    let (packed, packed_rest) = bytes.as_chunks::<W>();
    for (group, packed) in groups.iter_mut().zip(packed) {
        *group = of(packed);
    }
    if !rest.is_empty() {
        // Up to seven values may fill all `W` bytes, so that the last of `packed` may be theirs.
        let tail = packed.get(groups.len()).map_or(packed_rest, |p| p);
        rest.copy_from_slice(&of(tail)[..rest.len()]);
    }
}

/// Bits that [`window`] gives at least.
pub const WINDOW_BITS: u32 = u64::BITS - 7;

/// The next [`WINDOW_BITS`] bits from bit `at` on, or a few more; beyond the end they are zero.
#[inline(always)]
pub fn window(bytes: &[u8], at: usize) -> u64 {
    let byte = at / 8;
    let word = match bytes.get(byte..).and_then(|b| b.first_chunk::<8>()) {
        Some(eight) => u64::from_le_bytes(*eight),
        None => {
            let rest = bytes.get(byte..).unwrap_or_default();
            let mut eight = [0; 8];
            eight[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(eight)
        }
    };
    word >> (at % 8)
}

/// Checks the length of packed values, and that the bits behind the last one are zero.
///
/// # Errors
/// If either is not so.
pub fn check_len(bytes: &[u8], width: u32, count: usize) -> Result<()> {
    let expected = packed_len(width, count);
    if bytes.len() != expected {
        let message = format!("{count} values of {width} bits take {expected} bytes, not {}", bytes.len());
        return Err(Error::corruption("P54", message));
    }
    let used = (count * width as usize) % 8;
    if used > 0 && bytes.last().is_some_and(|b| b >> used != 0) {
        return Err(Error::corruption("P54", "bits behind the last packed value are set"));
    }
    Ok(())
}

/// Appends one bit per value, 1 where `negative` says so.
pub fn pack_signs<T: Copy>(values: &[T], negative: impl Fn(T) -> bool, out: &mut Vec<u8>) {
    out.reserve(values.len().div_ceil(8));
    let (groups, rest) = values.as_chunks::<8>();
    let byte = |group: &[T]| group.iter().enumerate().fold(0u8, |b, (i, &v)| b | u8::from(negative(v)) << i);
    out.extend(groups.iter().map(|g| byte(g)));
    if !rest.is_empty() {
        out.push(byte(rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_roundtrip_is_identity(width in 0u32..=32, values in prop::collection::vec(any::<u32>(), 0..200)) {
            let values: Vec<u32> = values.iter().map(|v| (u64::from(*v) & ((1u64 << width) - 1)) as u32).collect();
            let mut bytes = vec![7];
            pack(&values, width, &mut bytes);
            prop_assert_eq!(bytes.len() - 1, packed_len(width, values.len()));
            let mut back = Vec::new();
            unpack(&bytes[1..], width, values.len(), &mut back).unwrap();
            prop_assert_eq!(&back, &values);
            if (1..=8).contains(&width) {
                let unmasked: Vec<u8> = values.iter().map(|&v| (v | 0x5a << width) as u8).collect();
                let mut packed = vec![7];
                pack_bytes(&unmasked, width, &mut packed);
                prop_assert_eq!(&packed, &bytes);
                let mut narrow = vec![0xee; values.len()];
                unpack_bytes(&bytes[1..], width, &mut narrow).unwrap();
                prop_assert!(narrow.iter().map(|&b| u32::from(b)).eq(values.iter().copied()));
            }
        }

        #[test]
        fn prop_spare_bits_and_wrong_lengths_are_refused(width in 1u32..=8, n in 1usize..40) {
            let values = vec![0u32; n];
            let mut bytes = Vec::new();
            pack(&values, width, &mut bytes);
            let mut out = Vec::new();
            prop_assert!(unpack(&bytes[1..], width, n, &mut out).is_err());
            if !(n * width as usize).is_multiple_of(8) {
                *bytes.last_mut().unwrap() = 0x80;
                prop_assert!(unpack(&bytes, width, n, &mut out).is_err());
            }
        }

        #[test]
        fn prop_signs_match_one_bit_packing(values in prop::collection::vec(any::<i8>(), 0..100)) {
            let mut signs = Vec::new();
            pack_signs(&values, |v| v < 0, &mut signs);
            let mut bits = Vec::new();
            let ones: Vec<u32> = values.iter().map(|&v| u32::from(v < 0)).collect();
            pack(&ones, 1, &mut bits);
            prop_assert_eq!(signs, bits);
        }
    }
}
