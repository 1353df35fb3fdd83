//! The options of a forward pass as flags.

use super::threads::Threads;
use super::value::ram_mb;
use crate::exit::Failure;
use lsb_model::{CacheType, ModelRunner, RunOptions};
use lsb_quant::Registry;
use lsb_stream::Budget;
use std::path::{Path, PathBuf};

/// Options of every verb that runs a model.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Resources")]
pub(crate) struct Running {
    /// Memory the process may use, in MB
    #[arg(long, value_name = "MB", value_parser = ram_mb, default_value_t = 400)]
    pub(crate) target_ram_mb: u64,

    /// Layers whose weights may be in memory at once; 0 means any number
    #[arg(long, value_name = "N", default_value_t = 1)]
    max_layers_in_ram: usize,

    /// Read the next weights while the current ones are used
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_value_t = true,
        default_missing_value = "true",
        require_equals = true,
        hide_possible_values = true,
        action = clap::ArgAction::Set
    )]
    prefetch_enabled: bool,

    /// Keep all weights in memory where the budget holds them
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_value_t = true,
        default_missing_value = "true",
        require_equals = true,
        hide_possible_values = true,
        action = clap::ArgAction::Set
    )]
    caching_enabled: bool,

    /// Folder for activations that do not fit the memory [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<PathBuf>,

    #[command(flatten)]
    threads: Threads,
}

impl Running {
    /// The budget, and threads as asked for. Called once, before any work.
    pub(crate) fn begin(&self) -> Result<Budget, Failure> {
        self.threads.start()?;
        Ok(Budget::for_process(self.target_ram_mb))
    }

    fn options(&self, models: u64, budget: &Budget) -> RunOptions {
        RunOptions {
            activation_bytes: Some(budget.limit() / (2 * models)),
            max_layers_in_ram: self.max_layers_in_ram,
            prefetch: self.prefetch_enabled,
            caching: self.caching_enabled,
            spill: self.spill_dir.clone(),
            ..RunOptions::default()
        }
    }

    /// The same for a model that generates text, in one session of up to `context` tokens.
    pub(crate) fn open_to_generate(
        &self,
        path: &Path,
        budget: &Budget,
        context: usize,
        cache: CacheType,
    ) -> Result<ModelRunner, Failure> {
        let session = Some((context, cache));
        let options =
            RunOptions { unpacked: true, session, activation_bytes: None, ..self.options(1, budget) };
        Ok(ModelRunner::open(path, &Registry::standard(), budget, &options)?)
    }

    /// The model or package at `path`, one of `models` that share the budget.
    pub(crate) fn open(&self, path: &Path, budget: &Budget, models: u64) -> Result<ModelRunner, Failure> {
        Ok(ModelRunner::open(path, &Registry::standard(), budget, &self.options(models, budget))?)
    }
}
