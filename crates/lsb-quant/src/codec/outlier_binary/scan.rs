//! Finding a tile's outliers and the largest weight that is none.

use crate::lanes::{Lanes, WORD, Work, dispatch};
use crate::{Error, Result, to_f32_into};
use lsb_format::DType;

/// What one look at a tile tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Positions of outliers in the tile, increasing.
    pub(super) outliers: Vec<u32>,
    /// Magnitude of the largest other weight, as f32 bits.
    pub(super) largest_other: u32,
}

/// Elements converted to f32 at a time.
const BLOCK: usize = 4096;
/// Words of candidates held at a time.
const WORDS: usize = 64;
const MAGNITUDE: u32 = 0x7fff_ffff;

/// Selects the weights above `threshold` (a magnitude as f32 bits) and the first `ties` equal to it.
///
/// # Errors
/// [`Error::NonFinite`] at the first NaN or infinity.
pub(super) fn scan(dtype: DType, bytes: &[u8], threshold: u32, ties: u32) -> Result<Scan> {
    let mut found = dispatch(Candidates { dtype, bytes, threshold });
    let width = (dtype.bits() / 8) as usize;
    if found.largest >= f32::INFINITY.to_bits() {
        let values = bytes.chunks_exact(width).map(|element| {
            let mut value = [0.0];
            to_f32_into(dtype, element, &mut value);
            value[0]
        });
        let first = values.enumerate().find(|(_, x)| !x.is_finite());
        let (index, value) = first.unwrap_or((0, f32::NAN));
        return Err(Error::NonFinite { index: index as u64, value });
    }
    let magnitude_at = |p: u32| {
        let at = p as usize * width;
        if dtype == DType::BF16 {
            return u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]) & 0x7fff) << 16;
        }
        let mut value = [0.0f32];
        to_f32_into(dtype, &bytes[at..at + width], &mut value);
        value[0].to_bits() & MAGNITUDE
    };
    let (mut left, mut largest_other) = (ties, found.below);
    found.positions.retain(|&p| {
        if magnitude_at(p) > threshold {
            return true;
        }
        let taken = left > 0;
        left -= u32::from(taken);
        if !taken {
            largest_other = threshold;
        }
        taken
    });
    Ok(Scan { outliers: found.positions, largest_other })
}

#[derive(Debug, Default)]
struct Found {
    /// Of all magnitudes at or above the threshold.
    positions: Vec<u32>,
    /// The largest magnitude below the threshold.
    below: u32,
    /// The largest magnitude.
    largest: u32,
}

impl Found {
    #[inline(always)]
    fn take(&mut self, words: &[u32], first: usize) {
        let n = words.iter().map(|word| word.count_ones() as usize).sum();
        self.positions.reserve(n);
        for (i, &word) in words.iter().enumerate() {
            let (mut word, first) = (word, (first + i * WORD) as u32);
            while word != 0 {
                self.positions.push(first + word.trailing_zeros());
                word &= word - 1;
            }
        }
    }
}

/// Looks for magnitudes at or above a threshold.
struct Candidates<'a> {
    dtype: DType,
    bytes: &'a [u8],
    threshold: u32,
}

impl Work for Candidates<'_> {
    type Output = Found;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Found {
        let mut found = Found::default();
        if self.dtype == DType::BF16 {
            scan_bf16(lanes, self.bytes, self.threshold, &mut found);
            return found;
        }
        let width = (self.dtype.bits() / 8) as usize;
        let mut values = [0.0f32; BLOCK];
        for (i, block) in self.bytes.chunks(BLOCK * width).enumerate() {
            let values = &mut values[..block.len() / width];
            to_f32_into(self.dtype, block, values);
            scan_f32(lanes, values, i * BLOCK, self.threshold, &mut found);
        }
        found
    }
}

/// Magnitudes of bf16 are compared as they are: twice as many to a vector as converted ones.
#[inline(always)]
fn scan_bf16<L: Lanes>(lanes: L, bytes: &[u8], threshold: u32, found: &mut Found) {
    // Rounded up, so that "at or above" stays exact if the threshold came from elsewhere.
    let threshold = threshold.div_ceil(1 << 16) as i16;
    let key = |two: [u8; 2]| (u16::from_le_bytes(two) & 0x7fff) as i16;
    let (mut below, mut largest) = ([0i16; WORD], [0i16; WORD]);
    let (elements, _) = bytes.as_chunks::<2>();
    let (chunks, rest) = elements.as_chunks::<WORD>();
    for (b, block) in chunks.chunks(WORDS).enumerate() {
        // Positions are taken afterwards: a vector that may grow would keep the maxima in memory.
        let mut words = [0; WORDS];
        for (word, chunk) in words.iter_mut().zip(block) {
            let mut keys = [0; WORD];
            for (i, &two) in chunk.iter().enumerate() {
                let k = key(two);
                keys[i] = k;
                largest[i] = largest[i].max(k);
                below[i] = below[i].max(if k >= threshold { 0 } else { k });
            }
            *word = lanes.at_least(&keys, threshold);
        }
        found.take(&words, b * WORDS * WORD);
    }
    for (i, &two) in rest.iter().enumerate() {
        let k = key(two);
        largest[i] = largest[i].max(k);
        if k >= threshold {
            found.positions.push((chunks.len() * WORD + i) as u32);
        } else {
            below[i] = below[i].max(k);
        }
    }
    let max = |lanes: &[i16; WORD]| (lanes.iter().fold(0, |m, &k| m.max(k)) as u32) << 16;
    (found.below, found.largest) = (max(&below), max(&largest));
}

#[inline(always)]
fn scan_f32<L: Lanes>(lanes: L, values: &[f32], first: usize, threshold: u32, found: &mut Found) {
    let threshold = threshold as i32;
    let key = |x: f32| (x.to_bits() & MAGNITUDE) as i32;
    let (mut below, mut largest) = ([0i32; WORD], [0i32; WORD]);
    let (chunks, rest) = values.as_chunks::<WORD>();
    let mut words = [0; BLOCK / WORD];
    for (word, chunk) in words.iter_mut().zip(chunks) {
        let mut flags = [0u8; WORD];
        for (i, &x) in chunk.iter().enumerate() {
            let k = key(x);
            let is_candidate = k >= threshold;
            flags[i] = u8::from(is_candidate);
            largest[i] = if k > largest[i] { k } else { largest[i] };
            let other = if is_candidate { 0 } else { k };
            below[i] = if other > below[i] { other } else { below[i] };
        }
        *word = lanes.lowest_bits(&flags);
    }
    found.take(&words, first);
    for (i, &x) in rest.iter().enumerate() {
        let k = key(x);
        largest[i] = largest[i].max(k);
        if k >= threshold {
            found.positions.push((first + chunks.len() * WORD + i) as u32);
        } else {
            below[i] = below[i].max(k);
        }
    }
    let max = |lanes: &[i32; WORD]| lanes.iter().fold(0, |m, &k| m.max(k)) as u32;
    found.below = found.below.max(max(&below));
    found.largest = found.largest.max(max(&largest));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_scan_matches_a_plain_loop(
            values in prop::collection::vec(prop_oneof![-2.0f32..2.0, Just(1.0), Just(-0.0)], 0..300),
            threshold in prop_oneof![Just(1.0f32), Just(0.0), 0.0f32..2.0, Just(f32::INFINITY)],
            ties in 0u32..5,
            dtype in prop::sample::select(vec![DType::BF16, DType::F32]),
        ) {
            let values: Vec<f32> = values.iter().map(|&x| if dtype == DType::BF16 { half::bf16::from_f32(x).to_f32() } else { x }).collect();
            let bytes: Vec<u8> = values.iter().flat_map(|x| if dtype == DType::BF16 { x.to_le_bytes()[2..].to_vec() } else { x.to_le_bytes().to_vec() }).collect();
            let got = scan(dtype, &bytes, threshold.to_bits(), ties).unwrap();
            let mut expected = Scan::default();
            let mut left = ties;
            for (i, x) in values.iter().enumerate() {
                if x.abs() > threshold || (x.abs() == threshold && left > 0) {
                    left -= u32::from(x.abs() == threshold);
                    expected.outliers.push(i as u32);
                } else {
                    expected.largest_other = expected.largest_other.max(x.abs().to_bits());
                }
            }
            prop_assert_eq!(got, expected);
        }
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        let mut values = vec![1.0f32; 100];
        values[77] = f32::NEG_INFINITY;
        values[90] = f32::NAN;
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let e = scan(DType::F32, &bytes, f32::INFINITY.to_bits(), 0).unwrap_err();
        assert_eq!(e, Error::NonFinite { index: 77, value: f32::NEG_INFINITY });
    }
}
