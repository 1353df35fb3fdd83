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

pub(super) mod fit;
pub(super) mod tile;

use super::gaussian_table::GaussianTable;
use super::raw::no_side;
use crate::{
    CodecEntry, Estimate, Group, MatrixInfo, ParameterHelp, Parameters, PerTile, Quantizer, Result,
    Statistics, TensorDecoder, TensorEncoder,
};
use fit::Grid;
use std::sync::Arc;
use tile::{Decoder, Encoder, Layout};

const ID: &str = "rtn";
pub(super) const MIN_BITS: u32 = 2;
pub(super) const MAX_BITS: u32 = 8;

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

pub(super) const LADDER: &[&str] = &["bits=2", "bits=3", "bits=4", "bits=5", "bits=6", "bits=7", "bits=8"];

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

    pub(super) fn layout(&self) -> Layout {
        Layout { grid: Grid { bits: self.bits, symmetric: self.symmetric }, group: self.group }
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
        Ok(Box::new(PerTile::new(Encoder { layout: self.layout(), dtype: matrix.dtype, search: true })))
    }

    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>> {
        super::float_only(ID, matrix)?;
        no_side(side)?;
        Ok(Box::new(Decoder::new(self.layout(), matrix, &self.tiling(matrix)?)))
    }

    fn finer(&self) -> Option<Arc<dyn Quantizer>> {
        let finer = RoundToNearest { bits: self.bits + 1, ..*self };
        (finer.bits <= MAX_BITS).then(|| Arc::new(finer) as Arc<dyn Quantizer>)
    }
}
