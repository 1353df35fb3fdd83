//! What the user asked for: every option by its public name, from TOML or set in code.

use crate::{Error, Result};
use lsb_quant::{Parameters, Value};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Options of a compression. Defaults are those of the struct's [`Default`].
///
/// In TOML the names are the field names; an unknown name is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CompressConfig {
    /// Package directory to make; `None` means `NAME-lsb` in the current directory.
    pub output: Option<PathBuf>,
    /// Codec of every tensor no rule names, as `id`, `id:value` or `id:key=value,...`.
    /// `None` lets the target choose, or `outlier-binary` where there is no target.
    pub codec: Option<String>,
    /// Codecs a target chooses from, tensor by tensor, where `codec` is `None`; all there are where this is empty too.
    pub codecs: Vec<String>,
    /// Rules in order; the last one that matches a tensor's name wins.
    pub rules: Vec<Rule>,
    /// Size to reach; at most one of the three.
    pub target: Option<Target>,
    /// Share of weights `outlier-binary` keeps in 16 bits, where its own parameter is not given.
    pub outlier_ratio: f64,
    /// Memory the process may use, in MB (10^6 bytes), as the operating system counts it.
    pub target_ram_mb: u64,
    /// Largest package a verdict accepts, in GB (10^9 bytes). The command also takes it as the size to reach
    /// where it was asked for and neither a codec nor another target was.
    pub target_storage_gb: f64,
    /// Largest quality loss the verdict accepts, in percent.
    pub quality_threshold: f64,
    /// How many layers may have weights in memory at once; 0 means any number.
    pub max_layers_in_ram: usize,
    /// Read tensors when they are needed. `false` loads the whole model first, and is refused where the
    /// budget cannot hold it.
    pub streaming_enabled: bool,
    /// Decode every tile after encoding it, compare it with the source, and report the error. `false`
    /// saves the time and leaves the report without quality figures.
    pub quality_monitoring: bool,
    /// Whether tensors' precision follows what was measured of them.
    pub adaptive_precision: AdaptivePrecision,
    /// Read the next work while the current one is computed.
    pub prefetch_enabled: bool,
    /// Let codecs correct their own systematic error where they can without calibration (means stored and
    /// refitted so that the errors of a group cancel), where their own parameter is not given.
    pub error_compensation: bool,
    /// Encode the tiles of a tensor on several threads.
    pub parallel_processing: bool,
    /// Keep a tensor in memory between passes, and buffers between tensors. `false` reads again.
    pub caching_enabled: bool,
    /// Threads for parallel work; 0 means [`crate::default_threads`].
    pub threads: usize,
    /// Keep tensors that hold NaN or infinity in `raw` instead of refusing them.
    pub allow_nonfinite: bool,
    /// Treat warnings about the input as errors.
    pub strict: bool,
    /// Source bytes after which the package starts a new shard.
    pub shard_bytes: u64,
    /// Discard unfinished work of an earlier run.
    pub restart: bool,
    /// Replace an existing output.
    pub overwrite: bool,
    /// Largest safetensors header to read, in MB.
    pub max_header_mb: u64,
    /// Calibration text: a file, `none`, or `default` for the text that comes with the program. Absent, the default text is
    /// used by codecs that are made for calibration, and by no others.
    pub calib: Option<String>,
    /// Tokens of calibration text.
    pub calib_tokens: usize,
    /// Tokens of one sequence of calibration text; 0 means the model's context, up to 2048, and of an encoder what its
    /// tokenizer lets through.
    pub seqlen: usize,
    /// Seed of everything random in calibration.
    pub seed: u64,
    /// What errors of a map's outputs cost.
    pub output_weights: OutputWeights,
    /// Share of the drift of a map's inputs, which layers compressed before it caused, that its weights make up for: 0 to 1.
    /// Above 0 the original runs beside the compressed model.
    pub drift: f64,
}

/// Whether tensors' precision follows what was measured of them. In TOML `false`, `true` or `"measured"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Precision", into = "Precision")]
pub enum AdaptivePrecision {
    /// The codec alone decides.
    #[default]
    Off,
    /// A tensor is encoded again, finer, while its error is above `quality_threshold`.
    Threshold,
    /// What errors cost is measured with gradients on the calibration text, or the run is refused. Codecs made for
    /// calibration do so by default where they can.
    Measured,
}

/// How TOML writes an [`AdaptivePrecision`].
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Precision {
    Flag(bool),
    Word(String),
}

impl From<AdaptivePrecision> for Precision {
    fn from(adaptive: AdaptivePrecision) -> Self {
        match adaptive {
            AdaptivePrecision::Off => Precision::Flag(false),
            AdaptivePrecision::Threshold => Precision::Flag(true),
            AdaptivePrecision::Measured => Precision::Word("measured".into()),
        }
    }
}

impl TryFrom<Precision> for AdaptivePrecision {
    type Error = String;

    fn try_from(written: Precision) -> Result<Self, String> {
        match written {
            Precision::Flag(flag) => Ok(flag.into()),
            Precision::Word(word) => word.parse(),
        }
    }
}

impl From<bool> for AdaptivePrecision {
    fn from(flag: bool) -> Self {
        if flag { AdaptivePrecision::Threshold } else { AdaptivePrecision::Off }
    }
}

impl FromStr for AdaptivePrecision {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "false" => Ok(AdaptivePrecision::Off),
            "true" => Ok(AdaptivePrecision::Threshold),
            "measured" => Ok(AdaptivePrecision::Measured),
            _ => Err(format!("adaptive precision is true, false or measured, not \"{s}\"")),
        }
    }
}

/// What errors of a map's outputs cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputWeights {
    /// What gradients say that the model minds.
    #[default]
    Gradients,
    /// All outputs of a map the same, in units of their mean square: the best signal-to-noise ratio of the outputs, which is
    /// not the best model. Needs no backward pass.
    Equal,
}

impl Default for CompressConfig {
    fn default() -> Self {
        CompressConfig {
            output: None,
            codec: None,
            codecs: Vec::new(),
            rules: Vec::new(),
            target: None,
            outlier_ratio: 0.02,
            target_ram_mb: 400,
            target_storage_gb: 4.0,
            quality_threshold: 1.0,
            max_layers_in_ram: 1,
            streaming_enabled: true,
            quality_monitoring: true,
            adaptive_precision: AdaptivePrecision::Off,
            prefetch_enabled: true,
            error_compensation: true,
            parallel_processing: true,
            caching_enabled: true,
            threads: 0,
            allow_nonfinite: false,
            strict: false,
            shard_bytes: 5_000_000_000,
            restart: false,
            overwrite: false,
            max_header_mb: 64,
            calib: None,
            calib_tokens: 32768,
            seqlen: 0,
            seed: 0,
            output_weights: OutputWeights::default(),
            drift: 1.0,
        }
    }
}

impl CompressConfig {
    /// Reads a TOML recipe.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML, or names an option that does not exist.
    pub fn from_toml_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::from_toml(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))
    }

    /// Parses a TOML recipe.
    ///
    /// # Errors
    /// If it is not TOML, or names an option that does not exist.
    pub fn from_toml(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| Error::Config(e.to_string()))
    }

    /// Checks what types cannot.
    ///
    /// # Errors
    /// If a number is out of range.
    pub fn check(&self) -> Result<()> {
        let bad = |what: &str| Err(Error::Config(what.to_owned()));
        if !(0.0..=0.5).contains(&self.outlier_ratio) {
            return bad("outlier_ratio must be 0 to 0.5");
        }
        if !(0.0..=1.0).contains(&self.drift) {
            return bad("drift must be 0 to 1");
        }
        if self.target_ram_mb < 32 {
            return bad("target_ram_mb must be at least 32");
        }
        if self.target_storage_gb.is_nan() || self.target_storage_gb <= 0.0 {
            return bad("target_storage_gb must be above 0");
        }
        if self.quality_threshold.is_nan() || self.quality_threshold < 0.0 {
            return bad("quality_threshold must be 0 or more");
        }
        if self.target_ram_mb > 1_000_000_000 {
            return bad("target_ram_mb must be at most 1000000000");
        }
        if self.shard_bytes == 0 || self.max_header_mb == 0 || self.max_header_mb > 1000 {
            return bad("shard_bytes must be at least 1 and max_header_mb 1 to 1000");
        }
        if self.codec.is_some() && !self.codecs.is_empty() {
            return bad("codec and codecs exclude each other");
        }
        if self.adaptive_precision == AdaptivePrecision::Measured
            && (self.calib.as_deref() == Some("none") || self.output_weights == OutputWeights::Equal)
        {
            return bad(
                "adaptive_precision = \"measured\" needs calibration, and output_weights = \"gradients\"",
            );
        }
        if let Some(Target::Ratio(x) | Target::Bpw(x)) = self.target
            && !(x.is_finite() && x > 0.0)
        {
            return bad("a target must be above 0");
        }
        Ok(())
    }
}

/// The size a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Source bytes over package bytes.
    Ratio(f64),
    /// Bits of package per weight of the model.
    Bpw(f64),
    /// Package bytes.
    Bytes(u64),
}

/// One rule: tensors whose name the pattern finds get this codec.
///
/// Written `regex=codec` or `regex=codec:key=value,...`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    /// Regular expression searched in the tensor's name.
    pub pattern: String,
    /// Codec as `id`, `id:value` or `id:key=value,...`.
    pub codec: String,
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        // The codec id holds no "=", so the last "=" before the id's ":" ends the pattern.
        let head = s.find(":").map_or(s.len(), |_| {
            // Only a colon that follows an "=" can start the parameters; patterns may hold colons too.
            s.match_indices(':').map(|(i, _)| i).find(|&i| s[..i].contains('=')).unwrap_or(s.len())
        });
        let split = s[..head].rfind('=');
        match split {
            Some(at) if at > 0 && at + 1 < s.len() => {
                regex::Regex::new(&s[..at]).map_err(|e| Error::Config(format!("rule \"{s}\": {e}")))?;
                Ok(Rule { pattern: s[..at].to_owned(), codec: s[at + 1..].to_owned() })
            }
            _ => Err(Error::Config(format!(
                "rule \"{s}\": write it as regex=codec or regex=codec:key=value,..."
            ))),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = Error;

    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Rule> for String {
    fn from(r: Rule) -> String {
        r.to_string()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.codec)
    }
}

/// Adds the options that stand for codec parameters, where the codec has them and they are not given.
pub(crate) fn with_option_defaults(
    config: &CompressConfig,
    entry: &lsb_quant::CodecEntry,
    mut given: Parameters,
) -> Parameters {
    let options: [(&str, Value); 2] = [
        ("outlier_ratio", config.outlier_ratio.into()),
        ("error_compensation", config.error_compensation.into()),
    ];
    for (name, value) in options {
        if given.get(name).is_none() && entry.parameters.iter().any(|p| p.name == name) {
            given.set(name, value);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_split_at_the_codec_whatever_the_pattern_holds() {
        for (text, pattern, codec) in [
            ("norm=raw", "norm", "raw"),
            ("mlp.*=rtn:bits=4,group=64", "mlp.*", "rtn:bits=4,group=64"),
            ("(?:q|k)_proj=rtn:4", "(?:q|k)_proj", "rtn:4"),
            ("a=b=ternary", "a=b", "ternary"),
        ] {
            let rule: Rule = text.parse().unwrap();
            assert_eq!((rule.pattern.as_str(), rule.codec.as_str()), (pattern, codec));
            assert_eq!(rule.to_string(), text);
        }
        for text in ["", "x", "=raw", "x=", "(=raw"] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }

    #[test]
    fn toml_takes_every_option_and_refuses_unknown_ones() {
        let config = CompressConfig {
            codec: Some("rtn:4".into()),
            rules: vec!["norm=raw".parse().unwrap()],
            output_weights: OutputWeights::Equal,
            target: Some(Target::Ratio(5.63)),
            ..Default::default()
        };
        let text = toml::to_string(&config).unwrap();
        assert_eq!(CompressConfig::from_toml(&text).unwrap(), config);
        for adaptive in [AdaptivePrecision::Off, AdaptivePrecision::Threshold, AdaptivePrecision::Measured] {
            let config = CompressConfig { adaptive_precision: adaptive, ..Default::default() };
            assert_eq!(CompressConfig::from_toml(&toml::to_string(&config).unwrap()).unwrap(), config);
        }
        assert!(CompressConfig::from_toml("adaptive_precision = \"often\"").is_err());
        assert!(
            CompressConfig::from_toml("outlier_ration = 0.1")
                .unwrap_err()
                .to_string()
                .contains("outlier_ration")
        );
    }
}
