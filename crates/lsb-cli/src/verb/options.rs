//! The options of a compression as flags; they override a recipe given with `--config`.

use crate::exit::Failure;
use crate::render::number::parse_bytes;
use lsb_stream::{CompressConfig, Rule, Target};
use std::path::PathBuf;

/// Options shared by `compress` and `plan`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Read options from a TOML recipe; flags given beside it win
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Codec as ID, ID:VALUE or ID:KEY=VALUE,... (see `lsb codecs`) [default: outlier-binary, or what the
    /// target chooses]
    #[arg(long, value_name = "CODEC", help_heading = "What to store")]
    pub(crate) codec: Option<String>,

    /// Give tensors whose name matches a codec of their own; repeatable, the last match wins
    #[arg(long = "rule", value_name = "REGEX=CODEC", help_heading = "What to store")]
    pub(crate) rules: Vec<Rule>,

    /// Aim for this ratio of source bytes to package bytes
    #[arg(long, value_name = "X", group = "target", help_heading = "What to store")]
    pub(crate) ratio: Option<f64>,

    /// Aim for this many bits of package per weight
    #[arg(short, long, value_name = "BITS", group = "target", help_heading = "What to store")]
    pub(crate) bpw: Option<f64>,

    /// Aim for a package of this size, such as 2.4GB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, group = "target", help_heading = "What to store")]
    pub(crate) target_size: Option<u64>,

    /// Share of weights outlier-binary keeps in 16 bits [default: 0.02]
    #[arg(long, value_name = "SHARE", help_heading = "What to store")]
    pub(crate) outlier_ratio: Option<f64>,

    /// Largest package the verdict accepts, in GB [default: 4.0]
    #[arg(long, value_name = "GB", help_heading = "Quality")]
    pub(crate) target_storage_gb: Option<f64>,

    /// Largest quality loss accepted, in percent; what adaptive precision aims for [default: 1.0]
    #[arg(long, value_name = "PERCENT", help_heading = "Quality")]
    pub(crate) quality_threshold: Option<f64>,

    /// Decode and measure every tile [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Quality")]
    pub(crate) quality_monitoring: Option<bool>,

    /// Encode tensors again, finer, while their error is above the quality threshold [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Quality")]
    pub(crate) adaptive_precision: Option<bool>,

    /// Let codecs cancel their systematic error [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Quality")]
    pub(crate) error_compensation: Option<bool>,

    /// Keep tensors that hold NaN or infinity raw instead of refusing them
    #[arg(long, help_heading = "Quality")]
    pub(crate) allow_nonfinite: bool,

    /// Memory the process may use, in MB [default: 400]
    #[arg(long, value_name = "MB", help_heading = "Memory and time")]
    pub(crate) target_ram_mb: Option<u64>,

    /// Layers that may have weights in memory at once; 0 for any number [default: 1]
    #[arg(long, value_name = "N", help_heading = "Memory and time")]
    pub(crate) max_layers_in_ram: Option<usize>,

    /// Read tensors when needed; false loads the whole model first [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Memory and time")]
    pub(crate) streaming_enabled: Option<bool>,

    /// Read the next work while computing [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Memory and time")]
    pub(crate) prefetch_enabled: Option<bool>,

    /// Keep tensors between passes and buffers between tensors [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Memory and time")]
    pub(crate) caching_enabled: Option<bool>,

    /// Encode tiles on several threads [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Memory and time")]
    pub(crate) parallel_processing: Option<bool>,

    /// Number of threads; 0 for one per core [default: 0]
    #[arg(short, long, value_name = "N", help_heading = "Memory and time")]
    pub(crate) threads: Option<usize>,

    /// Treat warnings about the input as errors
    #[arg(long, help_heading = "Input and output")]
    pub(crate) strict: bool,

    /// Largest safetensors header to read, such as 64MB [default: 64MB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Input and output")]
    pub(crate) max_header: Option<u64>,

    /// Source bytes per shard of the package, such as 5GB [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Input and output")]
    pub(crate) shard_size: Option<u64>,

    /// Discard unfinished work of an earlier run
    #[arg(long, help_heading = "Input and output")]
    pub(crate) restart: bool,

    /// Replace an existing package
    #[arg(long, help_heading = "Input and output")]
    pub(crate) overwrite: bool,
}

impl Options {
    /// The recipe with the flags laid over it.
    pub(crate) fn config(&self) -> Result<CompressConfig, Failure> {
        let mut c = match &self.config {
            Some(path) => CompressConfig::from_toml_file(path)?,
            None => CompressConfig::default(),
        };
        macro_rules! lay_over {
            ($($name:ident),+) => { $(if let Some(value) = self.$name { c.$name = value; })+ };
        }
        lay_over!(
            outlier_ratio,
            target_storage_gb,
            quality_threshold,
            quality_monitoring,
            adaptive_precision,
            error_compensation,
            target_ram_mb,
            max_layers_in_ram,
            streaming_enabled,
            prefetch_enabled,
            caching_enabled,
            parallel_processing,
            threads
        );
        if self.codec.is_some() {
            c.codec.clone_from(&self.codec);
        }
        c.rules.extend(self.rules.iter().cloned());
        let target = match (self.ratio, self.bpw, self.target_size) {
            (Some(x), _, _) => Some(Target::Ratio(x)),
            (_, Some(x), _) => Some(Target::Bpw(x)),
            (_, _, Some(n)) => Some(Target::Bytes(n)),
            _ => None,
        };
        c.target = target.or(c.target);
        c.allow_nonfinite |= self.allow_nonfinite;
        c.strict |= self.strict;
        c.restart |= self.restart;
        c.overwrite |= self.overwrite;
        if let Some(n) = self.max_header {
            c.max_header_mb = n.div_ceil(1_000_000);
        }
        if let Some(n) = self.shard_size {
            c.shard_bytes = n;
        }
        c.check()?;
        Ok(c)
    }
}
