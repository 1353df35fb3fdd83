//! Recipes: the options of a compression as a TOML file, read with `--config` and written by `lsb plan` and `lsb compress`.

use crate::exit::Failure;
use lsb_quant::Registry;
use lsb_stream::{AdaptivePrecision, CompressConfig, CompressReport, Error, Rule, TensorReport};
use std::collections::BTreeSet;
use std::path::Path;

/// A recipe and which options it names. A default that nobody asked for is no check.
#[derive(Debug, Default)]
pub(crate) struct Recipe {
    /// All options.
    pub(crate) config: CompressConfig,
    named: BTreeSet<String>,
}

impl Recipe {
    /// Reads the recipe at `path`; without one, the defaults.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Recipe::default()) };
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let bad = |e: String| Failure::usage(format!("{}: {}", path.display(), e.trim_end()));
        let config = CompressConfig::from_toml(&text).map_err(|e| bad(e.to_string()))?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| bad(e.to_string()))?;
        Ok(Recipe { config, named: table.keys().cloned().collect() })
    }

    /// True where the file names this option.
    pub(crate) fn names(&self, option: &str) -> bool {
        self.named.contains(option)
    }
}

/// A compression as it was asked for.
#[derive(Debug)]
pub(crate) struct Request {
    /// All options, flags laid over the recipe.
    pub(crate) config: CompressConfig,
    /// The storage limit was asked for, so it is a check.
    pub(crate) storage_asked: bool,
    /// The quality threshold was asked for, so it is a check.
    pub(crate) quality_asked: bool,
    /// The loss of perplexity, in percent, that the smallest package is searched for.
    pub(crate) max_loss: Option<f64>,
}

impl Request {
    /// A recipe that asks for the same again. What is about one run (`restart`, `overwrite`) stays out, and
    /// so do limits nobody asked for, because a recipe that names them makes them checks.
    pub(crate) fn recipe(&self) -> Result<String, Failure> {
        self.written(&self.config, "")
    }

    /// A recipe with a line for every tensor of a package that was made: what it is stored with, and at which step. It makes
    /// the tensors again without a search; lines can be changed, and used for other models with such tensors.
    pub(crate) fn recipe_of(&self, report: &CompressReport) -> Result<String, Failure> {
        let mut config = self.config.clone();
        (config.target, config.codecs) = (None, Vec::new());
        config.codec = Some("raw".into());
        config.rules = report
            .tensors
            .iter()
            .filter(|t| t.codec != "raw" && t.same_as.is_none())
            .map(|t| Rule { pattern: format!("^{}$", regex::escape(&t.name)), codec: spelled(t) })
            .collect();
        let header =
            "# A line for each tensor: the codec it got, and its step (tau) where a target set that.\n";
        self.written(&config, header)
    }

    fn written(&self, config: &CompressConfig, header: &str) -> Result<String, Failure> {
        let unwritable = |e: toml::ser::Error| Failure::usage(format!("not expressible as a recipe: {e}"));
        let mut table = toml::Table::try_from(config).map_err(unwritable)?;
        for option in ["restart", "overwrite"] {
            table.remove(option);
        }
        if config.codecs.is_empty() {
            table.remove("codecs");
        }
        if !self.quality_asked && self.config.adaptive_precision != AdaptivePrecision::Threshold {
            table.remove("quality_threshold");
        }
        if !self.storage_asked {
            table.remove("target_storage_gb");
        }
        let text = toml::to_string_pretty(&table).map_err(unwritable)?;
        let version = env!("CARGO_PKG_VERSION");
        Ok(format!(
            "# Written by lsb {version}. Use it with: lsb compress MODEL --config FILE\n{header}{text}"
        ))
    }
}

/// A tensor's codec as a rule writes it, at the step it got.
fn spelled(tensor: &TensorReport) -> String {
    let at = |tau: f64| {
        let codec = Registry::standard().build(&tensor.codec, &tensor.parameters).ok()?;
        Some(codec.rate_control()?.at(tau).parameters())
    };
    let parameters = tensor.tau.and_then(at).unwrap_or_else(|| tensor.parameters.clone());
    if parameters.is_empty() { tensor.codec.clone() } else { format!("{}:{parameters}", tensor.codec) }
}
