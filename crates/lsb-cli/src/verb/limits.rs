//! Quality limits as flags.

use super::value::limit;
use lsb_validate::QualityTargets;

/// Limits a verdict judges. Limits are inclusive.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Limits (missing one exits with 3)")]
pub(crate) struct Limits {
    /// Least weight signal-to-noise ratio of the model, in dB
    #[arg(long, value_name = "DB", value_parser = limit, allow_negative_numbers = true)]
    pub(crate) min_snr: Option<f64>,

    /// Least correlation of original and decoded weights
    #[arg(long, value_name = "R", value_parser = limit, allow_negative_numbers = true)]
    pub(crate) min_correlation: Option<f64>,

    /// Largest mean |error| / (max - min), in percent [default: 1.0 in `validate`]
    #[arg(long, value_name = "PERCENT", value_parser = limit, allow_negative_numbers = true)]
    pub(crate) max_relative_error: Option<f64>,

    /// Least ratio of source bytes to package bytes
    #[arg(long, value_name = "X", value_parser = limit, allow_negative_numbers = true)]
    pub(crate) min_ratio: Option<f64>,

    /// Largest number of bits of package per weight
    #[arg(long, value_name = "BITS", value_parser = limit, allow_negative_numbers = true)]
    pub(crate) max_bpw: Option<f64>,

    /// Largest package, in GB
    #[arg(long, value_name = "GB", value_parser = limit, allow_negative_numbers = true)]
    pub(crate) max_storage_gb: Option<f64>,
}

impl Limits {
    /// As targets, with those given laid over `base`.
    pub(crate) fn over(&self, base: QualityTargets) -> QualityTargets {
        QualityTargets {
            min_weight_snr_db: self.min_snr.or(base.min_weight_snr_db),
            max_relative_error_percent: self.max_relative_error.or(base.max_relative_error_percent),
            min_correlation: self.min_correlation.or(base.min_correlation),
            min_ratio: self.min_ratio.or(base.min_ratio),
            max_bpw: self.max_bpw.or(base.max_bpw),
            max_storage_gb: self.max_storage_gb.or(base.max_storage_gb),
            limits: base.limits,
        }
    }
}
