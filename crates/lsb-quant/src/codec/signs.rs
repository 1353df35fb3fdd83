//! Planes of one bit per weight: weight `i` of the tile is bit `i % 8` of byte `i / 8`, 1 for the upper level.

use super::bitstream::{BitWriter, window};

/// Weights handled together: one word of the plane.
const LANES: usize = 32;

/// Appends one bit per value: whether it lies above `middle`.
pub(crate) fn push_above(plane: &mut BitWriter<'_>, values: &[f32], middle: f32) {
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        plane.push(gather_bits(&std::array::from_fn(|i| u8::from(chunk[i] > middle))), LANES as u32);
    }
    let mut word = 0;
    for (i, &x) in rest.iter().enumerate() {
        word |= u32::from(x > middle) << i;
    }
    plane.push(word, rest.len() as u32);
}

/// Appends bit `bit` of every code.
pub(crate) fn push_bits(plane: &mut BitWriter<'_>, codes: &[u8], bit: u32) {
    for chunk in codes.chunks(LANES) {
        let mut flags = [0; LANES];
        for (flag, code) in flags.iter_mut().zip(chunk) {
            *flag = code >> bit & 1;
        }
        plane.push(gather_bits(&flags), chunk.len() as u32);
    }
}

/// Bit `i` of the result is `flags[i]`, which is 0 or 1.
#[inline]
pub(crate) fn gather_bits(flags: &[u8; LANES]) -> u32 {
    let mut word = 0;
    for (k, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
        // Each byte's lowest bit is moved to its own place in the top byte; no two meet elsewhere.
        let top = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= (top as u32) << (8 * k);
    }
    word
}

const BIT: [u32; LANES] = {
    let mut bit = [0; LANES];
    let mut i = 0;
    while i < LANES {
        bit[i] = 1 << i;
        i += 1;
    }
    bit
};

/// Fills `out` with `high` where the plane has a bit set, from bit `first` on, and `low` elsewhere.
pub(crate) fn fill_levels(plane: &[u8], first: usize, low: f32, high: f32, out: &mut [f32]) {
    for_each_word(plane, first, out, |word, out| {
        for (o, bit) in out.iter_mut().zip(BIT) {
            *o = if word & bit == 0 { low } else { high };
        }
    });
}

/// Adds `scale` to values whose bit is set, from bit `first` on, and subtracts it from the others.
pub(crate) fn add_signed(plane: &[u8], first: usize, scale: f32, out: &mut [f32]) {
    for_each_word(plane, first, out, |word, out| {
        for (o, bit) in out.iter_mut().zip(BIT) {
            *o += if word & bit == 0 { -scale } else { scale };
        }
    });
}

#[inline]
fn for_each_word(plane: &[u8], first: usize, out: &mut [f32], each: impl Fn(u32, &mut [f32; LANES])) {
    let (chunks, rest) = out.as_chunks_mut::<LANES>();
    let mut at = first;
    for chunk in chunks {
        each(window(plane, at) as u32, chunk);
        at += LANES;
    }
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    each(window(plane, at) as u32, &mut last);
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Bit `i` of a plane.
pub(crate) fn get(plane: &[u8], i: usize) -> bool {
    plane.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1)
}

/// Sets bit `i` of a plane that has it.
pub(crate) fn set(plane: &mut [u8], i: usize, on: bool) {
    let bit = 1 << (i % 8);
    plane[i / 8] = if on { plane[i / 8] | bit } else { plane[i / 8] & !bit };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_planes_match_a_bit_by_bit_reading(values in prop::collection::vec(-1.0f32..1.0, 0..200), cut in 0usize..200, middle in -0.5f32..0.5) {
            let cut = cut.min(values.len());
            let mut plane = Vec::new();
            let mut w = BitWriter::new(&mut plane);
            push_above(&mut w, &values[..cut], middle);
            push_above(&mut w, &values[cut..], middle);
            w.finish();
            prop_assert_eq!(plane.len(), values.len().div_ceil(8));
            for (i, &x) in values.iter().enumerate() {
                prop_assert_eq!(get(&plane, i), x > middle);
            }
            let mut out = vec![0.5; values.len() - cut];
            fill_levels(&plane, cut, -2.0, 3.0, &mut out);
            add_signed(&plane, cut, 4.0, &mut out);
            for (o, &x) in out.iter().zip(&values[cut..]) {
                prop_assert_eq!(*o, if x > middle { 7.0 } else { -6.0 });
            }
        }
    }
}
