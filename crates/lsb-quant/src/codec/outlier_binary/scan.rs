//! Finding a tile's outliers and the largest weight that is none.

use crate::codec::signs::gather_bits;
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

/// Elements looked at together.
const LANES: usize = 32;
/// Elements converted to f32 at a time.
const BLOCK: usize = 4096;
const MAGNITUDE: u32 = 0x7fff_ffff;

/// Selects the weights above `threshold` (a magnitude as f32 bits) and the first `ties` equal to it.
///
/// # Errors
/// [`Error::NonFinite`] at the first NaN or infinity.
pub(super) fn scan(dtype: DType, bytes: &[u8], threshold: u32, ties: u32) -> Result<Scan> {
    let mut found = Found { positions: Vec::new(), below: 0, largest: 0 };
    if dtype == DType::BF16 {
        scan_bf16(bytes, threshold, &mut found);
    } else {
        let width = (dtype.bits() / 8) as usize;
        let mut values = [0.0f32; BLOCK];
        for (i, block) in bytes.chunks(BLOCK * width).enumerate() {
            let values = &mut values[..block.len() / width];
            to_f32_into(dtype, block, values);
            scan_f32(values, i * BLOCK, threshold, &mut found);
        }
    }
    let value_at = |i: usize| {
        let width = (dtype.bits() / 8) as usize;
        let mut value = [0.0];
        to_f32_into(dtype, &bytes[i * width..(i + 1) * width], &mut value);
        value[0]
    };
    if found.largest >= f32::INFINITY.to_bits() {
        let n = bytes.len() as u64 * 8 / dtype.bits();
        let first = (0..n as usize).map(|i| (i, value_at(i))).find(|(_, x)| !x.is_finite());
        let (index, value) = first.unwrap_or((0, f32::NAN));
        return Err(Error::NonFinite { index: index as u64, value });
    }
    let (mut left, mut largest_other) = (ties, found.below);
    found.positions.retain(|&p| {
        if value_at(p as usize).to_bits() & MAGNITUDE > threshold {
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

struct Found {
    /// Of all magnitudes at or above the threshold.
    positions: Vec<u32>,
    /// The largest magnitude below the threshold.
    below: u32,
    /// The largest magnitude.
    largest: u32,
}

impl Found {
    fn take(&mut self, mut word: u32, first: usize) {
        while word != 0 {
            self.positions.push(first as u32 + word.trailing_zeros());
            word &= word - 1;
        }
    }
}

/// Magnitudes of bf16 are compared as they are: twice as many to a vector as converted ones.
fn scan_bf16(bytes: &[u8], threshold: u32, found: &mut Found) {
    // Rounded up, so that "at or above" stays exact if the threshold came from elsewhere.
    let threshold = threshold.div_ceil(1 << 16) as i16;
    let key = |two: [u8; 2]| (u16::from_le_bytes(two) & 0x7fff) as i16;
    let (mut below, mut largest) = ([0i16; LANES], [0i16; LANES]);
    let (chunks, rest) = bytes.as_chunks::<{ 2 * LANES }>();
    for (c, chunk) in chunks.iter().enumerate() {
        let mut flags = [0u8; LANES];
        for (i, &two) in chunk.as_chunks::<2>().0.iter().enumerate() {
            let k = key(two);
            let is_candidate = k >= threshold;
            flags[i] = u8::from(is_candidate);
            largest[i] = largest[i].max(k);
            below[i] = below[i].max(if is_candidate { 0 } else { k });
        }
        found.take(gather_bits(&flags), c * LANES);
    }
    for (i, &two) in rest.as_chunks::<2>().0.iter().enumerate() {
        let k = key(two);
        largest[i] = largest[i].max(k);
        if k >= threshold {
            found.positions.push((chunks.len() * LANES + i) as u32);
        } else {
            below[i] = below[i].max(k);
        }
    }
    let max = |lanes: &[i16; LANES]| (lanes.iter().fold(0, |m, &k| m.max(k)) as u32) << 16;
    (found.below, found.largest) = (max(&below), max(&largest));
}

fn scan_f32(values: &[f32], first: usize, threshold: u32, found: &mut Found) {
    let threshold = threshold as i32;
    let key = |x: f32| (x.to_bits() & MAGNITUDE) as i32;
    let (mut below, mut largest) = ([0i32; LANES], [0i32; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for (c, chunk) in chunks.iter().enumerate() {
        let mut flags = [0u8; LANES];
        for (i, &x) in chunk.iter().enumerate() {
            let k = key(x);
            let is_candidate = k >= threshold;
            flags[i] = u8::from(is_candidate);
            largest[i] = if k > largest[i] { k } else { largest[i] };
            let other = if is_candidate { 0 } else { k };
            below[i] = if other > below[i] { other } else { below[i] };
        }
        found.take(gather_bits(&flags), first + c * LANES);
    }
    for (i, &x) in rest.iter().enumerate() {
        let k = key(x);
        largest[i] = largest[i].max(k);
        if k >= threshold {
            found.positions.push((first + chunks.len() * LANES + i) as u32);
        } else {
            below[i] = below[i].max(k);
        }
    }
    let max = |lanes: &[i32; LANES]| lanes.iter().fold(0, |m, &k| m.max(k)) as u32;
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
