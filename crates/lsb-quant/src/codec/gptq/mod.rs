//! `gptq`: the integers of `rtn`, chosen so that the outputs of a map, not its weights, come out right.
//!
//! Columns are rounded one after the other, and what each is off by is made up for by those that come later. Scales and
//! zero points are those of least squared error of the original weights, every column counting by what its errors cost
//! once later columns have made up for them; then they are fitted to the outputs in closed form and integers are found
//! anew. A tile is stored exactly as `rtn` stores it, and where nothing is known of a map's inputs the integers are the same.
//!
//! Columns with large inputs are taken first (`act_order`). Since groups are those of the stored columns, readers need no
//! table of the order.
//!
//! Source: E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ" (arXiv 2210.17323).

mod encode;
#[cfg(test)]
mod tests;

use super::feedback::KnownInputs;
use super::gaussian_table::GaussianTable;
use super::raw::no_side;
use super::rtn::{LADDER, MAX_BITS, MIN_BITS, RoundToNearest, tile};
use crate::calibrate::ColumnOrder;
use crate::{
    CodecEntry, Estimate, Group, MatrixInfo, Needs, ParameterHelp, Parameters, PerTile, Quantizer, Result,
    Statistics, TensorDecoder, TensorEncoder, Wanted,
};
use std::sync::Arc;

const ID: &str = "gptq";

/// Integers of `bits` bits per weight with error feedback.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gptq {
    /// Bits, groups and symmetry, as `rtn` has them.
    pub integers: RoundToNearest,
    /// Take columns with large inputs first.
    pub act_order: bool,
    /// Share of the mean square of inputs that is added to that of each, 0 to 10.
    pub damping: f64,
    /// Search the range of least squared error for each group, and fit it to the outputs, instead of spanning all weights.
    pub mse: bool,
}

impl Default for Gptq {
    fn default() -> Self {
        Gptq { integers: RoundToNearest::default(), act_order: true, damping: 0.01, mse: true }
    }
}

/// dB on Gaussian weights with two to eight bits where levels span all weights.
const GAUSSIAN_SPAN: GaussianTable<7> = GaussianTable {
    columns_32: [8.12, 15.50, 22.13, 28.44, 34.59, 40.62, 46.46],
    columns_128: [6.01, 13.40, 20.01, 26.32, 32.47, 38.55, 44.54],
    columns_4096: [2.89, 10.41, 17.02, 23.33, 29.49, 35.58, 41.62],
};
/// The same for symmetric groups.
const GAUSSIAN_SPAN_SYMMETRIC: GaussianTable<7> = GaussianTable {
    columns_32: [6.82, 14.22, 20.85, 27.16, 33.32, 39.42, 45.46],
    columns_128: [5.15, 12.57, 19.19, 25.50, 31.67, 37.76, 43.82],
    columns_4096: [2.29, 9.93, 16.55, 22.86, 29.02, 35.11, 41.17],
};

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
    ParameterHelp {
        name: "act_order",
        values: "true",
        summary: "take columns with large inputs first; groups stay those of the stored columns",
    },
    ParameterHelp {
        name: "damping",
        values: "0.01 (0 to 10)",
        summary: "share of the mean square of inputs that is added to each",
    },
    ParameterHelp {
        name: "mse",
        values: "true",
        summary: "search the best range of a group and fit it to the outputs, instead of spanning all weights",
    },
];

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new(ID, "integers of 2 to 8 bits, rounded so that calibrated outputs come out right", |p| {
        Ok(Arc::new(Gptq::from_parameters(p)?))
    })
    .with_parameters(PARAMETERS)
    .with_ladder(LADDER)
}

impl Gptq {
    /// The configuration with these parameters; absent ones have their defaults.
    ///
    /// # Errors
    /// If a parameter is unknown or out of range.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let d = Self::default();
        let mut r = parameters.reader(ID);
        let bits = r.integer("bits", i64::from(d.integers.bits), i64::from(MIN_BITS), i64::from(MAX_BITS))?;
        let out = Gptq {
            integers: RoundToNearest {
                bits: bits as u32,
                group: Group::read(&mut r, ID, d.integers.group)?,
                symmetric: r.flag("symmetric", d.integers.symmetric)?,
            },
            act_order: r.flag("act_order", d.act_order)?,
            damping: r.number("damping", d.damping, 0.0, 10.0)?,
            mse: r.flag("mse", d.mse)?,
        };
        r.finish()?;
        Ok(out)
    }
}

impl Quantizer for Gptq {
    fn id(&self) -> &str {
        ID
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
            .with("bits", self.integers.bits)
            .with("group", self.integers.group.value())
            .with("symmetric", self.integers.symmetric)
            .with("act_order", self.act_order)
            .with("damping", self.damping)
            .with("mse", self.mse)
    }

    /// Of weights alone: what outputs gain by calibration depends on the inputs.
    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        let estimate = self.integers.estimate(matrix)?;
        if self.mse {
            return Some(estimate);
        }
        let RoundToNearest { bits, group, symmetric } = self.integers;
        let table = if symmetric { &GAUSSIAN_SPAN_SYMMETRIC } else { &GAUSSIAN_SPAN };
        let cols = self.tiling(matrix).ok()?.tile_cols();
        Some(Estimate { snr_db: table.at((bits - MIN_BITS) as usize, group, cols), ..estimate })
    }

    fn needs(&self) -> Needs {
        Needs::default().with_calibration(Wanted::Yes)
    }

    fn encoder(&self, matrix: &MatrixInfo, statistics: &Statistics) -> Result<Box<dyn TensorEncoder>> {
        super::float_only(ID, matrix)?;
        let order = if self.act_order { ColumnOrder::Falling } else { ColumnOrder::Stored };
        let tiling = self.tiling(matrix)?;
        let (layout, dtype) = (self.integers.layout(), matrix.dtype);
        Ok(match KnownInputs::new(ID, matrix, &tiling, statistics, self.damping, order)? {
            Some(inputs) => {
                Box::new(PerTile::new(encode::Encoder { layout, dtype, inputs, fitted: self.mse }))
            }
            None => Box::new(PerTile::new(tile::Encoder { layout, dtype, search: self.mse })),
        })
    }

    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>> {
        super::float_only(ID, matrix)?;
        no_side(side)?;
        Ok(Box::new(tile::Decoder::new(self.integers.layout(), matrix, &self.tiling(matrix)?)))
    }

    fn finer(&self) -> Option<Arc<dyn Quantizer>> {
        let integers = RoundToNearest { bits: self.integers.bits + 1, ..self.integers };
        (integers.bits <= MAX_BITS).then(|| Arc::new(Gptq { integers, ..*self }) as Arc<dyn Quantizer>)
    }
}
