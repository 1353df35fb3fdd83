//! Encoding one tile.

use super::scan::{Scan, scan};
use super::{OutlierPreservingQuantizer, ScaleRule, outliers};
use crate::codec::bitstream::BitWriter;
use crate::codec::signs;
use crate::codec::sums::{split_at, sum, sum_of_squares};
use crate::lanes::{Lanes, Work, dispatch};
use crate::scale::{TileExponent, to_half};
use crate::{EncodedTile, OutlierSelection, Result, TileEncoder, to_f32_into};
use half::f16;
use lsb_format::entropy::encode_positions;
use lsb_format::{DType, Tile};

#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) codec: OutlierPreservingQuantizer,
    pub(super) dtype: DType,
    pub(super) selection: OutlierSelection,
}

/// Refinements of a group's two levels, starting from the split at the mean. Each raises the explained variance;
/// on weights of transformers the third changes the error by less than 1e-4 of it.
const ROUNDS: usize = 2;

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let found = self.scan(tile, bytes)?;
        let exponent = TileExponent::of_magnitude(found.largest_other);
        let coder = self;
        let parts = dispatch(Levels { coder, tile, bytes, exponent, outliers: &found.outliers });
        let coded = Coded {
            exponent,
            scales: &parts.scales,
            means: &parts.means,
            plane: &parts.plane,
            positions: &found.outliers,
        };
        self.write(tile, &coded, &parts.magnitudes, out)
    }
}

/// Fits levels to the groups of a tile and takes the signs of its weights.
struct Levels<'a> {
    coder: &'a Encoder,
    tile: &'a Tile,
    bytes: &'a [u8],
    exponent: TileExponent,
    /// Their positions, increasing.
    outliers: &'a [u32],
}

/// What there is to store of a tile beside the positions of its outliers.
struct Parts {
    /// Halves.
    scales: Vec<u8>,
    means: Vec<u8>,
    plane: Vec<u8>,
    /// Of outliers, as f32 bits.
    magnitudes: Vec<u32>,
}

impl Work for Levels<'_> {
    type Output = Parts;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Parts {
        let Levels { coder, tile, bytes, exponent, outliers } = self;
        let (cols, width) = (tile.cols as usize, (coder.dtype.bits() / 8) as usize);
        let group = coder.codec.group.width(cols);
        let n_groups = coder.codec.group.in_tile(tile);
        let (mut scales, mut means) = (Vec::with_capacity(2 * n_groups), Vec::with_capacity(2 * n_groups));
        let mut plane = Vec::with_capacity(tile.weights().div_ceil(8) + 4);
        let mut bits = BitWriter::new(&mut plane);
        let mut magnitudes = Vec::with_capacity(outliers.len());
        let mut is_negative = Vec::with_capacity(outliers.len());
        let mut row = vec![0.0; cols];
        let mut left = outliers;
        for (r, row_bytes) in bytes.chunks(cols * width).enumerate() {
            to_f32_into(coder.dtype, row_bytes, &mut row);
            let here = left.partition_point(|&p| (p as usize) < (r + 1) * cols);
            let (mut holes, later) = left.split_at(here);
            left = later;
            for &p in holes {
                // Left at zero, a hole adds nothing to any sum.
                let w = std::mem::take(&mut row[p as usize - r * cols]);
                magnitudes.push(w.abs().to_bits());
                is_negative.push(w.is_sign_negative());
            }
            exponent.divide_all(&mut row);
            for (g, weights) in row.chunks(group).enumerate() {
                let end = r * cols + g * group + weights.len();
                let (inside, beyond) = holes.split_at(holes.partition_point(|&p| (p as usize) < end));
                holes = beyond;
                let (mean, scale) = coder.fit(lanes, weights, inside.len());
                scales.extend_from_slice(&scale.to_le_bytes());
                means.extend_from_slice(&mean.to_le_bytes());
                signs::push_above(lanes, &mut bits, weights, mean.to_f32());
            }
        }
        bits.finish();
        for (&p, negative) in outliers.iter().zip(is_negative) {
            signs::set(&mut plane, p as usize, !negative);
        }
        Parts { scales, means, plane, magnitudes }
    }
}

/// What is stored of a tile.
pub(super) struct Coded<'a> {
    pub(super) exponent: TileExponent,
    /// Halves.
    pub(super) scales: &'a [u8],
    /// Halves, stored where errors are compensated for.
    pub(super) means: &'a [u8],
    pub(super) plane: &'a [u8],
    /// Of outliers, increasing.
    pub(super) positions: &'a [u32],
}

impl Encoder {
    /// Appends a tile; `magnitudes` are those of the outliers as f32 bits.
    pub(super) fn write(
        &self,
        tile: &Tile,
        coded: &Coded<'_>,
        magnitudes: &[u32],
        out: &mut EncodedTile,
    ) -> Result<()> {
        let bytes = out.buffer();
        bytes.extend_from_slice(&coded.exponent.to_le_bytes());
        bytes.push(u8::from(self.codec.error_compensation));
        bytes.extend_from_slice(&(coded.positions.len() as u32).to_le_bytes());
        let length_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(coded.scales);
        if self.codec.error_compensation {
            bytes.extend_from_slice(coded.means);
        }
        bytes.extend_from_slice(coded.plane);
        let magnitudes_at = bytes.len();
        outliers::encode(magnitudes, self.codec.outlier_bits, bytes);
        let length = (bytes.len() - magnitudes_at) as u32;
        bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        encode_positions(coded.positions, tile.weights() as u32, bytes)?;
        out.end_part();
        Ok(())
    }

    /// The outliers by magnitude of a tile.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] at the first NaN or infinity.
    pub(super) fn scan(&self, tile: &Tile, bytes: &[u8]) -> Result<Scan> {
        let (threshold, ties) = match self.selection.ties.get(tile.index as usize) {
            Some(&ties) if self.selection.count > 0 => (self.selection.threshold, ties),
            _ => (f32::INFINITY.to_bits(), 0),
        };
        scan(self.dtype, bytes, threshold, ties)
    }

    /// Mean and scale of a group of divided weights, of which `holes` are outliers set to zero.
    #[inline(always)]
    fn fit<L: Lanes>(&self, lanes: L, weights: &[f32], holes: usize) -> (f16, f16) {
        let n = weights.len() - holes;
        if n == 0 {
            return (f16::ZERO, f16::ZERO);
        }
        let count = n as f64;
        let total = sum(lanes, weights);
        let mut mean = 0.0;
        if self.codec.error_compensation {
            mean = total / count;
            for _ in 0..ROUNDS {
                let (n_above, sum_above) = above(lanes, weights, holes, mean);
                if n_above == 0.0 || n_above == count {
                    break;
                }
                mean = 0.5 * (sum_above / n_above + (total - sum_above) / (count - n_above));
            }
        }
        let mean = to_half(mean);
        let m = f64::from(mean.to_f32());
        let scale = match self.codec.scale {
            ScaleRule::LeastSquares => {
                let (n_above, sum_above) = above(lanes, weights, holes, m);
                (2.0 * sum_above - total - m * (2.0 * n_above - count)) / count
            }
            ScaleRule::Deviation => {
                let average = total / count;
                (sum_of_squares(lanes, weights) / count - average * average).max(0.0).sqrt()
            }
        };
        (mean, to_half(scale.max(0.0)))
    }
}

/// Number and sum of the weights above a level; holes, which are zero, do not count.
#[inline(always)]
fn above<L: Lanes>(lanes: L, weights: &[f32], holes: usize, level: f64) -> (f64, f64) {
    let level = level as f32;
    let (n, sum) = split_at(lanes, weights, level);
    (f64::from(n) - if 0.0 > level { holes as f64 } else { 0.0 }, sum)
}
