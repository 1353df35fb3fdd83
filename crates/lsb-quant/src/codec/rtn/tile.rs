//! Encoding and decoding one tile of integers. The decoder is the specification of the format.

use super::fit::Grid;
use crate::codec::divided::{divide_into, exponent_of};
use crate::codec::grouped::Groups;
use crate::codec::payload::Payload;
use crate::codec::raw::only_part;
use crate::lanes::{Lanes, Work, dispatch};
use crate::scale::{TileExponent, read_halves};
use crate::unpacked::{Grouped, Rule, TileLevels, bits_of_groups, can_group};
use crate::{EncodedTile, Group, MatrixInfo, Result, TensorDecoder, TileEncoder, TileProducts};
use half::f16;
use lsb_format::{DType, Tile, Tiling, bits};

/// How a tile of integers is laid out.
#[derive(Clone, Copy, Debug)]
pub(in crate::codec) struct Layout {
    pub(in crate::codec) grid: Grid,
    pub(in crate::codec) group: Group,
}

impl Layout {
    /// Appends a tile: scale and zero point of each group, row by row, and the integer of each weight.
    pub(in crate::codec) fn write(
        &self,
        exponent: TileExponent,
        groups: &[(f16, u8)],
        integers: &[u8],
        out: &mut EncodedTile,
    ) {
        out.buffer().extend_from_slice(&exponent.to_le_bytes());
        for (scale, _) in groups {
            out.buffer().extend_from_slice(&scale.to_le_bytes());
        }
        if !self.grid.symmetric {
            out.buffer().extend(groups.iter().map(|&(_, zero)| zero));
        }
        bits::pack_bytes(integers, self.grid.bits, out.buffer());
        out.end_part();
    }
}

/// Rounds every weight to the nearest level.
#[derive(Debug)]
pub(in crate::codec) struct Encoder {
    pub(in crate::codec) layout: Layout,
    pub(in crate::codec) dtype: DType,
    /// Search the range of least squared error, instead of spanning all weights.
    pub(in crate::codec) search: bool,
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let exponent = exponent_of(self.dtype, bytes)?;
        let (groups, integers) = dispatch(Integers { coder: self, tile, bytes, exponent });
        self.layout.write(exponent, &groups, &integers, out);
        Ok(())
    }
}

/// Fits the groups of a tile and rounds its weights.
struct Integers<'a> {
    coder: &'a Encoder,
    tile: &'a Tile,
    bytes: &'a [u8],
    exponent: TileExponent,
}

impl Work for Integers<'_> {
    type Output = (Vec<(f16, u8)>, Vec<u8>);

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let Integers { coder, tile, bytes, exponent } = self;
        let (cols, width) = (tile.cols as usize, (coder.dtype.bits() / 8) as usize);
        let (grid, group) = (coder.layout.grid, coder.layout.group.width(cols));
        let mut row = vec![0.0; cols];
        let mut integers = vec![0u8; tile.weights()];
        let mut groups = Vec::with_capacity(coder.layout.group.in_tile(tile));
        for (bytes, integers) in bytes.chunks(cols * width).zip(integers.chunks_mut(cols)) {
            divide_into(coder.dtype, bytes, exponent, &mut row);
            for (weights, integers) in row.chunks(group).zip(integers.chunks_mut(group)) {
                let fitted = if coder.search { grid.fit(lanes, weights, None) } else { grid.span(weights) };
                grid.round(weights, fitted.0.to_f32(), fitted.1, integers);
                groups.push(fitted);
            }
        }
        (groups, integers)
    }
}

/// The specification of the format.
#[derive(Debug)]
pub(in crate::codec) struct Decoder {
    layout: Layout,
    /// Groups can be unpacked.
    unpacks: bool,
}

/// A tile of integers.
struct Opened<'p> {
    exponent: TileExponent,
    /// Of all groups.
    scales: Vec<f32>,
    /// Of all groups; empty where groups are symmetric.
    zeros: &'p [u8],
    integers: Vec<u8>,
}

impl<'p> Opened<'p> {
    fn new(layout: Layout, tile: &Tile, parts: &[&'p [u8]]) -> Result<Self> {
        let Layout { grid, group } = layout;
        let n_groups = group.in_tile(tile);
        let mut payload = Payload::new(only_part(parts)?);
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let scales = read_halves("scale", payload.take("scales", 2 * n_groups)?, false)?;
        let zeros = payload.take("zero points", if grid.symmetric { 0 } else { n_groups })?;
        let mut integers = vec![0; tile.weights()];
        bits::unpack_bytes(payload.rest(), grid.bits, &mut integers)?;
        Ok(Opened { exponent, scales, zeros, integers })
    }
}

impl Decoder {
    /// A decoder for tiles of that matrix.
    pub(in crate::codec) fn new(layout: Layout, matrix: &MatrixInfo, tiling: &Tiling) -> Self {
        let cols = tiling.tile_cols().min(matrix.cols) as usize;
        Decoder { layout, unpacks: can_group(cols, layout.group.width(cols)) }
    }
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let Layout { grid, group } = self.layout;
        let Opened { exponent, scales, zeros, integers } = Opened::new(self.layout, tile, parts)?;
        let (cols, group) = (tile.cols as usize, group.width(tile.cols as usize));
        dispatch(Weights { grid, exponent, cols, group, scales: &scales, zeros, integers: &integers, out });
        Ok(())
    }

    fn products(&self) -> Option<&dyn TileProducts> {
        self.unpacks.then_some(self)
    }
}

impl Groups for Decoder {
    fn no_rows(&self, cols: usize) -> Grouped {
        let Layout { grid, group } = self.layout;
        Grouped::new(Rule::Integers, grid.bits, grid.center(), cols, group.width(cols))
    }

    fn levels(&self, tile: &Tile, parts: &[&[u8]]) -> Result<TileLevels> {
        let grid = self.layout.grid;
        let Opened { exponent, scales, zeros, integers } = Opened::new(self.layout, tile, parts)?;
        // Whole numbers and 256ths of all levels: halves hold them.
        let middle = |zero: u8| grid.zero_point(zero) - f32::from(grid.center());
        let middles = match grid.symmetric {
            true => vec![middle(0); scales.len()],
            false => zeros.iter().map(|&zero| middle(zero)).collect(),
        };
        Ok(TileLevels { exponent, stored: integers, scales, middles, ..TileLevels::default() })
    }

    fn bits(&self, _: f64) -> Option<f64> {
        let Layout { grid, group } = self.layout;
        self.unpacks.then(|| bits_of_groups(grid.bits, group.width(usize::MAX)))
    }
}

/// Scales the integers of a tile.
struct Weights<'a> {
    grid: Grid,
    exponent: TileExponent,
    cols: usize,
    group: usize,
    /// Of all groups.
    scales: &'a [f32],
    /// Of all groups; empty where groups are symmetric.
    zeros: &'a [u8],
    integers: &'a [u8],
    out: &'a mut [f32],
}

impl Work for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Weights { grid, exponent, cols, group, scales, zeros, integers, out } = self;
        let mut number = 0;
        for (row, integers) in out.chunks_mut(cols.max(1)).zip(integers.chunks(cols.max(1))) {
            for (weights, integers) in row.chunks_mut(group).zip(integers.chunks(group)) {
                let Some(&scale) = scales.get(number) else { break };
                let zero = grid.zero_point(zeros.get(number).copied().unwrap_or(0));
                for (w, &q) in weights.iter_mut().zip(integers) {
                    *w = scale * (f32::from(q) - zero);
                }
                number += 1;
            }
            exponent.multiply_all(row);
        }
    }
}
