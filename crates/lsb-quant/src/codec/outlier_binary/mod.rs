//! `outlier-binary`: the largest weights kept, every other one a sign.
//!
//! A share of the weights, the largest of the whole tensor by magnitude, keep half precision; each group of the
//! others becomes two levels, `mean - scale` and `mean + scale`, one bit a weight. Levels are least-squares:
//! each is the mean of the weights it stands for, so that errors of either half sum to zero.
//!
//! Tile, little-endian (`n` weights, `g` groups row by row, halves multiplied by `2^exponent`):
//!
//! ```text
//! i16 exponent   u8 flags (1: means stored)   u32 outliers   u32 bytes of outlier magnitudes
//! f16 scale [g]  f16 mean [g] if stored       sign plane, ceil(n / 8) bytes
//! outlier magnitudes (`outliers.rs`)          outlier positions (`lsb_format::entropy::positions`)
//! ```
//!
//! The plane has one bit for every weight. An outlier's bit is its own sign, and only its magnitude is stored
//! apart: skipping it in the plane would save the same bit and cost every reader the alignment.

mod calibrated;
mod decode;
mod encode;
mod estimate;
mod outliers;
mod products;
mod scan;

use super::feedback::{DAMPING, KnownInputs};
use super::raw::no_side;
use crate::calibrate::ColumnOrder;
use crate::unpacked::{Signs, can_group};
use crate::{
    CodecEntry, Error, Estimate, Group, MatrixInfo, Needs, ParameterHelp, Parameters, PerTile, Quantizer,
    Result, Statistics, TensorDecoder, TensorEncoder, Wanted,
};
use std::sync::Arc;

const ID: &str = "outlier-binary";

/// The largest share of outliers: beyond it another codec is smaller and better.
const MAX_RATIO: f64 = 0.5;
/// Where [`Quantizer::finer`] ends.
const FINEST_RATIO: f64 = 0.32;

/// Precision of the weights that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutlierBits {
    /// 11 significant bits, as a half has, at any magnitude.
    #[default]
    F16,
    /// 8 significant bits; exact for bf16 sources, as is `F16`.
    BF16,
    /// 256 magnitudes between the smallest and the largest outlier of a tile, evenly spaced in the bits of f32.
    EightBit,
}

/// How the scale of a group follows from its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleRule {
    /// The scale of least squared error.
    #[default]
    LeastSquares,
    /// The standard deviation: the classic "sign times deviation", kept for comparison.
    Deviation,
}

/// Keeps the largest weights and stores the sign of all others: about 1.3 bits per weight at 2 % outliers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierPreservingQuantizer {
    /// Share of the weights that are kept, 0 to 0.5.
    pub outlier_ratio: f64,
    /// Which weights share a scale.
    pub group: Group,
    /// Precision of the weights that are kept.
    pub outlier_bits: OutlierBits,
    /// Store a mean per group and refine it, so that the errors of every group sum to zero.
    pub error_compensation: bool,
    /// How scales are computed.
    pub scale: ScaleRule,
}

impl Default for OutlierPreservingQuantizer {
    fn default() -> Self {
        OutlierPreservingQuantizer {
            outlier_ratio: 0.02,
            group: Group::Row,
            outlier_bits: OutlierBits::F16,
            error_compensation: true,
            scale: ScaleRule::LeastSquares,
        }
    }
}

const OUTLIER_BITS: &[&str] = &["f16", "bf16", "8"];
const SCALES: &[&str] = &["lsq", "std"];

const PARAMETERS: &[ParameterHelp] = &[
    ParameterHelp {
        name: "outlier_ratio",
        values: "0.02 (0 to 0.5)",
        summary: "share of the weights, the largest by magnitude, that is kept",
    },
    ParameterHelp { name: "group", values: "row (or 8 to 65536)", summary: "columns that share a scale" },
    ParameterHelp { name: "outlier_bits", values: "f16 (or bf16, 8)", summary: "precision of what is kept" },
    ParameterHelp {
        name: "error_compensation",
        values: "true",
        summary: "store a mean per group, so that its errors sum to zero",
    },
    ParameterHelp {
        name: "scale",
        values: "lsq (or std)",
        summary: "scale of least squared error, or the standard deviation",
    },
];

const LADDER: &[&str] = &[
    "outlier_ratio=0",
    "outlier_ratio=0.005",
    "outlier_ratio=0.01",
    "outlier_ratio=0.02",
    "outlier_ratio=0.04",
    "outlier_ratio=0.08",
    "outlier_ratio=0.16",
    "outlier_ratio=0.32",
];

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new(ID, "the largest weights kept, one bit for every other", |p| {
        Ok(Arc::new(OutlierPreservingQuantizer::from_parameters(p)?))
    })
    .with_parameters(PARAMETERS)
    .with_ladder(LADDER)
}

impl OutlierPreservingQuantizer {
    /// The configuration with these parameters; absent ones have their defaults.
    ///
    /// # Errors
    /// If a parameter is unknown or out of range.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let d = Self::default();
        let mut r = parameters.reader(ID);
        let out = OutlierPreservingQuantizer {
            outlier_ratio: r.number("outlier_ratio", d.outlier_ratio, 0.0, MAX_RATIO)?,
            group: Group::read(&mut r, ID, d.group)?,
            outlier_bits: [OutlierBits::F16, OutlierBits::BF16, OutlierBits::EightBit]
                [r.choice("outlier_bits", "f16", OUTLIER_BITS)?],
            error_compensation: r.flag("error_compensation", d.error_compensation)?,
            scale: [ScaleRule::LeastSquares, ScaleRule::Deviation][r.choice("scale", "lsq", SCALES)?],
        };
        r.finish()?;
        Ok(out)
    }

    /// Outliers of a tensor of `weights` weights.
    fn outliers_in(&self, weights: u64) -> u64 {
        (self.outlier_ratio * weights as f64).round() as u64
    }
}

impl Quantizer for OutlierPreservingQuantizer {
    fn id(&self) -> &str {
        ID
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
            .with("outlier_ratio", self.outlier_ratio)
            .with("group", self.group.value())
            .with("outlier_bits", OUTLIER_BITS[self.outlier_bits as usize])
            .with("error_compensation", self.error_compensation)
            .with("scale", SCALES[self.scale as usize])
    }

    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        super::float_only(ID, matrix).ok()?;
        self.tiling(matrix).ok().map(|tiling| estimate::estimate(self, matrix, &tiling))
    }

    fn needs(&self) -> Needs {
        let needs =
            if self.outlier_ratio > 0.0 { Needs::outliers(self.outlier_ratio) } else { Needs::default() };
        // The deviation is there for comparison: it stays what it is.
        match self.scale {
            ScaleRule::LeastSquares => needs.with_calibration(Wanted::Useful),
            ScaleRule::Deviation => needs,
        }
    }

    fn encoder(&self, matrix: &MatrixInfo, statistics: &Statistics) -> Result<Box<dyn TensorEncoder>> {
        super::float_only(ID, matrix)?;
        let selection = statistics.outliers.clone().unwrap_or_default();
        let (count, tiles) = (self.outliers_in(matrix.weights()), self.tiling(matrix)?.len());
        if selection.count != count || (count > 0 && selection.ties.len() as u64 != tiles) {
            let message = format!(
                "needs {count} outliers selected in {tiles} tiles; {} were surveyed",
                selection.count
            );
            return Err(Error::NotApplicable { codec: ID.to_owned(), message });
        }
        let plain = encode::Encoder { codec: *self, dtype: matrix.dtype, selection };
        if self.needs().calibration == Wanted::No {
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
        let cols = self.tiling(matrix)?.tile_cols().min(matrix.cols) as usize;
        let group = self.group.width(cols);
        let (multiplies, unpacks) = (Signs::can_group(cols, group), can_group(cols, group));
        Ok(Box::new(decode::Decoder { group: self.group, multiplies, unpacks }))
    }

    fn finer(&self) -> Option<Arc<dyn Quantizer>> {
        let next = if self.outlier_ratio > 0.0 { self.outlier_ratio * 2.0 } else { 0.01 };
        (next <= FINEST_RATIO).then(|| {
            Arc::new(OutlierPreservingQuantizer { outlier_ratio: next, ..*self }) as Arc<dyn Quantizer>
        })
    }
}
