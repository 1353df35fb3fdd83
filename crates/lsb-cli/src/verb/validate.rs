//! `lsb validate`

use super::limits::Limits;
use super::recipe::Recipe;
use super::text::{Cut, read, sentences};
use super::threads::Threads;
use super::value::ram_mb;
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::number::bytes;
use crate::render::package::package_bytes;
use crate::render::progress::{Progress, Unit};
use crate::render::table::Table;
use crate::render::{embeddings, evaluation, figures, print, print_json};
use lsb_format::escape;
use lsb_model::{ModelRunner, Pooling, RunOptions};
use lsb_quant::Registry;
use lsb_stream::package::Package;
use lsb_stream::source::{Model, OpenOptions};
use lsb_stream::{Budget, open_weights, peak_rss_bytes};
use lsb_validate::evaluate::{
    EmbeddingEvaluation, EvaluateOptions, EvaluateProgress, Evaluation, evaluate, evaluate_embeddings,
};
use lsb_validate::{
    Compare, Limit, Measurement, QualityTargets, QualityValidator, Validator, Verdict, WeightReport,
    size_measurements,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Measure a package against its original and judge it
///
/// Walks both side by side in the memory budget, and compares what was measured with every limit. Exits with 3
/// if a limit is missed or a tensor is not what it should be. Without limits of your own the relative error is
/// judged, by the recipe's quality_threshold or 1 percent.
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
    #[arg(long, value_name = "MB", value_parser = ram_mb)]
    target_ram_mb: Option<u64>,

    #[command(flatten)]
    threads: Threads,

    /// Also run both over this text (a UTF-8 file) and judge what the model predicts; with an encoder, the vectors of its
    /// lines
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,

    #[command(flatten)]
    cut: Cut,

    /// List every tensor
    #[arg(long)]
    full: bool,

    #[command(flatten)]
    limits: Limits,
}

/// What was found.
struct Judged {
    verdict: Verdict,
    /// Tensors that are missing, of another shape, or damaged in a way no limit speaks of.
    defects: Vec<(String, String)>,
    figures: WeightReport,
    measurements: Vec<Measurement>,
    evaluation: Option<OnText>,
}

/// What running both over a text gave.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum OnText {
    Predictions(Box<Evaluation>),
    Embeddings(Box<EmbeddingEvaluation>),
}

impl OnText {
    fn measurements(&self) -> Vec<Measurement> {
        match self {
            OnText::Predictions(found) => found.measurements(),
            OnText::Embeddings(found) => found.measurements(),
        }
    }

    /// What `quality_threshold`, in percent, is named for: the growth of the perplexity, or the cosine that is lost.
    fn limit(&self, threshold: f64) -> Limit {
        match self {
            OnText::Predictions(_) => Limit::at_most("perplexity_loss_percent", threshold),
            OnText::Embeddings(_) => Limit::at_least("embedding_cosine_mean", 1.0 - threshold / 100.0),
        }
    }

    fn text(&self) -> String {
        match self {
            OnText::Predictions(found) => evaluation::figures(found),
            OnText::Embeddings(found) => embeddings::figures(found),
        }
    }
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    args.threads.start()?;
    let judged = judge(args, common)?;
    let passed = judged.verdict.passed;
    if common.json {
        print_json(&judged.json())?;
    } else {
        print(&judged.text(args.full))?;
    }
    if passed { Ok(()) } else { Err(Failure::CheckFailed) }
}

fn judge(args: &Args, common: Common) -> Result<Judged, Failure> {
    let recipe = Recipe::read(args.config.as_deref())?;
    let config = &recipe.config;
    config.check()?;
    let budget = Budget::for_process(args.target_ram_mb.unwrap_or(config.target_ram_mb));
    let evaluation = args.text.as_ref().map(|text| run_both(args, text, &budget, common)).transpose()?;
    let defects = Limit::at_most("defective_tensors", 0.0);
    let on_text = evaluation.iter().map(|found| found.limit(config.quality_threshold));
    let targets = args.limits.over(QualityTargets {
        max_relative_error_percent: args.text.is_none().then_some(config.quality_threshold),
        max_storage_gb: recipe.names("target_storage_gb").then_some(config.target_storage_gb),
        limits: std::iter::once(defects).chain(on_text).collect(),
        ..QualityTargets::none()
    });
    let (registry, options) = (Registry::standard(), OpenOptions::default());

    let package = Package::open(&args.package)?;
    let manifest = package.into_manifest();
    let source_bytes = Model::open(&args.against, &options)?.weight_bytes();
    let sizes = size_measurements(source_bytes, package_bytes(&manifest)?.0, manifest.weights);
    let original = open_weights(&args.against, &registry, &options)?;
    let decoded = open_weights(&args.package, &registry, &options)?;

    let progress = Progress::new(common, Unit::Weights);
    let mut quality = QualityValidator::new();
    let comparison = Compare::new(&*original, &*decoded, &budget)
        .validator(&mut quality)
        .on_progress(|p| progress.set(p.done, p.total, p.tensor))
        .run()?;
    let figures = quality.report();
    let mut measurements = quality.finish();
    measurements.extend(comparison.measurements());
    measurements.extend(sizes);
    measurements.extend(evaluation.iter().flat_map(OnText::measurements));
    Ok(Judged {
        evaluation,
        verdict: targets.judge(&measurements),
        defects: comparison.defects().map(|(tensor, why)| (tensor.name.clone(), why)).collect(),
        figures,
        measurements,
    })
}

/// Runs the package and its original over the text.
fn run_both(args: &Args, text: &Path, budget: &Budget, common: Common) -> Result<OnText, Failure> {
    let options = RunOptions { activation_bytes: Some(budget.limit() / 4), ..RunOptions::default() };
    let open = |path: &Path| ModelRunner::open(path, &Registry::standard(), budget, &options);
    let (original, model) = (open(&args.against)?, open(&args.package)?);
    let context = model.spec().context;
    let options = EvaluateOptions::default();
    let progress = Progress::new(common, Unit::Steps);
    let mut tell = |p: EvaluateProgress| progress.set(p.done, p.total, p.what);
    let found = if model.logits() == 0 {
        let sentences = sentences(text, &args.against, context, &args.cut)?;
        let pooling = Pooling::open(&args.against)?;
        evaluate_embeddings(&original, &model, &sentences, pooling, options, &mut tell)
            .map(|found| OnText::Embeddings(Box::new(found)))
    } else {
        let text = read(text, &args.against)?;
        let protocol = args.cut.protocol(&text.tokenizer, context)?;
        evaluate(&model, Some(&original), text.tokens(), &protocol, options, &mut tell)
            .map(|found| OnText::Predictions(Box::new(found)))
    };
    progress.finish();
    Ok(found?)
}

impl Judged {
    fn json(&self) -> Value {
        let defects: Vec<Value> =
            self.defects.iter().map(|(name, why)| json!({"tensor": name, "explanation": why})).collect();
        json!({
            "passed": self.verdict.passed, "checks": self.verdict.checks, "defects": defects,
            "measurements": self.measurements, "model": self.figures.model, "lossy": self.figures.lossy,
            "layers": self.figures.layers, "tensors": self.figures.tensors, "evaluation": self.evaluation,
            "peak_rss_bytes": peak_rss_bytes(),
        })
    }

    fn text(&self, full: bool) -> String {
        let all = &self.figures;
        let titles = if full { ["tensor", "codec"] } else { ["layer", ">weights"] };
        let mut table = Table::new(&[&titles[..], &figures::TITLES[..]].concat());
        let mut add = |name: &str, second: &str, error| {
            let start = [escape(name), second.to_owned()];
            table.row([&start[..], &figures::cells(Some(error))[..]].concat());
        };
        if full {
            all.tensors.iter().for_each(|t| add(&t.name, &t.codec, &t.error));
        } else {
            all.layers.iter().for_each(|l| add(&l.layer, &l.error.weights.to_string(), &l.error));
        }
        let mut out = table.render();
        out += "\n";
        out += &figures::model(all);
        if let Some(evaluation) = &self.evaluation {
            out += &format!("\n{}\n", evaluation.text());
        }
        out += &format!("peak memory {}\n", bytes(peak_rss_bytes()));
        for (name, why) in &self.defects {
            out += &format!("defect: tensor \"{}\": {why}\n", escape(name));
        }
        out + "\n" + &figures::verdict(&self.verdict)
    }
}
