//! The orchestrator: model in, compressed model and report out.

mod calibrated;
mod card;
mod engine;
mod memory;
mod output;
mod prepare;

use crate::manager::{ManagerOptions, StreamingManager, TensorLease};
use crate::observer::Silent;
use crate::package::{Begin, FinishedTensor, PackageWriter, WriteOptions};
use crate::plan::Plan;
use crate::process::peak_rss_bytes;
use crate::report::{CompressReport, TensorReport};
use crate::store::{RealStore, Store};
use crate::weights::written;
use crate::{
    AdaptivePrecision, Budget, CalibrationSource, CompressConfig, Error, ModelCheck, Observer, Result,
};
use calibrated::{Calibrated, Selected};
pub(crate) use card::{DOCUMENTS, Document};
use engine::{Encoded, Engine};
use lsb_format::package::FileRole;
use lsb_quant::calibrate::Calibration;
use lsb_quant::{Quantizer, Registry};
use output::Output;
use prepare::{Job, Prepared, beside_calibration};
pub(crate) use prepare::{TOOL, read_document};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Compresses a model layer by layer under a memory budget.
///
/// ```no_run
/// use lsb_stream::{CompressConfig, LoopCompressor};
///
/// let mut config = CompressConfig::default();
/// config.codec = Some("outlier-binary:0.02".into());
/// let report = LoopCompressor::new(config).compress_model("models/llama", None)?;
/// println!("{:.2} times smaller, {:.3} bits per weight", report.ratio(), report.bpw());
/// # Ok::<(), lsb_stream::Error>(())
/// ```
pub struct LoopCompressor {
    config: CompressConfig,
    registry: Registry,
    store: Arc<dyn Store>,
    observer: Box<dyn Observer>,
    interrupt: Arc<AtomicBool>,
    check: Option<Arc<dyn ModelCheck>>,
    calibration: Option<Arc<dyn CalibrationSource>>,
}

impl std::fmt::Debug for LoopCompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopCompressor").field("config", &self.config).finish_non_exhaustive()
    }
}

impl LoopCompressor {
    /// A compressor with these options, the standard codecs, and the real file system.
    pub fn new(config: CompressConfig) -> Self {
        LoopCompressor {
            config,
            registry: Registry::standard(),
            store: Arc::new(RealStore),
            observer: Box::new(Silent),
            interrupt: Arc::default(),
            check: None,
            calibration: None,
        }
    }

    /// With these codecs instead of the standard ones.
    #[must_use]
    pub fn with_registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// With all writes going to this store.
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = store;
        self
    }

    /// With this observer told of progress.
    #[must_use]
    pub fn with_observer(mut self, observer: Box<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// With this look at the model before work starts, such as `lsb_model::ConfigCheck`.
    #[must_use]
    pub fn with_check(mut self, check: Arc<dyn ModelCheck>) -> Self {
        self.check = Some(check);
        self
    }

    /// With codecs told what linear maps are fed with, such as by `lsb_model::TextCalibration`.
    #[must_use]
    pub fn with_calibration(mut self, calibration: Arc<dyn CalibrationSource>) -> Self {
        self.calibration = Some(calibration);
        self
    }

    /// Stops, resumably, soon after this becomes true.
    #[must_use]
    pub fn with_interrupt(mut self, interrupt: Arc<AtomicBool>) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// What [`LoopCompressor::compress_model`] would do, told from headers alone.
    ///
    /// # Errors
    /// If the model cannot be read, the options are impossible, a target cannot be reached, or the memory
    /// budget is too small.
    pub fn plan(&self, path: impl AsRef<Path>) -> Result<Plan> {
        Ok(self.prepare(path.as_ref(), None)?.plan)
    }

    /// Compresses the model at `path` (directory, file, or id in the local Hub cache). With `max_layers`
    /// only the first so many layers are compressed and the rest is kept as it is: a quick trial.
    ///
    /// Unfinished work of an interrupted run is taken up where it stopped. The output appears under its
    /// name only when it is complete.
    ///
    /// # Errors
    /// If the model cannot be read, the options are impossible, the work does not fit into the budget, or
    /// writing fails. Whatever stood at the output before is then still there.
    pub fn compress_model(
        &mut self,
        path: impl AsRef<Path>,
        max_layers: Option<usize>,
    ) -> Result<CompressReport> {
        let start = Instant::now();
        let prepared = self.prepare(path.as_ref(), max_layers)?;
        for warning in &prepared.plan.warnings {
            self.observer.warned(warning);
        }
        let options = WriteOptions {
            fingerprint: prepared.fingerprint.clone(),
            restart: self.config.restart,
            overwrite: self.config.overwrite,
            tool: TOOL.to_owned(),
            source: prepared.source(),
            tensors: prepared.stored_tensors(),
            shard_bytes: self.config.shard_bytes,
        };
        let run = match PackageWriter::begin(Arc::clone(&self.store), &prepared.output, options)? {
            Begin::Done(manifest) => {
                tracing::info!("the output is complete already");
                let document = read_document(&*self.store, &prepared.output)?;
                let mut report = finish_report(&prepared, document);
                report.package_bytes = prepare::package_bytes(&manifest)?;
                report.already_done = true;
                report
            }
            Begin::Write { writer, finished } => self.run(&prepared, writer, finished)?,
        };
        Ok(CompressReport { seconds: start.elapsed().as_secs_f64(), peak_rss_bytes: peak_rss_bytes(), ..run })
    }

    fn prepare(&self, path: &Path, max_layers: Option<usize>) -> Result<Prepared> {
        let check = self.check.as_deref();
        prepare::prepare(path, max_layers, &self.config, &self.registry, check, self.calibration.as_ref())
    }

    /// The work itself: every tensor that is not finished, then the other files, then publishing.
    fn run(
        &mut self,
        prepared: &Prepared,
        mut writer: Box<PackageWriter>,
        finished: Vec<FinishedTensor>,
    ) -> Result<CompressReport> {
        let mut reports = prepared.empty_reports();
        let resumed = finished.len();
        let mut done_bytes = 0;
        for tensor in finished {
            let at = prepared.position(&tensor.name)?;
            let report: TensorReport = serde_json::from_value(tensor.facts)
                .map_err(|e| Error::Config(format!("the journal's record of \"{}\": {e}", tensor.name)))?;
            done_bytes += report.source_bytes;
            reports[at] = Some(report);
        }
        let total = prepared.jobs.iter().map(|j| j.facts.bytes).sum();
        self.observer.started(prepared.jobs.len(), total, done_bytes);
        for report in reports.iter().flatten() {
            self.observer.tensor_finished(report);
        }

        let engine = Engine::new(
            prepared.threads,
            self.config.quality_monitoring,
            Arc::clone(&self.interrupt),
            prepared.budget.clone(),
        )?;
        let mut calibrated = match &prepared.calibration {
            None => None,
            Some((source, bytes)) => {
                let _set_aside =
                    prepared.budget.reserve(beside_calibration(&prepared.budget, *bytes), "calibration")?;
                let budget = Budget::new(*bytes);
                let interrupt = Arc::clone(&self.interrupt);
                let calibrated = engine.install(|| {
                    Calibrated::start(source.open(&prepared.input.model, &budget, interrupt)?, prepared)
                })?;
                Some((calibrated, _set_aside))
            }
        };
        if let Some((calibrated, _)) = &mut calibrated {
            // What an earlier run finished takes part in the passes of this one.
            for (i, job) in prepared.jobs.iter().enumerate() {
                if let Some(report) = reports[i].as_ref().filter(|r| r.same_as.is_none()) {
                    let quantizer = self.registry.build(&report.codec, &report.parameters);
                    let quantizer = quantizer.map_err(Error::codec(&job.facts.name))?;
                    let weights = written(writer.open_finished(&job.facts.name)?, &*quantizer)?;
                    calibrated.finished(i, prepared, report, &weights);
                }
            }
        }
        let work: Vec<usize> = (0..prepared.jobs.len())
            .filter(|&i| reports[i].is_none() && prepared.jobs[i].facts.same_as.is_none())
            .collect();
        let items = work.iter().map(|&i| prepared.jobs[i].item.clone()).collect();
        let working = prepared.budget.reserve(prepared.working_bytes, "working memory")?;
        let mut manager = StreamingManager::new(
            Arc::clone(&prepared.input) as _,
            items,
            prepared.budget.clone(),
            ManagerOptions {
                max_layers_in_ram: if self.config.streaming_enabled {
                    self.config.max_layers_in_ram
                } else {
                    0
                },
                prefetch: self.config.prefetch_enabled,
                caching: self.config.caching_enabled || !self.config.streaming_enabled,
                resident_bytes: prepared.resident_bytes,
            },
        );
        let mut preloaded = Vec::new();
        if !self.config.streaming_enabled {
            for _ in &work {
                let mut lease = manager.next_tensor().ok_or(Error::Interrupted)??;
                lease.load()?;
                preloaded.push(lease);
            }
        }
        let mut preloaded = preloaded.into_iter();

        let mut output = Output::start(writer)?;
        let mut warnings = Vec::new();
        let outcome = (|| -> Result<()> {
            for (k, &i) in work.iter().enumerate() {
                let job = &prepared.jobs[i];
                let mut lease = match preloaded.next() {
                    Some(lease) => lease,
                    None => manager.next_tensor().ok_or(Error::Interrupted)??,
                };
                self.observer.tensor_started(&job.facts.name, job.facts.bytes);
                let report = match &mut calibrated {
                    None => {
                        let start = Start::new(job);
                        self.one(&engine, job, start, &mut lease, &mut output, &mut warnings)?.0
                    }
                    Some((calibrated, _)) => {
                        let mut start = Start::new(job);
                        if let Some(Selected { quantizer, tau, note }) = calibrated.select(i, job) {
                            let notes = note.into_iter().collect();
                            start = Start { quantizer, tau, calibration: None, notes };
                        }
                        start.calibration = engine.install(|| calibrated.calibration(job))?;
                        let (report, quantizer) =
                            self.one(&engine, job, start, &mut lease, &mut output, &mut warnings)?;
                        let weights = written(output.open(&job.facts.name)?, &*quantizer)?;
                        calibrated.finished(i, prepared, &report, &weights);
                        report
                    }
                };
                drop(lease);
                self.observer.tensor_finished(&report);
                let layer = report.layer.clone();
                reports[i] = Some(report);
                let last = work.get(k + 1).is_none_or(|&next| prepared.jobs[next].layer_name != layer);
                if last {
                    let tensors: Vec<TensorReport> =
                        reports.iter().flatten().filter(|r| r.layer == layer).cloned().collect();
                    card::layers(&tensors).iter().for_each(|l| self.observer.layer_finished(l));
                }
            }
            Ok(())
        })();
        drop(manager);
        // A failed write is the cause of whatever the encoder then ran into.
        let mut writer = match (output.finish(), outcome) {
            (Err(write), _) => return Err(write),
            (Ok(_), Err(work)) => return Err(work),
            (Ok(None), Ok(())) => return Err(Error::Interrupted),
            (Ok(Some(writer)), Ok(())) => writer,
        };
        drop(working);

        prepared.input.model.ensure_unchanged()?;
        let tensors = prepared.complete_reports(reports)?;
        let (codec, parameters) = card::main_codec(&tensors);
        warnings.splice(0..0, prepared.plan.warnings.iter().cloned());
        let calibration = calibrated.map_or_else(Vec::new, |(c, _)| c.notes());
        let document = Document {
            model: prepared.plan.model.clone(),
            codec,
            parameters,
            source_bytes: prepared.plan.source_bytes,
            weights: prepared.plan.weights,
            tensors,
            warnings,
            calibration,
        };
        prepared.copy_files(&mut writer)?;
        writer.add_file(DOCUMENTS[0], &mut document.to_json().as_slice(), FileRole::Document)?;
        writer.add_file(DOCUMENTS[1], &mut document.to_card().as_slice(), FileRole::Document)?;
        let published = writer.publish()?;
        let mut report = finish_report(prepared, document);
        report.package_bytes = published.package_bytes;
        report.bytes_read = prepared.input.bytes_read();
        report.resumed_tensors = resumed;
        Ok(report)
    }

    /// One tensor: its codec, a finer one where quality asks for it, `raw` where values are not finite. Returns which it
    /// became too.
    fn one(
        &mut self,
        engine: &Engine,
        job: &Job,
        start: Start,
        lease: &mut TensorLease,
        output: &mut Output,
        warnings: &mut Vec<String>,
    ) -> Result<(TensorReport, Arc<dyn Quantizer>)> {
        let name = &job.facts.name;
        let matrix = job.facts.matrix();
        let Start { mut quantizer, tau, calibration, mut notes } = start;
        let encoded = loop {
            output.begin(job.stored, quantizer.tiling(&matrix).map_err(Error::codec(name))?)?;
            let observer = &mut self.observer;
            let result =
                engine.encode(name, lease, &matrix, &*quantizer, calibration.as_ref(), output, &mut |n| {
                    observer.advanced(n)
                });
            let (next, why) = match result {
                Err(Error::Codec { source: lsb_quant::Error::NonFinite { index, value }, .. }) => {
                    if !self.config.allow_nonfinite {
                        return Err(prepare::nonfinite(job, index, value));
                    }
                    let raw = self.registry.parse("raw").map_err(Error::codec(name))?;
                    (raw, format!("kept raw: weight {index} is {value}"))
                }
                Err(e) => return Err(e),
                Ok(encoded) => match self.finer(&*quantizer, &encoded) {
                    None => break encoded,
                    Some((next, error)) => {
                        let text =
                            format!("{error:.3} % error with {}: {}", quantizer.id(), quantizer.parameters());
                        (next, format!("made finer: {text}"))
                    }
                },
            };
            output.abort()?;
            if next.id() == "raw" {
                let warning = format!("tensor \"{}\" {why}", lsb_format::escape(name));
                self.observer.warned(&warning);
                warnings.push(warning);
            }
            notes.push(why);
            quantizer = next;
        };
        let digest = lease.digest().ok_or_else(|| Error::Config(format!("\"{name}\" was not read whole")))?;
        // What the step was is in the coded tensor; the manifest needs only one record for all of them.
        let controlled = quantizer.id() == job.assignment.quantizer.id()
            && job.assignment.quantizer.rate_control().is_some_and(|r| r.bpw().is_some());
        let stored = if controlled { &*job.assignment.quantizer } else { &*quantizer };
        let mut report = job.report(stored, &encoded, notes);
        report.tau = tau.filter(|_| controlled);
        report.output_cost = calibration.as_ref().and_then(|c| c.outputs.as_deref()).and_then(geometric_mean);
        Ok((output.finish_tensor(encoded.side, digest, stored, report)?, quantizer))
    }

    /// The next finer configuration, if the tensor's error asks for one, with that error in percent.
    fn finer(&self, quantizer: &dyn Quantizer, encoded: &Encoded) -> Option<(Arc<dyn Quantizer>, f64)> {
        if self.config.adaptive_precision != AdaptivePrecision::Threshold || encoded.exact {
            return None;
        }
        let d = encoded.distortion?;
        let range = d.max_w - d.min_w;
        let error = 100.0 * d.sum_abs / d.weights as f64 / range;
        if range > 0.0 && error > self.config.quality_threshold {
            quantizer.finer().map(|next| (next, error))
        } else {
            None
        }
    }
}

/// Of positive values; `None` of none.
fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logs: f64 = values.iter().filter(|x| **x > 0.0).map(|x| x.ln()).sum();
    let count = values.iter().filter(|x| **x > 0.0).count();
    (count > 0).then(|| (logs / count as f64).exp())
}

/// What a tensor is first encoded with.
struct Start {
    quantizer: Arc<dyn Quantizer>,
    tau: Option<f64>,
    calibration: Option<Calibration>,
    /// Why it is this codec.
    notes: Vec<String>,
}

impl Start {
    fn new(job: &Job) -> Start {
        Start {
            quantizer: Arc::clone(&job.assignment.quantizer),
            tau: None,
            calibration: None,
            notes: Vec::new(),
        }
    }
}

/// The report of a finished package, apart from what only this run knows.
fn finish_report(prepared: &Prepared, document: Document) -> CompressReport {
    CompressReport {
        package: prepared.output.clone(),
        codec: document.codec,
        parameters: document.parameters,
        source_bytes: document.source_bytes,
        package_bytes: 0,
        weights: document.weights,
        seconds: 0.0,
        peak_rss_bytes: 0,
        bytes_read: 0,
        resumed_tensors: 0,
        already_done: false,
        budget_peak_bytes: prepared.budget.peak(),
        budget_bytes: prepared.budget.limit(),
        calibration: document.calibration,
        layers: card::layers(&document.tensors),
        tensors: document.tensors,
        warnings: document.warnings,
    }
}
