//! Encoding one tile.

use super::scan::scan;
use super::{OutlierPreservingQuantizer, ScaleRule, outliers};
use crate::codec::bitstream::BitWriter;
use crate::codec::signs;
use crate::codec::sums::{split_at, sum, sum_of_squares};
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
        let (threshold, ties) = match self.selection.ties.get(tile.index as usize) {
            Some(&ties) if self.selection.count > 0 => (self.selection.threshold, ties),
            _ => (f32::INFINITY.to_bits(), 0),
        };
        let found = scan(self.dtype, bytes, threshold, ties)?;
        let exponent = TileExponent::of_magnitude(found.largest_other);
        let (cols, width) = (tile.cols as usize, (self.dtype.bits() / 8) as usize);
        let group = self.codec.group.width(cols);

        let n_groups = self.codec.group.in_tile(tile);
        let (mut scales, mut means) = (Vec::with_capacity(2 * n_groups), Vec::with_capacity(2 * n_groups));
        let mut plane = Vec::with_capacity(tile.weights().div_ceil(8) + 4);
        let mut bits = BitWriter::new(&mut plane);
        let mut magnitudes = Vec::with_capacity(found.outliers.len());
        let mut is_negative = Vec::with_capacity(found.outliers.len());
        let mut row = vec![0.0; cols];
        let mut left = &found.outliers[..];
        for (r, row_bytes) in bytes.chunks(cols * width).enumerate() {
            to_f32_into(self.dtype, row_bytes, &mut row);
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
                let (mean, scale) = self.fit(weights, inside.len());
                scales.extend_from_slice(&scale.to_le_bytes());
                means.extend_from_slice(&mean.to_le_bytes());
                signs::push_above(&mut bits, weights, mean.to_f32());
            }
        }
        bits.finish();
        for (&p, negative) in found.outliers.iter().zip(is_negative) {
            signs::set(&mut plane, p as usize, !negative);
        }

        let out_bytes = out.buffer();
        out_bytes.extend_from_slice(&exponent.to_le_bytes());
        out_bytes.push(u8::from(self.codec.error_compensation));
        out_bytes.extend_from_slice(&(found.outliers.len() as u32).to_le_bytes());
        let length_at = out_bytes.len();
        out_bytes.extend_from_slice(&[0; 4]);
        out_bytes.extend_from_slice(&scales);
        if self.codec.error_compensation {
            out_bytes.extend_from_slice(&means);
        }
        out_bytes.extend_from_slice(&plane);
        let magnitudes_at = out_bytes.len();
        outliers::encode(&magnitudes, self.codec.outlier_bits, out_bytes);
        let length = (out_bytes.len() - magnitudes_at) as u32;
        out_bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
        encode_positions(&found.outliers, tile.weights() as u32, out_bytes)?;
        out.end_part();
        Ok(())
    }
}

impl Encoder {
    /// Mean and scale of a group of divided weights, of which `holes` are outliers set to zero.
    fn fit(&self, weights: &[f32], holes: usize) -> (f16, f16) {
        let n = weights.len() - holes;
        if n == 0 {
            return (f16::ZERO, f16::ZERO);
        }
        let count = n as f64;
        let total = sum(weights);
        // Number and sum of the weights above a level; holes, which are zero, do not count.
        let above = |level: f64| {
            let (n_above, sum_above) = split_at(weights, level as f32);
            (f64::from(n_above) - if 0.0 > level as f32 { holes as f64 } else { 0.0 }, sum_above)
        };
        let mut mean = 0.0;
        if self.codec.error_compensation {
            mean = total / count;
            for _ in 0..ROUNDS {
                let (n_above, sum_above) = above(mean);
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
                let (n_above, sum_above) = above(m);
                (2.0 * sum_above - total - m * (2.0 * n_above - count)) / count
            }
            ScaleRule::Deviation => {
                let average = total / count;
                (sum_of_squares(weights) / count - average * average).max(0.0).sqrt()
            }
        };
        (mean, to_half(scale.max(0.0)))
    }
}
