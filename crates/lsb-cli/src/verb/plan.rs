//! `lsb plan`

use super::limits::Limits;
use super::options::Options;
use super::recipe::Request;
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::{plan, print, print_json};
use lsb_stream::{Error, Target};
use lsb_validate::QualityTargets;
use lsb_validate::feasibility::{Prediction, SourceFacts, feasibility};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Predict size and memory before reading weights
///
/// Says which codec each tensor would get and why, and which of the targets given cannot hold together. A target
/// that cannot hold is an answer and no failure: the exit code is 0.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb plan models/llama --ratio 5.63 --min-snr 40")]
pub(crate) struct Args {
    /// Model directory, .safetensors file, or id in the local Hub cache
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// List every tensor
    #[arg(long)]
    full: bool,

    /// Write a TOML recipe that makes this plan again
    #[arg(long, value_name = "FILE")]
    emit_recipe: Option<PathBuf>,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    limits: Limits,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let request = args.options.request()?;
    let recipe = request.recipe()?;
    show(&args.model, request, &args.limits, args.full, common)?;
    // Only now is the plan known to be possible.
    if let Some(path) = &args.emit_recipe {
        std::fs::write(path, recipe).map_err(Error::io("write", path))?;
    }
    Ok(())
}

/// Plans and prints; also what `compress --dry-run` does.
pub(crate) fn show(model: &Path, request: Request, limits: &Limits, full: bool, common: Common) -> Outcome {
    super::refuse_package(model)?;
    if request.max_loss.is_some() {
        return Err(Failure::usage("--max-loss is found by making packages; `lsb compress` does that"));
    }
    let config = request.config;
    let mut targets = limits.over(QualityTargets {
        max_storage_gb: Some(config.target_storage_gb),
        max_relative_error_percent: request.quality_asked.then_some(config.quality_threshold),
        ..QualityTargets::none()
    });
    match config.target {
        Some(Target::Ratio(x)) => targets.min_ratio = targets.min_ratio.or(Some(x)),
        Some(Target::Bpw(x)) => targets.max_bpw = targets.max_bpw.or(Some(x)),
        Some(Target::Bytes(n)) => targets.max_storage_gb = Some(n as f64 / 1e9),
        None => {}
    }
    let made = super::compress::calibrated(config, false)?
        .with_check(Arc::new(lsb_model::ConfigCheck))
        .plan(model)?;
    let judged = feasibility(&targets, &SourceFacts::from(&made), Some(&Prediction::from(&made)));
    if common.json {
        return print_json(&plan::json(&made, &judged));
    }
    print(&plan::text(&made, &judged, full))
}
