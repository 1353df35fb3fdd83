//! Recipes: the options of a compression as a TOML file, read with `--config` and written by `lsb plan`.

use crate::exit::Failure;
use lsb_stream::{CompressConfig, Error};
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
        let unwritable = |e: toml::ser::Error| Failure::usage(format!("not expressible as a recipe: {e}"));
        let mut table = toml::Table::try_from(&self.config).map_err(unwritable)?;
        for option in ["restart", "overwrite"] {
            table.remove(option);
        }
        if !self.quality_asked && !self.config.adaptive_precision {
            table.remove("quality_threshold");
        }
        if !self.storage_asked {
            table.remove("target_storage_gb");
        }
        let text = toml::to_string(&table).map_err(unwritable)?;
        let version = env!("CARGO_PKG_VERSION");
        Ok(format!("# Written by lsb {version}. Use it with: lsb compress MODEL --config FILE\n{text}"))
    }
}
