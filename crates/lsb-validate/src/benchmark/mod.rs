//! Methods by metrics on one model: compress with each, run each beside the original, put the figures in one table.

mod continuation;
mod journal;
mod metric;
mod table;
#[cfg(test)]
mod tests;

pub use metric::Metric;
pub use table::{csv, markdown};

use crate::evaluate::{EvaluateError, EvaluateOptions, Evaluation, TokenizedText, evaluate};
use crate::metric::WeightError;
use crate::protocol::Protocol;
use continuation::Continuations;
use journal::Journal;
use lsb_model::{ConfigCheck, ModelRunner, RunOptions, Tokenizer};
use lsb_quant::Registry;
use lsb_stream::{Budget, CompressConfig, CompressReport, LoopCompressor, reset_peak_rss};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Methods that other names are used for.
const ALIASES: &[(&str, &str)] = &[
    ("loop_singular_bit", "residual-binary"),
    ("outlier_preserving", "outlier-binary"),
    ("bitnet", "ternary"),
];

/// Compares methods on one model.
///
/// ```no_run
/// use lsb_validate::{CompressionBenchmark, Metric};
///
/// let report = CompressionBenchmark::new("models/llama", "eval.txt")
///     .methods(["loop_singular_bit", "bitnet", "rtn:4"])
///     .metrics([Metric::Perplexity, Metric::Bleu, Metric::Rouge])
///     .run(&mut |step| println!("{}: {}", step.method, step.what))?;
/// for row in &report.rows {
///     println!("{}: {:.3} bits per weight, {:?}", row.method, row.bpw, row.metrics);
/// }
/// # Ok::<(), lsb_validate::BenchmarkError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CompressionBenchmark {
    model: PathBuf,
    text: PathBuf,
    methods: Vec<String>,
    metrics: Vec<Metric>,
    protocol: Option<Protocol>,
    max_tokens: Option<usize>,
    target_ram_mb: u64,
    work: PathBuf,
    keep: bool,
    registry: Registry,
    calibration: CompressConfig,
}

/// One method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkRow {
    /// The method as it was asked for.
    pub method: String,
    /// Bits of package per weight, everything counted.
    pub bpw: f64,
    /// Bytes of the source over bytes of the package.
    pub ratio: f64,
    /// The metrics by name; `None` where infinite or not defined.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Seconds that compressing took.
    pub seconds: f64,
    /// Peak resident set while compressing, in bytes.
    pub peak_rss_bytes: u64,
}

/// All methods, in the order they were asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchmarkReport {
    /// One row for each method.
    pub rows: Vec<BenchmarkRow>,
    /// Rows taken from an earlier run that was interrupted.
    pub resumed: usize,
    /// How the text was cut and scored, in one sentence.
    pub protocol: String,
}

/// What is being done.
#[derive(Clone, Copy, Debug)]
pub struct BenchmarkStep<'a> {
    /// Methods done.
    pub done: u64,
    /// Methods in all.
    pub total: u64,
    /// The method at work.
    pub method: &'a str,
    /// What is done with it.
    pub what: &'static str,
}

/// Why a benchmark failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchmarkError {
    /// Compressing failed, or a request made no sense.
    #[error(transparent)]
    Stream(#[from] lsb_stream::Error),
    /// A model could not be run, or two not compared.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A file of the benchmark itself could not be used.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: String,
        /// The failure.
        source: std::io::Error,
    },
}

impl From<lsb_model::Error> for BenchmarkError {
    fn from(e: lsb_model::Error) -> Self {
        BenchmarkError::Evaluate(e.into())
    }
}

impl BenchmarkError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BenchmarkError {
        let path = path.display().to_string();
        move |source| BenchmarkError::Io { what, path, source }
    }
}

impl CompressionBenchmark {
    /// A benchmark of the model at `model` on the text in file `text`.
    pub fn new(model: impl Into<PathBuf>, text: impl Into<PathBuf>) -> Self {
        CompressionBenchmark {
            model: model.into(),
            text: text.into(),
            methods: vec!["outlier-binary".to_owned()],
            metrics: vec![Metric::Perplexity, Metric::Kl, Metric::Top1, Metric::Snr],
            protocol: None,
            max_tokens: None,
            target_ram_mb: 400,
            work: std::env::temp_dir().join("lsb-bench"),
            keep: false,
            registry: Registry::standard(),
            calibration: CompressConfig::default(),
        }
    }

    /// With these methods: codecs as `id`, `id:value` or `id:key=value,...`, or their aliases.
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.methods = methods.into_iter().map(Into::into).collect();
        self
    }

    /// With these metrics.
    #[must_use]
    pub fn metrics(mut self, metrics: impl IntoIterator<Item = Metric>) -> Self {
        self.metrics = metrics.into_iter().collect();
        self
    }

    /// With this protocol instead of the default one.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// With at most so many tokens scored.
    #[must_use]
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Within this memory, in MB.
    #[must_use]
    pub fn target_ram_mb(mut self, mb: u64) -> Self {
        self.target_ram_mb = mb;
        self
    }

    /// With packages and finished rows in this folder; a run that was interrupted goes on there.
    #[must_use]
    pub fn work(mut self, folder: impl Into<PathBuf>) -> Self {
        self.work = folder.into();
        self
    }

    /// Keeps the packages.
    #[must_use]
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Calibrated as these options say: `calib`, `calib_tokens`, `seqlen` and `seed` count.
    #[must_use]
    pub fn calibration(mut self, options: CompressConfig) -> Self {
        self.calibration = options;
        self
    }

    /// With these codecs instead of the standard ones.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Runs every method that no earlier run finished.
    ///
    /// # Errors
    /// If a method is not known, the model or the text cannot be used, or compressing fails. Rows that were finished
    /// are kept.
    pub fn run(
        &self,
        progress: &mut dyn FnMut(BenchmarkStep<'_>),
    ) -> Result<BenchmarkReport, BenchmarkError> {
        let codecs: Vec<String> = self.methods.iter().map(|m| codec(m)).collect();
        for codec in &codecs {
            self.registry.parse(codec).map_err(lsb_stream::Error::codec("the benchmark"))?;
        }
        let bytes = std::fs::read(&self.text).map_err(BenchmarkError::io("cannot read", &self.text))?;
        let tokenizer = Tokenizer::open(&self.model)?;
        let text = String::from_utf8_lossy(&bytes);
        let ids = tokenizer.encode(&text, false)?;
        let budget = Budget::for_process(self.target_ram_mb);
        let original = self.open(&self.model, &budget)?;
        let protocol = self.cut(&original);
        let windows = protocol.windows(&ids).map_err(EvaluateError::from)?;
        let record = protocol.record(&bytes, &ids, &windows);
        let mut journal = Journal::open(&self.work, &self.key(&original, &record))?;
        let mut continuations = None;
        let (mut rows, mut resumed) = (Vec::new(), 0);
        for (index, (method, codec)) in self.methods.iter().zip(&codecs).enumerate() {
            let mut tell = |what| {
                progress(BenchmarkStep {
                    done: index as u64,
                    total: self.methods.len() as u64,
                    method,
                    what,
                });
            };
            if let Some(row) = journal.row(method) {
                rows.push(row);
                resumed += 1;
                continue;
            }
            tell("compress");
            let package = self.work.join(format!("package-{}", index + 1));
            reset_peak_rss();
            let report = self.compress(codec, &package)?;
            tell("evaluate");
            let model = self.open(&package, &budget)?;
            let text = TokenizedText { bytes: &bytes, ids: &ids };
            let options =
                EvaluateOptions { map_tokens: if self.wants(Metric::Correlation) { 2048 } else { 0 } };
            let found = evaluate(&model, Some(&original), text, &protocol, options, &mut |_| {})?;
            if self.metrics.iter().any(|m| m.needs_text()) {
                tell("generate");
                if continuations.is_none() {
                    continuations = Some(Continuations::new(&original, &tokenizer, &ids)?);
                }
            }
            let texts = continuations.as_ref().map(|c| c.compare(&model, &tokenizer)).transpose()?;
            let row = self.row(method, &report, &found, texts.as_ref());
            drop(model);
            journal.add(&row)?;
            rows.push(row);
            if !self.keep {
                std::fs::remove_dir_all(&package).map_err(BenchmarkError::io("cannot remove", &package))?;
            }
        }
        let scored = format!(
            "{} tokens in {} windows of {}; {}",
            record.scored_tokens, record.windows, record.protocol.window, record.score
        );
        Ok(BenchmarkReport { rows, resumed, protocol: scored })
    }

    fn wants(&self, metric: Metric) -> bool {
        self.metrics.contains(&metric)
    }

    fn cut(&self, original: &ModelRunner) -> Protocol {
        let context = original.spec().context.unwrap_or(usize::MAX);
        let mut protocol = self.protocol.clone().unwrap_or_else(|| Protocol::for_context(context));
        protocol.max_tokens = self.max_tokens.or(protocol.max_tokens);
        protocol
    }

    /// Two models share the memory.
    fn open(&self, path: &Path, budget: &Budget) -> Result<ModelRunner, BenchmarkError> {
        let options = RunOptions { activation_bytes: Some(budget.limit() / 4), ..RunOptions::default() };
        Ok(ModelRunner::open(path, &self.registry, budget, &options)?)
    }

    fn compress(&self, codec: &str, package: &Path) -> Result<CompressReport, BenchmarkError> {
        let mut config = self.calibration.clone();
        config.codec = Some(codec.to_owned());
        config.output = Some(package.to_owned());
        config.overwrite = true;
        config.target_ram_mb = self.target_ram_mb;
        let calibration = lsb_model::calibration_source(&config)?;
        let mut compressor = LoopCompressor::new(config).with_registry(self.registry.clone());
        if let Some(calibration) = calibration {
            compressor = compressor.with_calibration(calibration);
        }
        Ok(compressor.with_check(Arc::new(ConfigCheck)).compress_model(&self.model, None)?)
    }

    /// What rows of an earlier run must have in common with this one to be used.
    fn key(&self, original: &ModelRunner, record: &crate::protocol::ProtocolRecord) -> String {
        let mut hasher = blake3::Hasher::new();
        for tensor in original.source().tensors() {
            hasher.update(format!("{} {} {:?};", tensor.name, tensor.dtype, tensor.shape).as_bytes());
        }
        hasher.update(self.model.display().to_string().as_bytes());
        hasher.update(serde_json::to_string(record).unwrap_or_default().as_bytes());
        let c = &self.calibration;
        let calibration = format!("{:?} {} {} {}", c.calib, c.calib_tokens, c.seqlen, c.seed);
        hasher.update(calibration.as_bytes());
        hasher.update(format!("{:?} {}", self.metrics, env!("CARGO_PKG_VERSION")).as_bytes());
        hasher.finalize().to_hex().to_string()
    }

    fn row(
        &self,
        method: &str,
        report: &CompressReport,
        found: &Evaluation,
        texts: Option<&continuation::Compared>,
    ) -> BenchmarkRow {
        let weights = WeightError::over(
            report.tensors.iter().filter(|t| t.same_as.is_none()).filter_map(|t| t.distortion.as_ref()),
        );
        let metrics = self.metrics.iter().flat_map(|m| m.values(found, &weights, texts));
        let finite = |value: Option<f64>| value.filter(|v| v.is_finite());
        BenchmarkRow {
            method: method.to_owned(),
            bpw: report.bpw(),
            ratio: report.ratio(),
            metrics: metrics.map(|(name, value)| (name.to_owned(), finite(value))).collect(),
            seconds: report.seconds,
            peak_rss_bytes: report.peak_rss_bytes,
        }
    }
}

/// The codec that a method is.
fn codec(method: &str) -> String {
    let (name, rest) = method.split_at(method.find(':').unwrap_or(method.len()));
    let known = ALIASES.iter().find(|(alias, _)| *alias == name);
    format!("{}{rest}", known.map_or(name, |(_, codec)| codec))
}
