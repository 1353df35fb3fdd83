//! `lsb compress`

use super::limits::Limits;
use super::options::Options;
use super::parents::Parents;
use super::recipe::Request;
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::progress::{Progress, Unit};
use crate::render::{compress, print, print_json};
use lsb_model::TextCalibration;
use lsb_stream::{CalibrationSource, CompressConfig, CompressReport, LoopCompressor};
use lsb_validate::{QualityTargets, Validator, Verdict, size_measurements};
use std::path::PathBuf;
use std::sync::Arc;

/// Compress a model into a package
///
/// Reads a Hugging Face model directory, a lone .safetensors file, or an id in the local Hub cache, and writes a
/// package directory that appears under its name only when it is complete. Work that was interrupted is taken
/// up again by the same command. Limits that are given are checked against what was measured.
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

    /// Compress only the first N layers and keep the rest as it is: a quick trial
    #[arg(long, value_name = "N", conflicts_with = "dry_run")]
    max_layers: Option<usize>,

    /// Say what would be done, as `lsb plan` does, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// List every tensor in the summary
    #[arg(long)]
    full: bool,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    limits: Limits,
}

impl Args {
    /// What the flags and the recipe amount to.
    pub(super) fn request(&self) -> Result<Request, Failure> {
        let mut request = self.options.request()?;
        if self.output.is_some() {
            request.config.output.clone_from(&self.output);
        }
        Ok(request)
    }
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let request = args.request()?;
    if args.dry_run {
        return super::plan::show(&args.model, request, &args.limits, args.full, common);
    }
    super::refuse_package(&args.model)?;
    let config = request.config;
    let ram_limit = config.target_ram_mb * 1_000_000;
    let targets = args.limits.over(QualityTargets {
        max_storage_gb: request.storage_asked.then_some(config.target_storage_gb),
        max_relative_error_percent: request.quality_asked.then_some(config.quality_threshold),
        ..QualityTargets::none()
    });
    let mut config = config;
    let mut found = None;
    if let Some(percent) = request.max_loss {
        let search = super::search::run(&args.model, &config, percent, common)?;
        let Some(bpw) = search.bpw else {
            return Err(super::search::out_of_reach(&search, percent));
        };
        config.target = Some(lsb_stream::Target::Bpw(bpw));
        found = Some(search);
    }
    let config = config;
    let _parents = config.output.as_deref().map(Parents::of).transpose()?;
    let report = calibrated(config, found.is_some())?
        .with_observer(Box::new(Progress::new(common, Unit::Bytes)))
        .with_check(Arc::new(lsb_model::ConfigCheck))
        .with_interrupt(super::interrupt_flag()?)
        .compress_model(&args.model, args.max_layers)?;
    let verdict = judge(&targets, &report);
    if common.json {
        let mut json = compress::json(&report, &verdict);
        if let (Some(found), Some(json)) = (&found, json.as_object_mut()) {
            json.insert("search".into(), serde_json::json!(found));
        }
        print_json(&json)?;
    } else {
        print(&compress::text(&report, &verdict, ram_limit, args.full))?;
    }
    if verdict.passed { Ok(()) } else { Err(Failure::CheckFailed) }
}

/// A compressor that calibrates on the text or with the saved statistics the options name.
///
/// With `held_out`, without the part of the text that a search judges on.
pub(super) fn calibrated(config: CompressConfig, held_out: bool) -> Result<LoopCompressor, Failure> {
    let source = if held_out {
        let mut text = TextCalibration::from_config(&config)?;
        text.iter_mut().for_each(|t| drop(t.split_held_out()));
        text.map(|t| Arc::new(t) as Arc<dyn CalibrationSource>)
    } else {
        lsb_model::calibration_source(&config)?
    };
    let compressor = LoopCompressor::new(config);
    Ok(match source {
        Some(source) => compressor.with_calibration(source),
        None => compressor,
    })
}

/// Compares what the run measured with the limits. Unmeasured quality meets no limit.
fn judge(targets: &QualityTargets, report: &CompressReport) -> Verdict {
    let mut measurements = size_measurements(report.source_bytes, report.package_bytes, report.weights);
    if let Some(mut quality) = compress::measured(report) {
        measurements.extend(quality.finish());
    }
    targets.judge(&measurements)
}
