//! Size and quality on independent Gaussian weights, interpolated between measurements.

use super::{OutlierBits, OutlierPreservingQuantizer, ScaleRule};
use crate::codec::gaussian_table::{GaussianTable, over_log2};
use crate::{Estimate, MatrixInfo};
use lsb_format::{DType, Tiling};

/// Share of outliers, bits that position and magnitude of one take at bf16 precision and at eight bits, and dB.
const BY_RATIO: [(f64, [f64; 3]); 9] = [
    (0.0025, [17.16, 18.68, 4.59]),
    (0.005, [15.54, 16.86, 4.73]),
    (0.01, [14.27, 15.40, 4.97]),
    (0.02, [13.19, 14.15, 5.37]),
    (0.04, [12.19, 12.99, 6.04]),
    (0.08, [11.88, 12.30, 7.15]),
    (0.16, [11.14, 11.32, 9.07]),
    (0.32, [10.40, 10.21, 12.71]),
    (0.5, [10.22, 9.75, 17.30]),
];
/// dB without outliers.
const WITHOUT: f64 = 4.40;

/// dB that smaller groups gain, without and with a mean each.
const BY_GROUP: GaussianTable<2> =
    GaussianTable { columns_32: [0.13, 0.45], columns_128: [0.03, 0.11], columns_4096: [0.0, 0.0] };

/// dB that the standard deviation loses against the scale of least squared error.
const DEVIATION_LOSS: f64 = 0.44;

pub(super) fn estimate(codec: &OutlierPreservingQuantizer, matrix: &MatrixInfo, tiling: &Tiling) -> Estimate {
    let (weights, tiles) = (matrix.weights() as f64, tiling.len() as f64);
    let outliers = codec.outliers_in(matrix.weights()) as f64;
    let ratio = codec.outlier_ratio;
    let column = |i: usize| over_log2(ratio, &BY_RATIO.map(|(ratio, values)| (ratio, values[i])));
    let per_outlier = match (codec.outlier_bits, matrix.dtype) {
        (OutlierBits::EightBit, _) => column(1),
        // Three more significant bits, if the source has them.
        (OutlierBits::F16, DType::F16 | DType::F32 | DType::F64) => column(0) + 3.0,
        _ => column(0),
    };
    let groups = codec.group.in_matrix(matrix.rows, matrix.cols, tiling.tile_cols());
    let per_group = if codec.error_compensation { 4.0 } else { 2.0 };
    // Per tile: fixed fields, and half a byte of padding.
    let header = if outliers > 0.0 { 20.5 } else { 11.5 };
    let bytes = weights / 8.0 + outliers * per_outlier / 8.0 + groups * per_group + tiles * header;

    let first = BY_RATIO[0];
    let by_ratio =
        if ratio < first.0 { WITHOUT + ratio / first.0 * (first.1[2] - WITHOUT) } else { column(2) };
    let by_group = BY_GROUP.at(usize::from(codec.error_compensation), codec.group, tiling.tile_cols());
    let loss = if codec.scale == ScaleRule::Deviation { DEVIATION_LOSS } else { 0.0 };
    Estimate { bytes, snr_db: by_ratio + by_group - loss }
}
