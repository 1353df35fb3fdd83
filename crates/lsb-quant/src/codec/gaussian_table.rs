//! Quality on independent Gaussian weights, from measurements.

use crate::Group;

/// dB by configuration, for groups of 128 columns and for rows of 4096.
///
/// A group of `n` weights that has its own scales fits its own sample a little better than the distribution: the
/// gain falls as `1 / n`, which gives all other group sizes.
#[derive(Debug)]
pub(crate) struct GaussianTable<const N: usize> {
    pub(crate) row: [f64; N],
    pub(crate) group_128: [f64; N],
}

impl<const N: usize> GaussianTable<N> {
    /// dB of configuration `i` where rows of a tile have `cols` columns.
    pub(crate) fn at(&self, i: usize, group: Group, cols: u64) -> f64 {
        let width = group.width(cols as usize).max(16) as f64;
        let gain = (self.group_128[i] - self.row[i]) / (1.0 / 128.0 - 1.0 / 4096.0);
        self.row[i] + gain * (1.0 / width - 1.0 / 4096.0)
    }
}
