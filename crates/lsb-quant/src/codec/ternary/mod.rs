//! `ternary`: every weight is minus a scale, zero, or the scale; five weights to a byte.
//!
//! Tile, little-endian (`n` weights, `g` groups row by row, halves multiplied by `2^exponent`):
//!
//! ```text
//! i16 exponent   f16 scale [g]   digits 0, 1, 2 for -1, 0, 1, ceil(n / 5) bytes (`lsb_format::bits`)
//! ```
//!
//! The rule `absmean` is that of BitNet b1.58 (arXiv 2402.17764).

use super::divided::{divide_into, exponent_of};
use super::gaussian_table::GaussianTable;
use super::grouped::Groups;
use super::payload::Payload;
use super::raw::{no_side, only_part};
use super::sums::{split_magnitudes_at, sum_of_magnitudes};
use crate::lanes::{Lanes, Work, dispatch};
use crate::scale::{TileExponent, read_halves, to_half};
use crate::unpacked::{Grouped, Rule, TileLevels, bits_of_groups, can_group};
use crate::{
    CodecEntry, EncodedTile, Estimate, Group, MatrixInfo, ParameterHelp, Parameters, PerTile, Quantizer,
    Result, Statistics, TensorDecoder, TensorEncoder, TileEncoder, TileProducts,
};
use lsb_format::{DType, Tile, bits};
use std::sync::Arc;

const ID: &str = "ternary";

/// Of a digit, where it has some of its own.
const DIGIT_BITS: u32 = 2;

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
        let cols = self.tiling(matrix)?.tile_cols().min(matrix.cols) as usize;
        Ok(Box::new(Decoder { group: self.group, unpacks: can_group(cols, self.group.width(cols)) }))
    }
}

#[derive(Debug)]
struct Encoder {
    codec: Ternary,
    dtype: DType,
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let exponent = exponent_of(self.dtype, bytes)?;
        out.buffer().extend_from_slice(&exponent.to_le_bytes());
        dispatch(Digits { coder: self, tile, bytes, exponent, out: out.buffer() });
        out.end_part();
        Ok(())
    }
}

/// Appends scales and digits of a tile.
struct Digits<'a> {
    coder: &'a Encoder,
    tile: &'a Tile,
    bytes: &'a [u8],
    exponent: TileExponent,
    out: &'a mut Vec<u8>,
}

impl Work for Digits<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Digits { coder, tile, bytes, exponent, out } = self;
        let (cols, width) = (tile.cols as usize, (coder.dtype.bits() / 8) as usize);
        let group = coder.codec.group.width(cols);
        let mut row = vec![0.0; cols];
        let mut digits = vec![0u8; tile.weights()];
        for (bytes, digits) in bytes.chunks(cols * width).zip(digits.chunks_mut(cols)) {
            divide_into(coder.dtype, bytes, exponent, &mut row);
            for (weights, digits) in row.chunks(group).zip(digits.chunks_mut(group)) {
                let scale = to_half(match coder.codec.scale {
                    TernaryRule::LeastSquares => least_squares(lanes, weights),
                    TernaryRule::AbsMean => mean_magnitude(lanes, weights),
                });
                out.extend_from_slice(&scale.to_le_bytes());
                // Halfway between zero and the scale: the nearest level.
                let edge = 0.5 * scale.to_f32();
                for (d, &w) in digits.iter_mut().zip(weights) {
                    *d = 1 + u8::from(w > edge) - u8::from(w < -edge);
                }
            }
        }
        bits::pack_trits(&digits, out);
    }
}

#[inline(always)]
fn mean_magnitude<L: Lanes>(lanes: L, weights: &[f32]) -> f64 {
    sum_of_magnitudes(lanes, weights) / weights.len().max(1) as f64
}

/// Zero zones to start from, in mean magnitudes: 0.77 is best for Gaussian weights, the others for lighter and
/// heavier tails.
const STARTS: [f64; 3] = [0.77, 0.4, 1.5];
const ROUNDS: usize = 5;

/// The scale of least squared error. Given the zone, it is the mean magnitude beyond it; given the scale, the
/// zone ends at half of it. The two are alternated, from all starts side by side.
#[inline(always)]
fn least_squares<L: Lanes>(lanes: L, weights: &[f32]) -> f64 {
    let mean = mean_magnitude(lanes, weights);
    let mut edges = STARTS;
    for edge in &mut edges {
        *edge *= mean;
    }
    // Of each start the best scale, and the squares explained by it.
    let mut best = [(0.0, 0.0); STARTS.len()];
    for _ in 0..ROUNDS {
        let split = split_magnitudes_at(lanes, weights, edges);
        for ((edge, best), (count, sum)) in edges.iter_mut().zip(&mut best).zip(split) {
            // Nothing is beyond the zone, nor will be.
            if count == 0 {
                continue;
            }
            let scale = sum / f64::from(count);
            // Squares explained by a scale that is the mean of its weights.
            if scale * sum > best.1 {
                *best = (scale, scale * sum);
            }
            *edge = 0.5 * scale;
        }
    }
    best.iter().fold((0.0, 0.0), |best, &of_start| if of_start.1 > best.1 { of_start } else { best }).0
}

/// The specification of the format.
#[derive(Debug)]
struct Decoder {
    group: Group,
    /// Groups can be unpacked.
    unpacks: bool,
}

/// A tile of digits.
struct Opened {
    exponent: TileExponent,
    /// Of all groups.
    scales: Vec<f32>,
    digits: Vec<u8>,
}

impl Opened {
    fn new(group: Group, tile: &Tile, parts: &[&[u8]]) -> Result<Self> {
        let mut payload = Payload::new(only_part(parts)?);
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let scales = read_halves("scale", payload.take("scales", 2 * group.in_tile(tile))?, false)?;
        let mut digits = vec![0; tile.weights()];
        bits::unpack_trits(payload.rest(), &mut digits)?;
        Ok(Opened { exponent, scales, digits })
    }
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let Opened { exponent, scales, digits } = Opened::new(self.group, tile, parts)?;
        let (cols, group) = (tile.cols as usize, self.group.width(tile.cols as usize));
        dispatch(Weights { exponent, cols, group, scales: &scales, digits: &digits, out });
        Ok(())
    }

    fn products(&self) -> Option<&dyn TileProducts> {
        self.unpacks.then_some(self)
    }
}

impl Groups for Decoder {
    fn no_rows(&self, cols: usize) -> Grouped {
        Grouped::new(Rule::Integers, DIGIT_BITS, 1, cols, self.group.width(cols))
    }

    fn levels(&self, tile: &Tile, parts: &[&[u8]]) -> Result<TileLevels> {
        let Opened { exponent, scales, digits } = Opened::new(self.group, tile, parts)?;
        let middles = vec![0.0; scales.len()];
        Ok(TileLevels { exponent, stored: digits, scales, middles, ..TileLevels::default() })
    }

    fn bits(&self, _: f64) -> Option<f64> {
        self.unpacks.then(|| bits_of_groups(DIGIT_BITS, self.group.width(usize::MAX)))
    }
}

/// Scales the digits of a tile.
struct Weights<'a> {
    exponent: TileExponent,
    cols: usize,
    group: usize,
    /// Of all groups.
    scales: &'a [f32],
    digits: &'a [u8],
    out: &'a mut [f32],
}

impl Work for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Weights { exponent, cols, group, scales, digits, out } = self;
        let mut scales = scales.iter();
        for (row, digits) in out.chunks_mut(cols.max(1)).zip(digits.chunks(cols.max(1))) {
            for (weights, digits) in row.chunks_mut(group).zip(digits.chunks(group)) {
                let Some(&scale) = scales.next() else { break };
                for (w, &d) in weights.iter_mut().zip(digits) {
                    *w = (f32::from(d) - 1.0) * scale;
                }
            }
            exponent.multiply_all(row);
        }
    }
}
