//! `residual-binary`: looped passes of one bit, each over what the passes before left.
//!
//! With `k` planes a weight is the sum of `k` scales of its group, each with a sign: `2^k` levels. Scales and signs
//! are refined together. Part `j` of a tile holds plane `j`; a reader may stop after any part. Because scales that
//! were refined for `k` planes are too large for fewer, every part but the last carries factors, one per plane so
//! far, that make the shorter sum the best one for the tile.
//!
//! Part `j`, little-endian (`n` weights, `g` groups row by row, halves multiplied by `2^exponent`):
//!
//! ```text
//! i16 exponent, in part 0   f16 factor [j + 1], in all parts but the last   f16 scale [g]
//! sign plane, ceil(n / 8) bytes
//! ```

mod calibrated;
mod decode;
mod encode;
mod fit;

use super::feedback::{DAMPING, KnownInputs};
use super::gaussian_table::GaussianTable;
use super::raw::no_side;
use crate::calibrate::ColumnOrder;
use crate::{
    CodecEntry, Estimate, Group, MatrixInfo, Needs, ParameterHelp, Parameters, PerTile, Quantizer, Result,
    Statistics, TensorDecoder, TensorEncoder, Wanted,
};
use lsb_format::Tiling;
use std::sync::Arc;

const ID: &str = "residual-binary";
/// The most planes of a weight.
const MAX_PLANES: usize = 8;

/// Sums of signed scales: `planes` bits per weight, readable plane by plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidualBinary {
    /// Signs per weight, 1 to 8.
    pub planes: u8,
    /// Which weights share scales.
    pub group: Group,
    /// Refine scales and signs of all planes together, instead of leaving them as the looped passes made them.
    pub error_compensation: bool,
}

impl Default for ResidualBinary {
    fn default() -> Self {
        ResidualBinary { planes: 3, group: Group::Row, error_compensation: true }
    }
}

const PARAMETERS: &[ParameterHelp] = &[
    ParameterHelp { name: "planes", values: "3 (1 to 8)", summary: "signs per weight" },
    ParameterHelp { name: "group", values: "row (or 8 to 65536)", summary: "columns that share scales" },
    ParameterHelp {
        name: "error_compensation",
        values: "true",
        summary: "refine all planes together instead of one after the other",
    },
];

const LADDER: &[&str] =
    &["planes=1", "planes=2", "planes=3", "planes=4", "planes=5", "planes=6", "planes=7", "planes=8"];

/// dB on Gaussian weights with one to eight planes.
const GAUSSIAN: GaussianTable<MAX_PLANES> = GaussianTable {
    columns_32: [4.53, 9.89, 15.70, 21.42, 26.80, 32.16, 37.63, 43.18],
    columns_128: [4.43, 9.45, 14.69, 20.03, 25.46, 30.90, 36.33, 41.78],
    columns_4096: [4.40, 9.31, 14.34, 19.45, 24.64, 29.90, 35.25, 40.68],
};
/// The same for looped passes alone.
const GAUSSIAN_LOOPED: GaussianTable<MAX_PLANES> = GaussianTable {
    columns_32: [4.53, 9.13, 12.79, 15.59, 17.46, 18.80, 19.80, 20.65],
    columns_128: [4.43, 8.92, 12.45, 15.02, 16.70, 17.83, 18.64, 19.29],
    columns_4096: [4.40, 8.85, 12.34, 14.84, 16.46, 17.54, 18.31, 18.91],
};

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new(ID, "looped one-bit passes, readable plane by plane", |p| {
        Ok(Arc::new(ResidualBinary::from_parameters(p)?))
    })
    .with_parameters(PARAMETERS)
    .with_ladder(LADDER)
}

impl ResidualBinary {
    /// The configuration with these parameters; absent ones have their defaults.
    ///
    /// # Errors
    /// If a parameter is unknown or out of range.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let d = Self::default();
        let mut r = parameters.reader(ID);
        let out = ResidualBinary {
            planes: r.integer("planes", i64::from(d.planes), 1, MAX_PLANES as i64)? as u8,
            group: Group::read(&mut r, ID, d.group)?,
            error_compensation: r.flag("error_compensation", d.error_compensation)?,
        };
        r.finish()?;
        Ok(out)
    }
}

impl Quantizer for ResidualBinary {
    fn id(&self) -> &str {
        ID
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
            .with("planes", self.planes)
            .with("group", self.group.value())
            .with("error_compensation", self.error_compensation)
    }

    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        super::float_only(ID, matrix).ok()?;
        let tiling = self.tiling(matrix).ok()?;
        let groups = self.group.in_matrix(matrix.rows, matrix.cols, tiling.tile_cols());
        let planes = f64::from(self.planes);
        let bits = matrix.weights() as f64 * planes + 16.0 * groups * planes;
        let table = if self.error_compensation { &GAUSSIAN } else { &GAUSSIAN_LOOPED };
        let factors = planes * (planes - 1.0);
        Some(Estimate {
            bytes: bits / 8.0 + tiling.len() as f64 * (2.0 + factors),
            snr_db: table.at(usize::from(self.planes) - 1, self.group, tiling.tile_cols()),
        })
    }

    fn tiling(&self, matrix: &MatrixInfo) -> Result<Tiling> {
        Ok(Tiling::standard(matrix.rows, matrix.cols)?.with_parts(self.planes)?)
    }

    fn needs(&self) -> Needs {
        // Looped passes alone stay what they are.
        let wanted = if self.error_compensation { Wanted::Useful } else { Wanted::No };
        Needs::default().with_calibration(wanted)
    }

    fn encoder(&self, matrix: &MatrixInfo, statistics: &Statistics) -> Result<Box<dyn TensorEncoder>> {
        super::float_only(ID, matrix)?;
        let plain = encode::Encoder {
            planes: usize::from(self.planes),
            group: self.group,
            refine: self.error_compensation,
            dtype: matrix.dtype,
        };
        if !self.error_compensation {
            return Ok(Box::new(PerTile::new(plain)));
        }
        let tiling = self.tiling(matrix)?;
        Ok(match KnownInputs::new(ID, matrix, &tiling, statistics, DAMPING, ColumnOrder::Falling)? {
            Some(inputs) => Box::new(PerTile::new(calibrated::CalibratedEncoder { plain, inputs })),
            None => Box::new(PerTile::new(plain)),
        })
    }

    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>> {
        super::float_only(ID, matrix)?;
        no_side(side)?;
        Ok(Box::new(decode::Decoder { planes: usize::from(self.planes), group: self.group }))
    }

    fn finer(&self) -> Option<Arc<dyn Quantizer>> {
        let finer = ResidualBinary { planes: self.planes + 1, ..*self };
        (usize::from(finer.planes) <= MAX_PLANES).then(|| Arc::new(finer) as Arc<dyn Quantizer>)
    }
}
