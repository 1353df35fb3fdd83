//! `ternary`: every weight is minus a scale, zero, or the scale; five weights to a byte.
//!
//! Tile, little-endian (`n` weights, `g` groups row by row, halves multiplied by `2^exponent`):
//!
//! ```text
//! i16 exponent   f16 scale [g]   digits 0, 1, 2 for -1, 0, 1, ceil(n / 5) bytes (`lsb_format::bits`)
//! ```
//!
//! The rule `absmean` is that of BitNet b1.58 (arXiv 2402.17764).

use super::divided::divided_weights;
use super::gaussian_table::GaussianTable;
use super::payload::Payload;
use super::raw::{no_side, only_part};
use super::sums::{split_magnitudes_at, sum_of_magnitudes};
use crate::scale::{TileExponent, read_halves, to_half};
use crate::{
    CodecEntry, EncodedTile, Estimate, Group, MatrixInfo, ParameterHelp, Parameters, PerTile, Quantizer,
    Result, Statistics, TensorDecoder, TensorEncoder, TileEncoder,
};
use lsb_format::{DType, Tile, bits};
use std::sync::Arc;

const ID: &str = "ternary";

/// How the scale of a group follows from its weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TernaryRule {
    /// Scale and zero zone of least squared error.
    #[default]
    LeastSquares,
    /// The mean magnitude, as BitNet trains with.
    AbsMean,
}

/// Weights of -1, 0 and 1 times a scale: 1.6 bits each.
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

const SCALES: &[&str] = &["lsq", "absmean"];

const PARAMETERS: &[ParameterHelp] = &[
    ParameterHelp { name: "group", values: "row (or 8 to 65536)", summary: "columns that share a scale" },
    ParameterHelp {
        name: "scale",
        values: "lsq (or absmean)",
        summary: "scale of least squared error, or the mean magnitude",
    },
];

/// dB on Gaussian weights by rule.
const GAUSSIAN: GaussianTable<2> =
    GaussianTable { columns_32: [7.50, 5.95], columns_128: [7.28, 5.83], columns_4096: [7.21, 5.80] };

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new(ID, "minus one, zero or one times a scale, 1.6 bits", |p| {
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
            scale: [TernaryRule::LeastSquares, TernaryRule::AbsMean][r.choice("scale", "lsq", SCALES)?],
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
        Parameters::new().with("group", self.group.value()).with("scale", SCALES[self.scale as usize])
    }

    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        super::float_only(ID, matrix).ok()?;
        let tiling = self.tiling(matrix).ok()?;
        let groups = self.group.in_matrix(matrix.rows, matrix.cols, tiling.tile_cols());
        Some(Estimate {
            bytes: matrix.weights() as f64 / 5.0 + 2.0 * groups + 2.5 * tiling.len() as f64,
            snr_db: GAUSSIAN.at(self.scale as usize, self.group, tiling.tile_cols()),
        })
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

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let (exponent, weights) = divided_weights(self.dtype, bytes)?;
        let cols = tile.cols as usize;
        let group = self.codec.group.width(cols);
        let mut digits = vec![0u8; weights.len()];
        out.buffer().extend_from_slice(&exponent.to_le_bytes());
        for (row, digits) in weights.chunks(cols).zip(digits.chunks_mut(cols)) {
            for (weights, digits) in row.chunks(group).zip(digits.chunks_mut(group)) {
                let scale = to_half(match self.codec.scale {
                    TernaryRule::LeastSquares => least_squares(weights),
                    TernaryRule::AbsMean => mean_magnitude(weights),
                });
                out.buffer().extend_from_slice(&scale.to_le_bytes());
                // Halfway between zero and the scale: the nearest level.
                let edge = 0.5 * scale.to_f32();
                for (d, &w) in digits.iter_mut().zip(weights) {
                    *d = 1 + u8::from(w > edge) - u8::from(w < -edge);
                }
            }
        }
        bits::pack_trits(&digits, out.buffer());
        out.end_part();
        Ok(())
    }
}

fn mean_magnitude(weights: &[f32]) -> f64 {
    sum_of_magnitudes(weights) / weights.len().max(1) as f64
}

/// Zero zones to start from, in mean magnitudes: 0.77 is best for Gaussian weights, the others for lighter and
/// heavier tails.
const STARTS: [f64; 3] = [0.77, 0.4, 1.5];
const ROUNDS: usize = 5;

/// The scale of least squared error. Given the zone, it is the mean magnitude beyond it; given the scale, the
/// zone ends at half of it. The two are alternated.
fn least_squares(weights: &[f32]) -> f64 {
    let mean = mean_magnitude(weights);
    let (mut best, mut best_explained) = (0.0, 0.0);
    for start in STARTS {
        let mut edge = start * mean;
        for _ in 0..ROUNDS {
            let (count, sum) = split_magnitudes_at(weights, edge as f32);
            if count == 0 {
                break;
            }
            let scale = sum / f64::from(count);
            // Squares explained by a scale that is the mean of its weights.
            if scale * sum > best_explained {
                (best, best_explained) = (scale, scale * sum);
            }
            edge = 0.5 * scale;
        }
    }
    best
}

/// The specification of the format.
#[derive(Debug)]
struct Decoder {
    group: Group,
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let mut payload = Payload::new(only_part(parts)?);
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let scales = read_halves("scale", payload.take("scales", 2 * self.group.in_tile(tile))?, false)?;
        let mut digits = vec![0; out.len()];
        bits::unpack_trits(payload.rest(), &mut digits)?;
        let (cols, group) = (tile.cols as usize, self.group.width(tile.cols as usize));
        let mut scales = scales.iter();
        for (row, digits) in out.chunks_mut(cols.max(1)).zip(digits.chunks(cols.max(1))) {
            for (weights, digits) in row.chunks_mut(group).zip(digits.chunks(group)) {
                let Some(&scale) = scales.next() else { break };
                for (w, &d) in weights.iter_mut().zip(digits) {
                    *w = (f32::from(d) - 1.0) * scale;
                }
            }
        }
        exponent.multiply_all(out);
        Ok(())
    }
}
