//! `lsb compress`

use super::limits::Limits;
use super::options::Options;
use super::parents::Parents;
use super::recipe::Request;
use super::tune::{Training, Work};
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::progress::{Progress, Unit};
use crate::render::{compress, print, print_json, tune as render_tune};
use lsb_model::{ModelRunner, RunOptions, TextCalibration};
use lsb_quant::Registry;
use lsb_stream::{Budget, CalibrationSource, CompressConfig, CompressReport, LoopCompressor, Target};
use lsb_validate::{QualityTargets, Validator, Verdict, size_measurements};
use std::path::{Path, PathBuf};
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

    /// Train what is left to train once weights are coded: `scales` of rows and columns, against the original's
    /// predictions on the calibration text, as `lsb tune` does
    #[arg(long, value_name = "WHAT", conflicts_with_all = ["max_layers", "dry_run", "max_loss"])]
    tune: Option<Tune>,

    /// Steps of training at most [default: 200]
    #[arg(long, value_name = "N", requires = "tune")]
    tune_steps: Option<usize>,

    /// Write a TOML recipe with a line for every tensor: what it was stored with, to be changed and used again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "max_layers"])]
    emit_recipe: Option<PathBuf>,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    limits: Limits,
}

/// What can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Tune {
    /// Factors of rows and columns.
    Scales,
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

    fn write_recipe(&self, request: &Request, report: &CompressReport) -> Outcome {
        let Some(path) = &self.emit_recipe else { return Ok(()) };
        let _parents = Parents::of(path)?;
        std::fs::write(path, request.recipe_of(report)?).map_err(lsb_stream::Error::io("write", path))?;
        Ok(())
    }
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let request = args.request()?;
    if args.dry_run {
        return super::plan::show(&args.model, request, &args.limits, args.full, common);
    }
    super::refuse_package(&args.model)?;
    let config = request.config.clone();
    // A search and training run on the pool of the process.
    super::threads::start(if config.parallel_processing { config.threads } else { 1 })?;
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
    if args.tune.is_some() {
        return tuned(args, config, &request, &targets, common);
    }
    let _parents = config.output.as_deref().map(Parents::of).transpose()?;
    let report = calibrated(config, found.is_some())?
        .with_observer(Box::new(Progress::new(common, Unit::Bytes)))
        .with_check(Arc::new(lsb_model::ConfigCheck))
        .with_interrupt(super::interrupt_flag()?)
        .compress_model(&args.model, args.max_layers)?;
    args.write_recipe(&request, &report)?;
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

/// Compresses beside the output, then trains the scales of that into the output.
fn tuned(
    args: &Args,
    config: CompressConfig,
    request: &Request,
    targets: &QualityTargets,
    common: Common,
) -> Outcome {
    let Some(output) = config.output.clone() else {
        return Err(Failure::usage("--tune needs to know where to: give --output"));
    };
    if output.exists() && !config.overwrite {
        let message = format!("{} already exists; use --overwrite to replace it", output.display());
        return Err(Failure::refused(message));
    }
    let _parents = Parents::of(&output)?;
    let ram_mb = config.target_ram_mb;
    let mut training = Training::of(&config, args.tune_steps);
    if lsb_model::SavedCalibration::from_config(&config)?.is_some() {
        // Statistics are no text to train on.
        training.use_bundled_text();
    }
    let overwrite = config.overwrite;
    let mut draft = output.clone().into_os_string();
    draft.push(".untuned");
    let draft = PathBuf::from(draft);
    let mut config = with_room(config, &args.model)?;
    config.output = Some(draft.clone());
    // What an interrupted run left there is taken over if it is the same, and is ours to replace if not.
    config.overwrite = true;
    let mut report = calibrated(config, false)?
        .with_observer(Box::new(Progress::new(common, Unit::Bytes)))
        .with_check(Arc::new(lsb_model::ConfigCheck))
        .with_interrupt(super::interrupt_flag()?)
        .compress_model(&args.model, None)?;
    args.write_recipe(request, &report)?;

    let budget = Budget::for_process(ram_mb);
    let open = |path: &Path| {
        let options = RunOptions { activation_bytes: Some(budget.limit() / 4), ..RunOptions::default() };
        ModelRunner::open(path, &Registry::standard(), &budget, &options)
    };
    let (teacher, student) = (open(&args.model)?, open(&draft)?);
    let work = Work { package: &draft, output: &output, overwrite, training: &training };
    let made = super::tune::make(&work, &student, &teacher, common)?;
    drop((teacher, student));
    std::fs::remove_dir_all(&draft).map_err(lsb_stream::Error::io("remove", &draft))?;
    report.package.clone_from(&output);
    report.package_bytes = made.retouched.package_bytes;
    report.peak_rss_bytes = lsb_stream::peak_rss_bytes();
    let verdict = judge(targets, &report);
    if common.json {
        let mut json = compress::json(&report, &verdict);
        json["tune"] = render_tune::json(&made.tuned, &made.retouched, made.side_bytes);
        print_json(&json)?;
    } else {
        let text = compress::text(&report, &verdict, ram_mb * 1_000_000, args.full);
        print(&(text + "\n" + &render_tune::text(&made.tuned, &made.retouched, made.side_bytes)))?;
    }
    if verdict.passed { Ok(()) } else { Err(Failure::CheckFailed) }
}

/// The same with a target that leaves room for finer scales.
fn with_room(mut config: CompressConfig, model: &Path) -> Result<CompressConfig, Failure> {
    let Some(target) = config.target else { return Ok(config) };
    let plan = calibrated(config.clone(), false)?.plan(model)?;
    let tuned = plan.tensors.iter().filter(|t| t.codec == "trellis" && t.same_as.is_none());
    let grown: f64 = tuned
        .map(|t| lsb_quant::MatrixInfo::of_shape(&t.shape, t.dtype))
        .map(|m| super::tune::growth(m.rows, m.cols))
        .sum();
    let source = plan.source_bytes as f64;
    config.target = Some(match target {
        Target::Bpw(bpw) => Target::Bpw(bpw - 8.0 * grown / plan.weights.max(1) as f64),
        Target::Ratio(ratio) => Target::Ratio(source / (source / ratio - grown).max(1.0)),
        Target::Bytes(n) => Target::Bytes(n.saturating_sub(grown as u64)),
    });
    Ok(config)
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
