//! The options of a compression as flags; they override a recipe given with `--config`.

use super::recipe::{Recipe, Request};
use super::value::{MAX_MB, output_weights, percent, ram_mb, threads};
use crate::exit::Failure;
use crate::render::number::parse_bytes;
use lsb_stream::{AdaptivePrecision, CompressConfig, OutputWeights, Rule, Target};
use std::path::PathBuf;

/// Options shared by `compress` and `plan`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Read options from a TOML recipe; flags given beside it win, rules are added behind its own
    #[arg(long, visible_alias = "recipe", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    quality: Quality,
    #[command(flatten)]
    calibration: Calibration,
    #[command(flatten)]
    resources: Resources,
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "What to store")]
struct Choice {
    /// Codec as ID, ID:VALUE or ID:KEY=VALUE,... (see `lsb codecs`) [default: outlier-binary, or what the
    /// target chooses]
    #[arg(long, value_name = "CODEC")]
    codec: Option<String>,

    /// Codecs the target chooses from, tensor by tensor: the cheapest at the price that a byte has everywhere, such as
    /// trellis,ternary,lossless
    #[arg(long, value_name = "CODEC,...", conflicts_with = "codec")]
    codecs: Option<String>,

    /// Give tensors whose name the pattern finds a codec of their own; repeatable, the last match wins
    #[arg(long = "rule", value_name = "REGEX=CODEC")]
    rules: Vec<Rule>,

    /// Aim for this ratio of source bytes to package bytes
    #[arg(long, value_name = "X", group = "target")]
    ratio: Option<f64>,

    /// Aim for this many bits of package per weight
    #[arg(short, long, value_name = "BITS", group = "target")]
    bpw: Option<f64>,

    /// Aim for a package of this size, such as 2.4GB
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, group = "target")]
    target_size: Option<u64>,

    /// Aim for the smallest package whose perplexity on text held out from calibration rises by at most this many percent
    #[arg(long, value_name = "PERCENT", value_parser = percent, group = "target")]
    max_loss: Option<f64>,

    /// Largest package accepted, in GB; the size to aim for where neither codec nor target is given
    /// [default: 4.0]
    #[arg(long, value_name = "GB")]
    target_storage_gb: Option<f64>,

    /// Share of weights outlier-binary keeps in 16 bits [default: 0.02]
    #[arg(long, value_name = "SHARE")]
    outlier_ratio: Option<f64>,

    /// Let codecs cancel their systematic error [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        hide_possible_values = true
    )]
    error_compensation: Option<bool>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Quality")]
struct Quality {
    /// Largest mean |error| / range accepted, in percent; what adaptive precision aims for [default: 1.0]
    #[arg(long, value_name = "PERCENT")]
    quality_threshold: Option<f64>,

    /// Decode every tile and measure its error [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        hide_possible_values = true
    )]
    quality_monitoring: Option<bool>,

    /// `true`: encode a tensor again, finer, while its error is above the quality threshold. `measured`: insist that what
    /// errors cost is measured with gradients on the calibration text, as codecs made for calibration do where they can
    /// [default: false]
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    adaptive_precision: Option<AdaptivePrecision>,

    /// Keep tensors that hold NaN or infinity raw instead of refusing them
    #[arg(long)]
    allow_nonfinite: bool,
}

/// What linear maps are calibrated on.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Calibration")]
pub(super) struct Calibration {
    /// Text that shows what linear maps are fed with: a file, `default` for the bundled one, or `none`; or statistics
    /// that `lsb calibrate` saved [default: the bundled text for codecs made for calibration, none for others]
    #[arg(long, value_name = "FILE")]
    calib: Option<String>,

    /// Tokens of that text [default: 32768]
    #[arg(long, value_name = "N")]
    calib_tokens: Option<usize>,

    /// Tokens of one sequence; 0 for the model's context, up to 2048, or the longest text that an encoder's tokenizer lets
    /// through [default: 0]
    #[arg(long, value_name = "N")]
    seqlen: Option<usize>,

    /// Seed of everything random in calibration [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// What errors of a map's outputs cost: what `gradients` say, or `equal` for all [default: gradients]
    #[arg(long, value_name = "HOW", value_parser = output_weights)]
    output_weights: Option<OutputWeights>,

    /// Share of the drift of a map's inputs, caused by layers compressed before it, that its weights make up for; above 0
    /// the original runs beside the compressed model [default: 1]
    #[arg(long, value_name = "SHARE")]
    drift: Option<f64>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Memory and time")]
struct Resources {
    /// Memory the process may use, in MB [default: 400]
    #[arg(long, value_name = "MB", value_parser = ram_mb)]
    target_ram_mb: Option<u64>,

    /// Layers that may have weights in memory at once; 0 for any number [default: 1]
    #[arg(long, value_name = "N")]
    max_layers_in_ram: Option<usize>,

    /// Read tensors when needed; false loads the whole model first [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        hide_possible_values = true
    )]
    streaming_enabled: Option<bool>,

    /// Read the next work while computing [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        hide_possible_values = true
    )]
    prefetch_enabled: Option<bool>,

    /// Keep tensors between passes and buffers between tensors [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        hide_possible_values = true
    )]
    caching_enabled: Option<bool>,

    /// Encode tiles on several threads [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        hide_possible_values = true
    )]
    parallel_processing: Option<bool>,

    /// Number of threads; 0 for one per physical core [default: 0]
    #[arg(short, long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Input and output")]
struct Files {
    /// Treat warnings about the input as errors
    #[arg(long)]
    strict: bool,

    /// Largest safetensors header to read, such as 64MB [default: 64MB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    max_header: Option<u64>,

    /// Source bytes per shard of the package, such as 5GB [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    shard_size: Option<u64>,

    /// Discard unfinished work of an earlier run
    #[arg(long)]
    restart: bool,

    /// Replace an existing package
    #[arg(long)]
    overwrite: bool,
}

/// Sets each option that was given.
macro_rules! lay_over {
    ($config:ident, $flags:expr, $($name:ident),+) => {
        $(if let Some(value) = $flags.$name { $config.$name = value; })+
    };
}

impl Calibration {
    /// Sets each option that was given.
    pub(super) fn lay_over(&self, c: &mut CompressConfig) {
        lay_over!(c, self, calib_tokens, seqlen, seed, output_weights, drift);
        if self.calib.is_some() {
            c.calib.clone_from(&self.calib);
        }
    }
}

impl Options {
    /// The recipe with the flags laid over it.
    pub(crate) fn request(&self) -> Result<Request, Failure> {
        let mut recipe = Recipe::read(self.config.as_deref())?;
        let storage_asked = self.choice.target_storage_gb.is_some() || recipe.names("target_storage_gb");
        let quality_asked = self.quality.quality_threshold.is_some() || recipe.names("quality_threshold");
        let c = &mut recipe.config;
        lay_over!(c, self.choice, target_storage_gb, outlier_ratio, error_compensation);
        lay_over!(c, self.quality, quality_threshold, quality_monitoring, adaptive_precision);
        self.calibration.lay_over(c);
        lay_over!(c, self.resources, target_ram_mb, max_layers_in_ram, streaming_enabled, prefetch_enabled);
        lay_over!(c, self.resources, caching_enabled, parallel_processing, threads);
        if self.choice.codec.is_some() {
            c.codec.clone_from(&self.choice.codec);
            c.codecs.clear();
        }
        if let Some(text) = &self.choice.codecs {
            c.codecs = codecs(text);
            c.codec = None;
        }
        c.rules.extend(self.choice.rules.iter().cloned());
        c.target = self.target().or(c.target);
        if storage_asked && c.codec.is_none() && c.target.is_none() {
            c.target = Some(Target::Bytes((c.target_storage_gb * 1e9) as u64));
        }
        c.allow_nonfinite |= self.quality.allow_nonfinite;
        c.strict |= self.files.strict;
        c.restart |= self.files.restart;
        c.overwrite |= self.files.overwrite;
        if let Some(n) = self.files.max_header {
            c.max_header_mb = n.div_ceil(1_000_000);
        }
        if let Some(n) = self.files.shard_size {
            c.shard_bytes = n;
        }
        check(c)?;
        Ok(Request { config: recipe.config, storage_asked, quality_asked, max_loss: self.choice.max_loss })
    }

    fn target(&self) -> Option<Target> {
        let c = &self.choice;
        c.ratio.map(Target::Ratio).or(c.bpw.map(Target::Bpw)).or(c.target_size.map(Target::Bytes))
    }
}

/// Codecs between commas; what has a "=" before any ":" is one more parameter of the codec before it.
fn codecs(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for part in text.split(',') {
        let parameter = part.find('=').is_some_and(|at| part.find(':').is_none_or(|colon| at < colon));
        match out.last_mut() {
            Some(codec) if parameter => *codec = format!("{codec},{part}"),
            _ => out.push(part.to_owned()),
        }
    }
    out
}

/// Checks a recipe's numbers as the flags' own parsers check theirs.
fn check(config: &CompressConfig) -> Result<(), Failure> {
    config.check()?;
    threads(&config.threads.to_string()).map_err(|e| Failure::usage(format!("threads: {e}")))?;
    if config.target_ram_mb > MAX_MB {
        return Err(Failure::usage(format!("target_ram_mb must be at most {MAX_MB}")));
    }
    Ok(())
}
