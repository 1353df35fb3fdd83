//! `ternary`: -1, 0 or 1 times a scale per group, five digits to a byte.
//!
//! Two rules give scale and zeros. `absmean` is that of BitNet b1.58 (arXiv 2402.17764): the scale is the mean
//! magnitude, weights are rounded. `lsq` alternates between the best scale for the zeros and the best zeros
//! for the scale (a weight is zero below half the scale), which is the least-squares solution.
//!
//! Tile, little-endian (`n` weights, `g` groups row by row, scales multiplied by `2^exponent`):
//!
//! ```text
//! i16 exponent   f16 scale [g]   digits, 0 1 2 for -1 0 1, ceil(n / 5) bytes
//! ```

use super::payload::Payload;
use super::raw::{no_side, only_part};
use super::sums::{largest_magnitude, split_at_magnitude, sum_of_magnitudes};
use crate::scale::{TileExponent, read_halves, to_half};
use crate::{
    CodecEntry, EncodedTile, Estimate, Group, MatrixInfo, ParameterHelp, Parameters, PerTile, Quantizer,
    Result, Statistics, TensorDecoder, TensorEncoder, TileEncoder, to_f32_into,
};
use half::f16;
use lsb_format::{DType, Tile, bits};
use std::sync::Arc;

const ID: &str = "ternary";

/// How the scale of a group follows from its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TernaryRule {
    /// Least squared error.
    #[default]
    LeastSquares,
    /// The mean magnitude, as BitNet has it: exact for natively ternary models.
    AbsMean,
}

/// Three levels per weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ternary {
    /// Which weights share a scale.
    pub group: Group,
    /// How scales are computed.
    pub scale: TernaryRule,
}

impl Default for Ternary {
    fn default() -> Self {
        Ternary { group: Group::Row, scale: TernaryRule::LeastSquares }
    }
}

const PARAMETERS: &[ParameterHelp] = &[
    ParameterHelp { name: "group", values: "row (or 8 to 65536)", summary: "columns that share a scale" },
    ParameterHelp {
        name: "scale",
        values: "lsq (or absmean)",
        summary: "scale of least squared error, or the mean magnitude",
    },
];

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new(ID, "-1, 0 or 1 times a scale, packed five to a byte", |p| {
        Ok(Arc::new(Ternary::from_parameters(p)?))
    })
    .with_parameters(PARAMETERS)
    .with_ladder(&["group=row"])
}

impl Ternary {
    /// The configuration with these parameters; absent ones have their defaults.
    ///
    /// # Errors
    /// If a parameter is unknown or out of range.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let d = Self::default();
        let mut r = parameters.reader(ID);
        let out = Ternary {
            group: Group::read(&mut r, ID, d.group)?,
            scale: [TernaryRule::LeastSquares, TernaryRule::AbsMean]
                [r.choice("scale", "lsq", &["lsq", "absmean"])?],
        };
        r.finish()?;
        Ok(out)
    }
}

impl Quantizer for Ternary {
    fn id(&self) -> &str {
        ID
    }

    fn parameters(&self) -> Parameters {
        let scale = match self.scale {
            TernaryRule::LeastSquares => "lsq",
            TernaryRule::AbsMean => "absmean",
        };
        Parameters::new().with("group", self.group.value()).with("scale", scale)
    }

    /// The three-level quantizer of least error leaves 0.1902 of a Gaussian's variance (J. Max, 1960);
    /// `absmean` leaves 0.2035.
    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        super::float_only(ID, matrix).ok()?;
        let tiling = self.tiling(matrix).ok()?;
        let groups = self.group.in_matrix(matrix.rows, matrix.cols, tiling.tile_cols());
        let snr_db = match self.scale {
            TernaryRule::LeastSquares => 7.21,
            TernaryRule::AbsMean => 6.91,
        };
        let bytes = matrix.weights() as f64 / 5.0 + 2.0 * groups + 3.0 * tiling.len() as f64;
        Some(Estimate { bytes, snr_db })
    }

    fn encoder(&self, matrix: &MatrixInfo, _statistics: &Statistics) -> Result<Box<dyn TensorEncoder>> {
        super::float_only(ID, matrix)?;
        Ok(Box::new(PerTile::new(Encoder { codec: *self, dtype: matrix.dtype })))
    }

    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>> {
        super::float_only(ID, matrix)?;
        no_side(side)?;
        Ok(Box::new(Decoder { group: self.group }))
    }
}

#[derive(Debug)]
struct Encoder {
    codec: Ternary,
    dtype: DType,
}

/// Rounds of alternation; on Gaussian and trained weights the error is settled to 1e-4 of it after six.
const ROUNDS: usize = 8;

impl Encoder {
    fn scale(&self, group: &[f32]) -> f16 {
        let n = group.len() as f64;
        let mean = sum_of_magnitudes(group) / n;
        if self.codec.scale == TernaryRule::AbsMean {
            return to_half(mean);
        }
        let mut scale = 1.5 * mean;
        for _ in 0..ROUNDS {
            let (count, total) = split_at_magnitude(group, (scale / 2.0) as f32);
            if count == 0 {
                break;
            }
            scale = total / f64::from(count);
        }
        to_half(scale)
    }
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let mut weights = vec![0.0; tile.weights()];
        to_f32_into(self.dtype, bytes, &mut weights);
        let exponent = TileExponent::of_magnitude(largest_magnitude(&weights)?);
        exponent.divide_all(&mut weights);

        let cols = tile.cols as usize;
        let width = self.codec.group.width(cols);
        let mut digits = Vec::with_capacity(weights.len());
        let buffer = out.buffer();
        buffer.extend_from_slice(&exponent.to_le_bytes());
        for row in weights.chunks(cols.max(1)) {
            for group in row.chunks(width) {
                let scale = self.scale(group);
                buffer.extend_from_slice(&scale.to_le_bytes());
                let half = scale.to_f32() / 2.0;
                digits.extend(group.iter().map(|&w| 1 + u8::from(w > half) - u8::from(w < -half)));
            }
        }
        bits::pack_trits(&digits, buffer);
        out.end_part();
        Ok(())
    }
}

#[derive(Debug)]
struct Decoder {
    group: Group,
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let mut payload = Payload::new(only_part(parts)?);
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let scales = read_halves("scale", payload.take("scales", 2 * self.group.in_tile(tile))?, false)?;
        let mut digits = vec![0u8; out.len()];
        bits::unpack_trits(payload.rest(), &mut digits)?;

        let cols = (tile.cols as usize).max(1);
        let width = self.group.width(cols);
        let mut scales = scales.iter();
        for (row, digits) in out.chunks_mut(cols).zip(digits.chunks(cols)) {
            for (values, digits) in row.chunks_mut(width).zip(digits.chunks(width)) {
                let Some(&scale) = scales.next() else { break };
                let level = exponent.restore(f64::from(scale));
                let levels = [-level, 0.0, level];
                values.iter_mut().zip(digits).for_each(|(v, &d)| *v = levels[usize::from(d)]);
            }
        }
        Ok(())
    }
}
