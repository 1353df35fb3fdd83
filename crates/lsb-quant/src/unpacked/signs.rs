//! Products of signs as they lie in a plane: packed for them alone, in memory that is used again.

use super::by_group::{PackedLevels, Rule};
use super::form::{Form, GROUP, PANEL, pack_bits};
use super::{Activations, WORKSPACE, Workspace};
use crate::lanes::{Lanes, Work, dispatch};
use crate::scale::TileExponent;
use lsb_format::bits::window;
use std::mem::take;

/// Bytes of a block, and of a row in it.
const BLOCK_BYTES: usize = WORD_BYTES * PANEL;
const WORD_BYTES: usize = GROUP / 8;

/// Signs of a tile, row by row, whose groups are whole blocks, with what they stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signs<'a> {
    /// A bit for each weight.
    pub(crate) plane: &'a [u8],
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Columns of a group.
    pub(crate) group: usize,
    pub(crate) exponent: TileExponent,
    /// Of all groups, row by row; halves hold them.
    pub(crate) scales: &'a [f32],
    pub(crate) middles: &'a [f32],
}

/// What is used again.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    packed: Vec<u8>,
    halves: Vec<[[u16; PANEL]; 2]>,
}

impl Signs<'_> {
    /// Whether signs of so many columns, of which `group` share a scale, can be multiplied.
    pub(crate) fn can_group(cols: usize, group: usize) -> bool {
        group.is_multiple_of(GROUP) || group >= cols
    }

    /// Adds the products of signs with the inputs of their columns, from column `first` of the matrix on, to `y`, of shape
    /// `[tokens, rows]`. Inputs are rounded as [`UnpackedTile::add_products`](crate::UnpackedTile::add_products) says.
    pub(crate) fn add_products(&self, x: &Activations<'_>, first: usize, y: &mut [f32]) {
        WORKSPACE.with_borrow_mut(|work| self.add_with(x, first, y, work));
    }

    fn add_with(&self, x: &Activations<'_>, first: usize, y: &mut [f32], work: &mut Workspace) {
        let Buffers { packed, halves } = take(&mut work.signs);
        let mut levels = PackedLevels {
            rule: Rule::Signs,
            form: Form::One,
            panels: self.rows.div_ceil(PANEL),
            cols: self.cols,
            group: self.group,
            packed,
            halves,
        };
        dispatch(Pack { signs: self, out: &mut levels.packed });
        levels.put_halves(self.scales.iter().zip(self.middles).map(|(&scale, &middle)| [scale, middle]));
        levels.multiply(x, first, work);
        let [a, b] = self.exponent.multiply();
        let totals = work.by_group.totals.chunks((levels.panels * PANEL).max(1));
        for (totals, y) in totals.zip(y.chunks_mut(self.rows.max(1))) {
            y.iter_mut().zip(totals).for_each(|(y, sum)| *y += sum * a * b);
        }
        work.signs = Buffers { packed: levels.packed, halves: levels.halves };
    }
}

/// Packs signs, group by group, in each panel by panel; rows that are missing are what the bits behind the last row happen to be.
struct Pack<'a> {
    signs: &'a Signs<'a>,
    out: &'a mut Vec<u8>,
}

impl Work for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Pack { signs: &Signs { plane, rows, cols, group, .. }, out } = self;
        let groups = (0..cols).step_by(group).map(|first| first..cols.min(first + group));
        let blocks: usize = groups.clone().map(|cols| cols.len().div_ceil(GROUP)).sum();
        out.resize(rows.div_ceil(PANEL) * blocks * Form::One.block_bytes(), 0);
        let mut rest = &mut out[..];
        for group in groups {
            let bytes = group.len().div_ceil(GROUP) * Form::One.block_bytes();
            for panel in (0..rows).step_by(PANEL) {
                let (blocks, behind) = take(&mut rest).split_at_mut(bytes);
                rest = behind;
                let blocks = blocks.as_chunks_mut::<BLOCK_BYTES>().0;
                // First the bits of a row after those of the other, in the order in which they are in memory.
                for row in panel..rows.min(panel + PANEL) {
                    put_row(plane, row * cols + group.start, row - panel, blocks);
                }
                for block in blocks {
                    let mut bits = [0; PANEL];
                    for (bits, bytes) in bits.iter_mut().zip(block.as_chunks().0) {
                        *bits = u32::from_le_bytes(*bytes);
                    }
                    pack_bits(&bits, block);
                }
            }
        }
    }
}

/// The bits of a row from bit `at` of the plane on, each word of them to its place in a block.
#[inline(always)]
fn put_row(plane: &[u8], at: usize, place: usize, blocks: &mut [[u8; BLOCK_BYTES]]) {
    let words = plane.get(at / 8..).unwrap_or_default().as_chunks::<WORD_BYTES>().0;
    if at.is_multiple_of(8) && words.len() >= blocks.len() {
        for (block, word) in blocks.iter_mut().zip(words) {
            block.as_chunks_mut().0[place] = *word;
        }
        return;
    }
    for (block, at) in blocks.iter_mut().zip((at..).step_by(GROUP)) {
        block.as_chunks_mut().0[place] = (window(plane, at) as u32).to_le_bytes();
    }
}
