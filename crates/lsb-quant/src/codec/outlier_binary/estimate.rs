//! Size and quality on independent Gaussian weights.

use super::{OutlierBits, OutlierPreservingQuantizer};
use crate::{Estimate, MatrixInfo};
use lsb_format::{DType, Tiling};

/// For a share of outliers: the mean squared error of unit Gaussian weights, and the bits of an outlier's
/// magnitude on the grid of bf16. Both are integrals over the Gaussian density, cut at the quantile of the share.
const GAUSSIAN: [(f64, f64, f64); 10] = [
    (0.0, 0.36338, 5.6),
    (0.0025, 0.34745, 5.70),
    (0.005, 0.33626, 5.77),
    (0.01, 0.31823, 5.86),
    (0.02, 0.29028, 5.95),
    (0.04, 0.24918, 6.04),
    (0.08, 0.19295, 6.76),
    (0.16, 0.12395, 7.16),
    (0.32, 0.0536, 7.57),
    (0.5, 0.01862, 8.22),
];

pub(super) fn estimate(codec: &OutlierPreservingQuantizer, matrix: &MatrixInfo, tiling: &Tiling) -> Estimate {
    let p = codec.outlier_ratio;
    let above = GAUSSIAN.iter().position(|row| row.0 >= p).unwrap_or(GAUSSIAN.len() - 1).max(1);
    let (a, b) = (GAUSSIAN[above - 1], GAUSSIAN[above]);
    let share = ((p - a.0) / (b.0 - a.0)).clamp(0.0, 1.0);
    let mse = a.1 + share * (b.1 - a.1);
    let magnitude = a.2
        + share * (b.2 - a.2)
        + match (codec.outlier_bits, matrix.dtype) {
            // Bits that bf16 sources do not have cost nothing.
            (OutlierBits::F16, dtype) if dtype != DType::BF16 => 3.0,
            (OutlierBits::EightBit, _) => 1.0,
            _ => 0.0,
        };
    let n = matrix.weights() as f64;
    let position = if p > 0.0 { -(p * p.log2() + (1.0 - p) * (1.0 - p).log2()) } else { 0.0 };
    let groups = codec.group.in_matrix(matrix.rows, matrix.cols, tiling.tile_cols());
    let per_group = if codec.error_compensation { 32.0 } else { 16.0 };
    // Exponent, flags, lengths; states of the entropy coder where there are positions.
    let per_tile = if p > 0.0 { 8.0 * 155.0 } else { 8.0 * 11.0 };
    let bits = n * (1.0 + position + p * magnitude) + groups * per_group + tiling.len() as f64 * per_tile;
    Estimate { bytes: bits / 8.0, snr_db: -10.0 * mse.log10() }
}
