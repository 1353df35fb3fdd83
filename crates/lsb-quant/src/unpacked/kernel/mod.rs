//! Sums of rows of levels times inputs. [`scalar`] is the specification; the others equal it to the last bit.
//!
//! A row has 32 partial sums, one for each column of a group; products are rounded before they are added, so that it does
//! not matter what a processor could fuse. At the end the upper half of the partial sums is added to the lower one until one
//! is left.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use crate::Isa;
use crate::vectorize::vectorize;
use pulp::{Simd, WithSimd};
use std::ops::RangeInclusive;

/// Columns that are packed together.
pub(super) const GROUP: usize = 32;

/// Bits of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// Four, and 8 more than the level: byte `i` of a group has column `i` below and column `16 + i` above.
    Nibbles,
    /// Eight, in two's complement.
    Bytes,
}

impl Width {
    /// The levels that fit.
    pub(super) fn range(self) -> RangeInclusive<i16> {
        match self {
            Width::Nibbles => -8..=7,
            Width::Bytes => -128..=127,
        }
    }

    /// Bytes of that many columns, whole groups.
    pub(super) fn bytes(self, columns: usize) -> usize {
        match self {
            Width::Nibbles => columns / 2,
            Width::Bytes => columns,
        }
    }

    /// Packs levels, which fit and are whole groups.
    pub(super) fn pack(self, levels: &[i16]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes(levels.len()));
        for group in levels.chunks_exact(GROUP) {
            match self {
                Width::Nibbles => {
                    let (low, high) = group.split_at(GROUP / 2);
                    let nibble = |level: i16| (level + 8) as u8 & 0xf;
                    out.extend(low.iter().zip(high).map(|(&low, &high)| nibble(low) | nibble(high) << 4));
                }
                Width::Bytes => out.extend(group.iter().map(|&level| level as i8 as u8)),
            }
        }
        out
    }

    /// The levels of group `group` of a row.
    #[inline(always)]
    pub(super) fn group(self, row: &[u8], group: usize) -> [f32; GROUP] {
        let bytes = self.bytes(GROUP);
        let mut levels = [0.0; GROUP];
        let Some(packed) = row.get(group * bytes..(group + 1) * bytes) else { return levels };
        match self {
            Width::Nibbles => {
                let (low, high) = levels.split_at_mut(GROUP / 2);
                for ((low, high), byte) in low.iter_mut().zip(high).zip(packed) {
                    *low = f32::from(byte & 0xf) - 8.0;
                    *high = f32::from(byte >> 4) - 8.0;
                }
            }
            Width::Bytes => {
                levels.iter_mut().zip(packed).for_each(|(level, byte)| *level = f32::from(*byte as i8));
            }
        }
        levels
    }
}

/// The sum of each row of `packed`, which are as many as `sums`, times `inputs`.
pub(super) fn sums(isa: Isa, width: Width, packed: &[u8], inputs: &[f32], sums: &mut [f32]) {
    assert!(inputs.len().is_multiple_of(GROUP));
    assert_eq!(packed.len(), sums.len() * width.bytes(inputs.len()));
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && avx512::sums(width, packed, inputs, sums) {
        return;
    }
    vectorize(isa, Plain { width, packed, inputs, sums });
}

/// [`scalar::sums`].
struct Plain<'a> {
    width: Width,
    packed: &'a [u8],
    inputs: &'a [f32],
    sums: &'a mut [f32],
}

impl WithSimd for Plain<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        scalar::sums(self.width, self.packed, self.inputs, self.sums);
    }
}
