//! `lsb validate`

use super::limits::Limits;
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::number::decibel;
use crate::render::progress::Progress;
use crate::render::table::Table;
use crate::render::{print, print_json};
use lsb_quant::Registry;
use lsb_stream::package::Package;
use lsb_stream::source::{Model, OpenOptions};
use lsb_stream::{Budget, CompressConfig, Error, open_weights};
use lsb_validate::{Compare, QualityTargets, QualityValidator, Validator, Verdict, size_measurements};
use serde_json::json;
use std::path::PathBuf;

/// Measure a package against its original and judge it
///
/// Walks both side by side in the memory budget, and compares what was measured with every limit. Exits with
/// 3 if a limit is missed or a tensor is not what it should be.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  lsb validate out/llama --against models/llama --min-snr 15 --min-correlation 0.98"
)]
pub(crate) struct Args {
    /// Package directory
    #[arg(value_name = "PACKAGE")]
    package: PathBuf,

    /// The original model
    #[arg(long, value_name = "MODEL")]
    against: PathBuf,

    /// Read target_ram_mb, target_storage_gb and quality_threshold from a TOML recipe
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Memory the process may use, in MB [default: 400]
    #[arg(long, value_name = "MB")]
    target_ram_mb: Option<u64>,

    /// List every tensor
    #[arg(long)]
    full: bool,

    #[command(flatten)]
    limits: Limits,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let config = match &args.config {
        Some(path) => CompressConfig::from_toml_file(path)?,
        None => CompressConfig::default(),
    };
    let base = QualityTargets {
        max_relative_error_percent: Some(config.quality_threshold),
        max_storage_gb: args.config.is_some().then_some(config.target_storage_gb),
        ..QualityTargets::none()
    };
    let targets = args.limits.over(base);
    let budget = Budget::for_process(args.target_ram_mb.unwrap_or(config.target_ram_mb));
    let registry = Registry::standard();
    let options = OpenOptions::default();

    let source_bytes = Model::open(&args.against, &options)?.weight_bytes();
    let package = Package::open(&args.package)?;
    let manifest = package.manifest();
    let package_bytes = manifest.render().map_err(Error::from)?.len() as u64
        + manifest.shards.iter().map(|s| s.bytes).sum::<u64>();
    let weights = manifest.weights;
    let original = open_weights(&args.against, &registry, &options)?;
    let decoded = open_weights(&args.package, &registry, &options)?;

    let progress = Progress::new(common.quiet || common.json);
    let mut quality = QualityValidator::new();
    let comparison = Compare::new(&*original, &*decoded, &budget)
        .validator(&mut quality)
        .on_progress(|p| progress.set(p.done, p.total, p.tensor))
        .run()?;
    progress.finish();
    let figures = quality.report();
    let mut measurements = quality.finish();
    measurements.extend(comparison.measurements());
    measurements.extend(size_measurements(source_bytes, package_bytes, weights));
    let verdict = targets.judge(&measurements);
    let defects: Vec<_> = comparison.defects().collect();
    let passed = verdict.passed && defects.is_empty();

    if common.json {
        let defects: Vec<_> =
            defects.iter().map(|(t, why)| json!({"tensor": t.name, "explanation": why})).collect();
        let mut all = json!(verdict);
        all["passed"] = json!(passed);
        all["defects"] = json!(defects);
        all["measurements"] = json!(measurements);
        all["weights"] = json!(figures);
        print_json(&all)?;
    } else {
        let mut table = Table::new(&["", "codec", ">weight SNR dB", ">|error|/range %", ">correlation"]);
        let mut add = |name: &str, codec: &str, e: &lsb_validate::WeightError| {
            table.row(vec![
                lsb_format::escape(name),
                codec.to_owned(),
                decibel(e.weight_snr_db),
                format!("{:.4}", e.relative_error_percent),
                e.correlation.map_or("undefined".into(), |c| format!("{c:.6}")),
            ]);
        };
        if args.full {
            figures.tensors.iter().for_each(|t| add(&t.name, &t.codec, &t.error));
        } else {
            figures.layers.iter().for_each(|l| add(&l.layer, "", &l.error));
        }
        add("model", "", &figures.model);
        let mut out = table.render();
        for (tensor, why) in &defects {
            out += &format!("defect: tensor \"{}\": {why}\n", lsb_format::escape(&tensor.name));
        }
        print(&(out + &verdict_text(&verdict)))?;
    }
    if passed { Ok(()) } else { Err(Failure::CheckFailed) }
}

fn verdict_text(verdict: &Verdict) -> String {
    let mut out = String::from("\n");
    for check in &verdict.checks {
        out += &format!("{} {}\n", if check.passed { "pass" } else { "FAIL" }, check.explanation);
    }
    if verdict.checks.is_empty() {
        out += "no limits were given: nothing was judged\n";
    }
    out
}
