//! `rtn`: integers of a few bits, rounded to nearest, with a scale and a zero point per group.
//!
//! What everyone compares with, done well: the range is searched for least squared error, then scale and zero
//! point are fitted to the rounded weights.
//!
//! Tile, little-endian (`n` weights of `b` bits, `g` groups row by row, halves multiplied by `2^exponent`):
//!
//! ```text
//! i16 exponent   f16 scale [g]   u8 zero point [g] unless symmetric   integers, ceil(n b / 8) bytes
//! ```
//!
//! An integer `q` stands for `scale * (q - zero)`. Zero points are stored in units of `2^b / 256`: fractions of a
//! step cost nothing and place the levels better. Symmetric groups have their zero point in the middle, at
//! `(2^b - 1) / 2`.

mod fit;

use super::divided::divided_weights;
use super::gaussian_table::GaussianTable;
use super::payload::Payload;
use super::raw::{no_side, only_part};
use crate::scale::{TileExponent, read_halves};
use crate::{
    CodecEntry, EncodedTile, Estimate, Group, MatrixInfo, ParameterHelp, Parameters, PerTile, Quantizer,
    Result, Statistics, TensorDecoder, TensorEncoder, TileEncoder,
};
use fit::Grid;
use lsb_format::{DType, Tile, bits};
use std::sync::Arc;

const ID: &str = "rtn";
const MIN_BITS: u32 = 2;
const MAX_BITS: u32 = 8;

/// Integers of `bits` bits per weight, with a scale per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundToNearest {
    /// Bits per weight, 2 to 8.
    pub bits: u32,
    /// Which weights share a scale.
    pub group: Group,
    /// Levels mirror around zero, and no zero points are stored.
    pub symmetric: bool,
}

impl Default for RoundToNearest {
    fn default() -> Self {
        RoundToNearest { bits: 4, group: Group::Columns(128), symmetric: false }
    }
}

const PARAMETERS: &[ParameterHelp] = &[
    ParameterHelp { name: "bits", values: "4 (2 to 8)", summary: "bits per weight" },
    ParameterHelp {
        name: "group",
        values: "128 (8 to 65536, or row)",
        summary: "columns that share a scale",
    },
    ParameterHelp {
        name: "symmetric",
        values: "false",
        summary: "mirror the levels around zero and store no zero points",
    },
];

const LADDER: &[&str] = &["bits=2", "bits=3", "bits=4", "bits=5", "bits=6", "bits=7", "bits=8"];

/// dB on Gaussian weights with two to eight bits. A zero point of its own costs a group of 128 columns 0.0625 bits
/// per weight and is worth 0.66 dB at 4 bits, where more bits would give 0.38: it is the default.
const GAUSSIAN: GaussianTable<7> = GaussianTable {
    columns_32: [10.32, 16.43, 22.73, 28.95, 35.06, 41.12, 47.10],
    columns_128: [9.48, 14.82, 20.60, 26.59, 32.68, 38.75, 44.77],
    columns_4096: [9.24, 14.23, 19.35, 24.62, 30.09, 35.83, 41.72],
};
/// The same for symmetric groups.
const GAUSSIAN_SYMMETRIC: GaussianTable<7> = GaussianTable {
    columns_32: [9.69, 15.32, 21.41, 27.61, 33.83, 39.98, 46.09],
    columns_128: [9.36, 14.55, 20.04, 25.91, 31.93, 37.97, 44.04],
    columns_4096: [9.25, 14.28, 19.40, 24.63, 29.98, 35.55, 41.37],
};

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new(ID, "integers of 2 to 8 bits, rounded to nearest", |p| {
        Ok(Arc::new(RoundToNearest::from_parameters(p)?))
    })
    .with_parameters(PARAMETERS)
    .with_ladder(LADDER)
}

impl RoundToNearest {
    /// The configuration with these parameters; absent ones have their defaults.
    ///
    /// # Errors
    /// If a parameter is unknown or out of range.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let d = Self::default();
        let mut r = parameters.reader(ID);
        let out = RoundToNearest {
            bits: r.integer("bits", i64::from(d.bits), i64::from(MIN_BITS), i64::from(MAX_BITS))? as u32,
            group: Group::read(&mut r, ID, d.group)?,
            symmetric: r.flag("symmetric", d.symmetric)?,
        };
        r.finish()?;
        Ok(out)
    }

    fn grid(&self) -> Grid {
        Grid { bits: self.bits, symmetric: self.symmetric }
    }
}

impl Quantizer for RoundToNearest {
    fn id(&self) -> &str {
        ID
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
            .with("bits", self.bits)
            .with("group", self.group.value())
            .with("symmetric", self.symmetric)
    }

    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        super::float_only(ID, matrix).ok()?;
        let tiling = self.tiling(matrix).ok()?;
        let groups = self.group.in_matrix(matrix.rows, matrix.cols, tiling.tile_cols());
        let per_group = if self.symmetric { 2.0 } else { 3.0 };
        let table = if self.symmetric { &GAUSSIAN_SYMMETRIC } else { &GAUSSIAN };
        Some(Estimate {
            bytes: matrix.weights() as f64 * f64::from(self.bits) / 8.0
                + per_group * groups
                + 2.5 * tiling.len() as f64,
            snr_db: table.at((self.bits - MIN_BITS) as usize, self.group, tiling.tile_cols()),
        })
    }

    fn encoder(&self, matrix: &MatrixInfo, _statistics: &Statistics) -> Result<Box<dyn TensorEncoder>> {
        super::float_only(ID, matrix)?;
        Ok(Box::new(PerTile::new(Encoder { codec: *self, dtype: matrix.dtype })))
    }

    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>> {
        super::float_only(ID, matrix)?;
        no_side(side)?;
        Ok(Box::new(Decoder { codec: *self }))
    }

    fn finer(&self) -> Option<Arc<dyn Quantizer>> {
        let finer = RoundToNearest { bits: self.bits + 1, ..*self };
        (finer.bits <= MAX_BITS).then(|| Arc::new(finer) as Arc<dyn Quantizer>)
    }
}

#[derive(Debug)]
struct Encoder {
    codec: RoundToNearest,
    dtype: DType,
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let (exponent, weights) = divided_weights(self.dtype, bytes)?;
        let cols = tile.cols as usize;
        let (grid, group) = (self.codec.grid(), self.codec.group.width(cols));
        let mut integers = vec![0u8; weights.len()];
        let mut zeros = Vec::with_capacity(self.codec.group.in_tile(tile));
        out.buffer().extend_from_slice(&exponent.to_le_bytes());
        for (row, integers) in weights.chunks(cols).zip(integers.chunks_mut(cols)) {
            for (weights, integers) in row.chunks(group).zip(integers.chunks_mut(group)) {
                let (scale, zero) = grid.fit(weights);
                grid.round(weights, scale.to_f32(), zero, integers);
                out.buffer().extend_from_slice(&scale.to_le_bytes());
                zeros.push(zero);
            }
        }
        if !self.codec.symmetric {
            out.buffer().extend_from_slice(&zeros);
        }
        bits::pack(&integers, self.codec.bits, out.buffer());
        out.end_part();
        Ok(())
    }
}

/// The specification of the format.
#[derive(Debug)]
struct Decoder {
    codec: RoundToNearest,
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let n_groups = self.codec.group.in_tile(tile);
        let mut payload = Payload::new(only_part(parts)?);
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let scales = read_halves("scale", payload.take("scales", 2 * n_groups)?, false)?;
        let zeros = payload.take("zero points", if self.codec.symmetric { 0 } else { n_groups })?;
        let mut integers = vec![0; out.len()];
        bits::unpack_bytes(payload.rest(), self.codec.bits, &mut integers)?;
        let grid = self.codec.grid();
        let (cols, group) = (tile.cols as usize, self.codec.group.width(tile.cols as usize));
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
        }
        exponent.multiply_all(out);
        Ok(())
    }
}
