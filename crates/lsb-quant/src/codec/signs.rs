//! Planes of one bit per weight: weight `i` of the tile is bit `i % 8` of byte `i / 8`, 1 for the upper level.

use super::bitstream::BitWriter;
use crate::lanes::{Lanes, WORD, Work, dispatch};
use lsb_format::bits::window;

/// Appends one bit per value: whether it lies above `middle`.
#[inline(always)]
pub(crate) fn push_above<L: Lanes>(lanes: L, plane: &mut BitWriter<'_>, values: &[f32], middle: f32) {
    let (chunks, rest) = values.as_chunks::<WORD>();
    for chunk in chunks {
        plane.push(lanes.above(chunk, middle), WORD as u32);
    }
    let mut word = 0;
    for (i, &x) in rest.iter().enumerate() {
        word |= u32::from(x > middle) << i;
    }
    plane.push(word, rest.len() as u32);
}

/// A plane of bit `bit` of every code.
struct BitsOf<'a> {
    codes: &'a [u8],
    bit: u32,
    /// Where it is appended.
    plane: &'a mut Vec<u8>,
}

impl Work for BitsOf<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let mut plane = BitWriter::new(self.plane);
        push_bits(lanes, &mut plane, self.codes, self.bit);
        plane.finish();
    }
}

/// Appends a plane of bit `bit` of every code.
pub(crate) fn append_bits(codes: &[u8], bit: u32, plane: &mut Vec<u8>) {
    dispatch(BitsOf { codes, bit, plane });
}

#[inline(always)]
fn push_bits<L: Lanes>(lanes: L, plane: &mut BitWriter<'_>, codes: &[u8], bit: u32) {
    let (chunks, rest) = codes.as_chunks::<WORD>();
    for chunk in chunks {
        let mut shifted = [0; WORD];
        for (s, code) in shifted.iter_mut().zip(chunk) {
            *s = code >> bit;
        }
        plane.push(lanes.lowest_bits(&shifted), WORD as u32);
    }
    let mut word = 0;
    for (i, code) in rest.iter().enumerate() {
        word |= u32::from(code >> bit & 1) << i;
    }
    plane.push(word, rest.len() as u32);
}

const BIT: [u32; WORD] = {
    let mut bit = [0; WORD];
    let mut i = 0;
    while i < WORD {
        bit[i] = 1 << i;
        i += 1;
    }
    bit
};

/// Fills `out` with `high` where the plane has a bit set, from bit `first` on, and `low` elsewhere.
#[inline(always)]
pub(crate) fn fill_levels(plane: &[u8], first: usize, low: f32, high: f32, out: &mut [f32]) {
    for_each_word(plane, first, out, |word, out| {
        for (o, bit) in out.iter_mut().zip(BIT) {
            *o = if word & bit == 0 { low } else { high };
        }
    });
}

/// Adds `scale` to values whose bit is set, from bit `first` on, and subtracts it from the others.
#[inline(always)]
pub(crate) fn add_signed(plane: &[u8], first: usize, scale: f32, out: &mut [f32]) {
    for_each_word(plane, first, out, |word, out| {
        for (o, bit) in out.iter_mut().zip(BIT) {
            *o += if word & bit == 0 { -scale } else { scale };
        }
    });
}

#[inline(always)]
fn for_each_word(plane: &[u8], first: usize, out: &mut [f32], each: impl Fn(u32, &mut [f32; WORD])) {
    let (chunks, rest) = out.as_chunks_mut::<WORD>();
    let mut at = first;
    for chunk in chunks {
        each(window(plane, at) as u32, chunk);
        at += WORD;
    }
    let mut last = [0.0; WORD];
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
    let byte = &mut plane[i / 8];
    *byte = *byte & !(1 << (i % 8)) | u8::from(on) << (i % 8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Above<'a, 'b> {
        plane: &'a mut BitWriter<'b>,
        values: &'a [f32],
        middle: f32,
    }

    impl Work for Above<'_, '_> {
        type Output = ();

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            push_above(lanes, self.plane, self.values, self.middle);
        }
    }

    proptest! {
        #[test]
        fn prop_planes_match_a_bit_by_bit_reading(values in prop::collection::vec(-1.0f32..1.0, 0..200), cut in 0usize..200, middle in -0.5f32..0.5) {
            let cut = cut.min(values.len());
            let mut plane = Vec::new();
            let mut w = BitWriter::new(&mut plane);
            for values in [&values[..cut], &values[cut..]] {
                dispatch(Above { plane: &mut w, values, middle });
            }
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
