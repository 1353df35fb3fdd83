//! Size and quality on independent Gaussian weights, interpolated between measurements.
//!
//! All figures were measured with `benches/rate_distortion.rs` on a 4096 x 4096 matrix in bf16.

use crate::Group;

/// dB by configuration and group: groups that have their own scales fit their own sample better, the more so
/// the smaller they are.
#[derive(Debug)]
pub(crate) struct GaussianTable<const N: usize> {
    pub(crate) columns_32: [f64; N],
    pub(crate) columns_128: [f64; N],
    pub(crate) columns_4096: [f64; N],
}

impl<const N: usize> GaussianTable<N> {
    /// dB of configuration `i` where rows of a tile have `cols` columns.
    pub(crate) fn at(&self, i: usize, group: Group, cols: u64) -> f64 {
        let points =
            [(32.0, self.columns_32[i]), (128.0, self.columns_128[i]), (4096.0, self.columns_4096[i])];
        over_log2(group.width(cols as usize) as f64, &points)
    }
}

/// The value at `x` of straight lines over the logarithm of `x` through `points`, which increase. The first
/// line goes on to the left; to the right of the last point the value stays what it is there.
pub(crate) fn over_log2(x: f64, points: &[(f64, f64)]) -> f64 {
    let Some(&(_, last)) = points.last() else { return 0.0 };
    for pair in points.windows(2) {
        let [(x0, y0), (x1, y1)] = [pair[0], pair[1]];
        if x < x1 {
            let share = (log2(x) - log2(x0)) / (log2(x1) - log2(x0));
            return y0 + share * (y1 - y0);
        }
    }
    last
}

/// The binary logarithm within 0.09, exact at powers of two. The library's may differ between systems, and
/// estimates decide what a size target chooses.
fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    let mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    (bits >> 52) as f64 - 1023.0 + (mantissa - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_pass_through_their_points_and_end_flat() {
        let points = [(2.0, 1.0), (8.0, 3.0), (16.0, 0.0)];
        for (x, y) in [(2.0, 1.0), (4.0, 2.0), (8.0, 3.0), (16.0, 0.0), (99.0, 0.0), (1.0, 0.0)] {
            assert_eq!(over_log2(x, &points), y, "{x}");
        }
    }
}
