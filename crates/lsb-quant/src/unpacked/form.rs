//! How levels lie in memory: blocks of 16 rows and 32 columns, panel of rows by panel of rows, in each from left to right.
//!
//! Levels are stored with an offset, so that none is negative. In a block, four columns that follow each other are a *quad*; a
//! quad has a byte for each of its 64 levels, row by row. With eight bits, quads follow each other. With fewer, as many bits of
//! a level as are a power of two lie at the bottom: those of two, four or eight quads that follow each other share 64 bytes, the
//! first one lowest. Behind them comes, for each bit more, a plane of 64 bytes, which has the upper bits of several quads in
//! every byte, where [`upper_bits`] says. A vector of bytes thus has rows side by side: their sums need no adding up of lanes.
//!
//! Levels of one bit are looked up four at a time, not multiplied: the four of a row in a quad lie in half a byte, its leftmost
//! column lowest. Four quads follow each other, row by row; in the upper halves of their bytes are the last four of the block.

use std::ops::{Range, RangeInclusive};

/// Rows of a panel.
pub(super) const PANEL: usize = 16;

/// Columns of a block: a group, whose inputs have a scale of their own.
pub(super) const GROUP: usize = 32;

/// Columns whose levels lie side by side.
pub(super) const QUAD: usize = 4;

/// Quads of a block.
pub(super) const QUADS: usize = GROUP / QUAD;

/// Quads that have the lower halves of bytes, where levels have one bit.
pub(super) const LOWER_QUADS: usize = QUADS / 2;

/// Bytes of a quad.
pub(super) const QUAD_BYTES: usize = PANEL * QUAD;

/// The levels of a block, row by row.
pub(super) type Block = [[i16; GROUP]; PANEL];

/// Bits of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    One,
    Two,
    Three,
    Four,
    Five,
    Six,
    Eight,
}

/// What is done with a form, compiled once for each of them, so that bits are constants. Not a function of a closure: that
/// would not always be compiled for the processor of its caller.
macro_rules! for_each_form {
    ($form:expr, |$constant:ident| $work:expr) => {{
        use $crate::unpacked::form::Form;
        macro_rules! with {
            ($name:ident) => {{
                let $constant = Form::$name;
                $work
            }};
        }
        match $form {
            Form::One => with!(One),
            Form::Two => with!(Two),
            Form::Three => with!(Three),
            Form::Four => with!(Four),
            Form::Five => with!(Five),
            Form::Six => with!(Six),
            Form::Eight => with!(Eight),
        }
    }};
}
pub(super) use for_each_form;

impl Form {
    /// All of them, narrowest first.
    pub(super) const ALL: [Form; 7] =
        [Form::One, Form::Two, Form::Three, Form::Four, Form::Five, Form::Six, Form::Eight];

    /// The narrowest that has so many bits; the widest one where none has.
    pub(super) fn of_bits(bits: u32) -> Form {
        Self::ALL.into_iter().find(|form| form.bits() >= bits as usize).unwrap_or(Form::Eight)
    }

    pub(super) fn bits(self) -> usize {
        match self {
            Form::One => 1,
            Form::Two => 2,
            Form::Three => 3,
            Form::Four => 4,
            Form::Five => 5,
            Form::Six => 6,
            Form::Eight => 8,
        }
    }

    /// Bits of a level that lie at the bottom.
    fn lower(self) -> usize {
        1 << self.bits().ilog2()
    }

    /// What is added to a level before it is stored.
    pub(super) fn offset(self) -> i16 {
        1 << (self.bits() - 1)
    }

    /// The largest magnitude of an input in fixed point. With it, both bytes of an input fit eight bits with a sign; of levels of
    /// one bit, which are looked up, sixteen inputs have a sum of 16 bits.
    pub(super) fn largest_input(self) -> i16 {
        match self {
            Form::One => 2_047,
            _ => 32_639,
        }
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
        if self == Form::One {
            let mut rows = [0; PANEL];
            for (bits, levels) in rows.iter_mut().zip(block) {
                for (column, level) in levels.iter().enumerate() {
                    *bits |= u32::from((level + offset) as u16) << column;
                }
            }
            return pack_bits(&rows, out);
        }
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
        let (lower, more) = (self.lower(), self.bits() - self.lower());
        let (bottom, planes) = out.split_at_mut(lower * QUAD_BYTES);
        let mask = of_bytes((1 << lower) - 1);
        for (quads, out) in quads.chunks_exact(8 / lower).zip(bottom.chunks_exact_mut(QUAD_BYTES)) {
            let mut shared = [0_u32; PANEL];
            for (shift, quad) in (0..).step_by(lower).zip(quads) {
                for (shared, four) in shared.iter_mut().zip(quad) {
                    *shared |= (four & mask) << shift;
                }
            }
            put(&shared, out);
        }
        let mut upper = [[0_u32; PANEL]; 2];
        for (index, quad) in quads.iter().enumerate() {
            let (plane, shift) = upper_bits(lower, more, index);
            for (upper, four) in upper[plane].iter_mut().zip(quad) {
                *upper |= (four >> lower & of_bytes((1 << more) - 1)) << shift;
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
        if self == Form::One {
            for (index, quad) in quads.iter_mut().enumerate() {
                let (bytes, shift) = half_bytes(index);
                for (four, byte) in quad.iter_mut().zip(&packed[bytes]) {
                    *four = std::array::from_fn(|column| byte >> (shift + column) & 1);
                }
            }
        } else if self == Form::Eight {
            quads.as_flattened_mut().as_flattened_mut().copy_from_slice(packed);
        } else {
            let (lower, more) = (self.lower(), self.bits() - self.lower());
            let (bottom, planes) = packed.split_at(lower * QUAD_BYTES);
            for (quads, packed) in quads.chunks_mut(8 / lower).zip(bottom.chunks(QUAD_BYTES)) {
                for (shift, quad) in (0..).step_by(lower).zip(quads) {
                    for (byte, packed) in quad.as_flattened_mut().iter_mut().zip(packed) {
                        *byte = packed >> shift & ((1 << lower) - 1);
                    }
                }
            }
            for (index, quad) in quads.iter_mut().enumerate().take(if more > 0 { QUADS } else { 0 }) {
                let (plane, shift) = upper_bits(lower, more, index);
                let packed = &planes[plane * QUAD_BYTES..][..QUAD_BYTES];
                for (byte, packed) in quad.as_flattened_mut().iter_mut().zip(packed) {
                    *byte |= (packed >> shift & ((1 << more) - 1)) << lower;
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

/// Where levels of one bit are, those of a quad: the bytes of its rows, and the bit where they begin.
pub(super) fn half_bytes(quad: usize) -> (Range<usize>, usize) {
    let first = quad % LOWER_QUADS * PANEL;
    (first..first + PANEL, quad / LOWER_QUADS * QUAD)
}

/// Packs a block of bits, those of each row from its leftmost column on.
///
/// # Panics
/// If `out` is too short.
#[inline(always)]
pub(super) fn pack_bits(rows: &[u32; PANEL], out: &mut [u8]) {
    // A quarter of the columns each: two quads, the left one in the lower half of bytes.
    let mut quarters = [[0; PANEL]; 4];
    for (row, bits) in rows.iter().enumerate() {
        for (quarter, byte) in quarters.iter_mut().zip(bits.to_le_bytes()) {
            quarter[row] = byte;
        }
    }
    let [first, second, third, last] = quarters;
    let halves = [(first, third), (second, last)];
    for (out, (lower, upper)) in out.as_chunks_mut::<PANEL>().0.chunks_exact_mut(2).zip(halves) {
        for row in 0..PANEL {
            out[0][row] = lower[row] & 0xf | upper[row] << QUAD;
            out[1][row] = lower[row] >> QUAD | upper[row] & 0xf0;
        }
    }
}

/// Of levels with `more` bits than the `lower` ones, at most two, the plane and the bit of each byte where those of a quad begin.
/// The first ones lie where they belong in a level, the next ones above them, the last ones at the bottom: as many shifts as
/// possible are none, and the others stay in their byte.
fn upper_bits(lower: usize, more: usize, quad: usize) -> (usize, usize) {
    let at = more * quad;
    (at / 8, (at + lower) % 8)
}

/// A number whose bytes are all `byte`.
fn of_bytes(byte: u32) -> u32 {
    byte * 0x0101_0101
}

/// The bytes of a quad.
#[inline(always)]
fn put(quad: &[u32; PANEL], out: &mut [u8]) {
    for (out, quad) in out.as_chunks_mut::<QUAD>().0.iter_mut().zip(quad) {
        *out = quad.to_le_bytes();
    }
}
