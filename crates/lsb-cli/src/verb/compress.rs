//! `lsb compress`

use super::options::Options;
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::progress::Progress;
use crate::render::report::{compress_json, compress_text};
use crate::render::{print, print_json};
use lsb_stream::LoopCompressor;
use std::path::PathBuf;
use std::sync::Arc;

/// Compress a model into a package
///
/// Reads a Hugging Face model directory, a lone .safetensors file, or an id in the local Hub cache. Work that
/// was interrupted is taken up again by the same command.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  lsb compress models/llama -o out/llama --ratio 5.63 --rule 'lm_head=rtn:4'"
)]
pub(crate) struct Args {
    /// Model directory, .safetensors file, or id in the local Hub cache
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// Package directory to make [default: NAME-lsb]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Compress only the first N layers and keep the rest as it is
    #[arg(long, value_name = "N")]
    max_layers: Option<usize>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// List every tensor in the summary
    #[arg(long)]
    full: bool,

    #[command(flatten)]
    options: Options,
}

#[cfg(test)]
impl Args {
    /// What the flags and the recipe amount to.
    pub(super) fn config_for_tests(&self) -> lsb_stream::CompressConfig {
        self.options.config().unwrap()
    }
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let mut config = args.options.config()?;
    if args.output.is_some() {
        config.output.clone_from(&args.output);
    }
    if args.dry_run {
        return super::plan::show(&args.model, config, &Default::default(), args.full, common);
    }
    let ram_limit = config.target_ram_mb * 1_000_000;
    // The default of the storage limit only informs; one that was asked for is a check.
    let storage_limit = args.options.target_storage_gb.or_else(|| {
        let recipe = args.options.config.is_some() && config.target_storage_gb != 4.0;
        recipe.then_some(config.target_storage_gb)
    });
    let report = LoopCompressor::new(config)
        .with_observer(Box::new(Progress::new(common.quiet || common.json)))
        .with_check(Arc::new(lsb_model::ConfigCheck))
        .with_interrupt(super::interrupt_flag()?)
        .compress_model(&args.model, args.max_layers)?;
    if common.json {
        print_json(&compress_json(&report))?;
    } else {
        print(&compress_text(&report, ram_limit, args.full))?;
    }
    match storage_limit {
        Some(gb) if report.package_bytes as f64 > gb * 1e9 => {
            eprintln!("check failed: the package has {} bytes, above {gb} GB", report.package_bytes);
            Err(Failure::CheckFailed)
        }
        _ => Ok(()),
    }
}
