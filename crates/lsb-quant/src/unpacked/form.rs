//! How levels lie in memory: blocks of 16 rows and 32 columns, panel of rows by panel of rows, in each from left to right.
//!
//! Levels are stored with an offset, so that none is negative. In a block, four columns that follow each other are a *quad*; a
//! quad has a byte for each of its 64 levels, row by row. With eight bits, quads follow each other. With fewer, the lowest
//! four bits of quads `2v` and `2v + 1` share 64 bytes, the even one below; behind them comes, for each bit more, a plane of
//! 64 bytes, which has the upper bits of several quads in every byte, where [`upper_bits`] says. A vector of bytes thus has
//! rows side by side: their sums need no adding up of lanes.

use std::ops::RangeInclusive;

/// Rows of a panel.
pub(super) const PANEL: usize = 16;

/// Columns of a block: a group, whose inputs have a scale of their own.
pub(super) const GROUP: usize = 32;

/// Columns whose levels lie side by side.
pub(super) const QUAD: usize = 4;

/// Quads of a block.
pub(super) const QUADS: usize = GROUP / QUAD;

/// Bytes of a quad.
pub(super) const QUAD_BYTES: usize = PANEL * QUAD;

/// The levels of a block, row by row.
pub(super) type Block = [[i16; GROUP]; PANEL];

/// Bits of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Four,
    Five,
    Six,
    Eight,
}

impl Form {
    /// All of them, narrowest first.
    pub(super) const ALL: [Form; 4] = [Form::Four, Form::Five, Form::Six, Form::Eight];

    pub(super) fn bits(self) -> usize {
        match self {
            Form::Four => 4,
            Form::Five => 5,
            Form::Six => 6,
            Form::Eight => 8,
        }
    }

    /// What is added to a level before it is stored.
    pub(super) fn offset(self) -> i16 {
        1 << (self.bits() - 1)
    }

    /// The levels that fit.
    pub(super) fn range(self) -> RangeInclusive<i16> {
        -self.offset()..=self.offset() - 1
    }

    /// Bytes of a block.
    pub(super) fn block_bytes(self) -> usize {
        self.bits() * GROUP * PANEL / 8
    }

    /// Packs a block, whose levels fit, into `out`.
    ///
    /// # Panics
    /// If `out` is too short.
    #[inline(always)]
    pub(super) fn pack(self, block: &Block, out: &mut [u8]) {
        let offset = self.offset();
        // A quad of a row is a number here: what is done to it is done to four levels.
        let mut quads = [[0_u32; PANEL]; QUADS];
        for (row, levels) in block.iter().enumerate() {
            let mut stored = [0; GROUP];
            for (stored, level) in stored.iter_mut().zip(levels) {
                *stored = (level + offset) as u8;
            }
            for (quad, bytes) in quads.iter_mut().zip(stored.as_chunks::<QUAD>().0) {
                quad[row] = u32::from_le_bytes(*bytes);
            }
        }
        if self == Form::Eight {
            for (quad, out) in quads.iter().zip(out.chunks_exact_mut(QUAD_BYTES)) {
                put(quad, out);
            }
            return;
        }
        let (nibbles, planes) = out.split_at_mut(GROUP * PANEL / 2);
        for ([even, odd], out) in quads.as_chunks::<2>().0.iter().zip(nibbles.chunks_exact_mut(QUAD_BYTES)) {
            let mut both = *even;
            for (both, odd) in both.iter_mut().zip(odd) {
                *both = *both & 0x0f0f_0f0f | (odd & 0x0f0f_0f0f) << 4;
            }
            put(&both, out);
        }
        let mut upper = [[0_u32; PANEL]; 2];
        for (index, quad) in quads.iter().enumerate() {
            let (plane, shift) = upper_bits(self.bits() - 4, index);
            for (upper, four) in upper[plane].iter_mut().zip(quad) {
                *upper |= (four >> 4 & 0x0f0f_0f0f) << shift;
            }
        }
        for (plane, out) in upper.iter().zip(planes.chunks_exact_mut(QUAD_BYTES)) {
            put(plane, out);
        }
    }

    /// The levels of a block.
    ///
    /// # Panics
    /// If `packed` is no block of this form.
    pub(super) fn unpack(self, packed: &[u8]) -> Block {
        assert_eq!(packed.len(), self.block_bytes());
        let mut quads = [[[0_u8; QUAD]; PANEL]; QUADS];
        if self == Form::Eight {
            quads.as_flattened_mut().as_flattened_mut().copy_from_slice(packed);
        } else {
            let (nibbles, planes) = packed.split_at(GROUP * PANEL / 2);
            for ([even, odd], packed) in
                quads.as_chunks_mut::<2>().0.iter_mut().zip(nibbles.chunks(QUAD_BYTES))
            {
                for (even, &byte) in even.as_flattened_mut().iter_mut().zip(packed) {
                    *even = byte & 0xf;
                }
                for (odd, &byte) in odd.as_flattened_mut().iter_mut().zip(packed) {
                    *odd = byte >> 4;
                }
            }
            let more = self.bits() - 4;
            for (index, quad) in quads.iter_mut().enumerate().take(if more > 0 { QUADS } else { 0 }) {
                let (plane, shift) = upper_bits(more, index);
                let packed = &planes[plane * QUAD_BYTES..][..QUAD_BYTES];
                for (byte, packed) in quad.as_flattened_mut().iter_mut().zip(packed) {
                    *byte |= (packed >> shift & ((1 << more) - 1)) << 4;
                }
            }
        }
        let mut block = [[0; GROUP]; PANEL];
        for (first, quad) in (0..).step_by(QUAD).zip(&quads) {
            for (levels, bytes) in block.iter_mut().zip(quad) {
                for (level, byte) in levels[first..].iter_mut().zip(bytes) {
                    *level = i16::from(*byte) - self.offset();
                }
            }
        }
        block
    }
}

/// Of levels with `more` bits than four, at most two, the plane and the bit of each byte where those of a quad begin. The first
/// ones lie where they belong in a level, the next ones above them, the last ones at the bottom: as many shifts as possible
/// are none, and the others stay in their byte.
fn upper_bits(more: usize, quad: usize) -> (usize, usize) {
    let at = more * quad;
    (at / 8, (at + 4) % 8)
}

/// The bytes of a quad.
#[inline(always)]
fn put(quad: &[u32; PANEL], out: &mut [u8]) {
    for (out, quad) in out.as_chunks_mut::<QUAD>().0.iter_mut().zip(quad) {
        *out = quad.to_le_bytes();
    }
}
