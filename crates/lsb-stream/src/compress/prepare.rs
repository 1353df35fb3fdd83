//! Everything that is decided before the first weight is read.

use super::card::Document;
use super::engine::Encoded;
use super::memory::Memory;
use crate::layers::{LayerId, layer_of};
use crate::manager::{TensorBytes, WorkItem};
use crate::package::{PackageWriter, TensorPlan};
use crate::plan::assign::{self, Assignment, FIXED_BYTES, TensorFacts, record_bytes, stored};
use crate::plan::{Plan, PlannedTensor};
use crate::report::TensorReport;
use crate::source::{Model, OpenOptions, find_duplicates};
use crate::store::{OpenMode, Store};
use crate::{AdaptivePrecision, Budget, CalibrationSource, CompressConfig, Error, ModelCheck, Result};
use lsb_format::package::{Digest, FileRole, Fingerprint, Manifest, Source, SourceFile};
use lsb_quant::{Quantizer, Registry, Wanted};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One tensor with its decisions, in processing order.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) facts: TensorFacts,
    pub(super) assignment: Assignment,
    pub(super) item: WorkItem,
    pub(super) layer_name: String,
    /// Place among the tensors the package lists.
    pub(super) stored: usize,
    file: String,
    offset: u64,
}

/// The model being read, and how many bytes of weights were.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) model: Model,
    read: AtomicU64,
}

impl Input {
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl TensorBytes for Input {
    fn read(&self, tensor: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        self.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.model.reader(tensor)?.read_at(offset, out)
    }
}

/// A compression ready to run.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) input: Arc<Input>,
    pub(super) output: PathBuf,
    pub(super) jobs: Vec<Job>,
    pub(super) plan: Plan,
    pub(super) fingerprint: Fingerprint,
    pub(super) budget: Budget,
    pub(super) threads: usize,
    pub(super) working_bytes: u64,
    pub(super) resident_bytes: u64,
    /// Who calibrates, and the budget for that; `None` where nothing is calibrated.
    pub(super) calibration: Option<(Arc<dyn CalibrationSource>, u64)>,
}

/// Percent of the budget for running the model and for moments of inputs, where maps are calibrated.
const CALIBRATION_SHARE: u64 = 42;

/// Of the budget, one over this is for what nobody can reserve where models are run: operands that products of matrices pack,
/// and small holes in the allocator's heaps.
const LIBRARIES_SHARE: u64 = 12;

/// Bytes of the budget that a calibration takes from the work on tensors, `bytes` of them for itself.
pub(super) fn beside_calibration(budget: &Budget, bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { bytes + budget.limit() / LIBRARIES_SHARE }
}

/// What manifests say made them.
pub(crate) const TOOL: &str = concat!("lsb ", env!("CARGO_PKG_VERSION"));

/// The revision of everything that decides bytes; grows when equal input and options give other bytes.
const ALGORITHM_REVISION: &str = "1";

pub(super) fn prepare(
    path: &Path,
    max_layers: Option<usize>,
    config: &CompressConfig,
    registry: &Registry,
    check: Option<&dyn ModelCheck>,
    calibration: Option<&Arc<dyn CalibrationSource>>,
) -> Result<Prepared> {
    config.check()?;
    let model = Model::open(
        path,
        &OpenOptions {
            max_header_bytes: config.max_header_mb * 1_000_000,
            strict: config.strict,
            ..Default::default()
        },
    )?;
    let short = model.name().rsplit('/').next().unwrap_or("model");
    let output = config.output.clone().unwrap_or_else(|| PathBuf::from(format!("{short}-lsb")));
    refuse_overlap(&model, path, &output)?;

    let measured = config.adaptive_precision == AdaptivePrecision::Measured;
    let explicit = measured || config.calib.as_deref().is_some_and(|c| c != "none");
    let wanted = config.calib.as_deref() != Some("none");
    let mut uncalibrated = None;
    let (mut source, mut calibrated) = (calibration.filter(|_| wanted).cloned(), Vec::new());
    if let Some(calibration) = &source {
        match calibration.tensors(&model) {
            Ok(tensors) => calibrated = tensors,
            Err(e) if explicit => return Err(e),
            Err(e) => {
                uncalibrated = Some(format!("not calibrated: {e}"));
                source = None;
            }
        }
    }
    let duplicates = find_duplicates(&model)?;
    let mut warnings: Vec<String> = model.warnings().iter().map(ToString::to_string).collect();
    if let Some(check) = check {
        let found = check.check(&model, &duplicates)?;
        if let (true, Some(first)) = (config.strict, found.first()) {
            return Err(Error::Refused { message: format!("{first}; --strict refuses what is odd") });
        }
        warnings.extend(found.iter().map(ToString::to_string));
    }
    let source_bytes = model.weight_bytes();
    let arrange = |calibrated: Option<&[String]>| -> Result<Vec<Job>> {
        let order = processing_order(&model, calibrated.unwrap_or_default());
        let facts = facts(&model, &order, max_layers, &duplicates);
        let assignments = assign::assign(&facts, source_bytes, config, registry, calibrated.is_some())?;
        jobs(&model, &order, facts, assignments)
    };
    let mut jobs = arrange(source.as_ref().map(|_| &*calibrated))?;
    let least = if explicit { Wanted::Useful } else { Wanted::Yes };
    if !jobs.iter().any(|j| j.assignment.quantizer.needs().calibration >= least) {
        if measured {
            let what =
                "adaptive_precision = \"measured\" needs a codec that can be calibrated, such as trellis";
            return Err(Error::Config(what.into()));
        }
        // What nobody uses decides nothing, the order of work neither.
        source = None;
        jobs = arrange(None)?;
    } else if let Some(why) = uncalibrated {
        warnings.push(why);
    }
    let budget = Budget::for_process(config.target_ram_mb);
    let calibration_bytes = if source.is_some() { budget.limit() / 100 * CALIBRATION_SHARE } else { 0 };
    let memory = Memory::plan(&jobs, config, &budget, beside_calibration(&budget, calibration_bytes))?;
    let plan = describe(&model, &jobs, source_bytes, config, &memory, warnings);
    let fingerprint = fingerprint(&model, &jobs, config, source.as_deref())?;
    Ok(Prepared {
        calibration: source.map(|s| (s, calibration_bytes)),
        input: Arc::new(Input { model, read: AtomicU64::new(0) }),
        output,
        jobs,
        plan,
        fingerprint,
        budget,
        threads: memory.threads,
        working_bytes: memory.working,
        resident_bytes: memory.resident,
    })
}

/// Layers in order; within a layer `calibrated` tensors in their own order, and before them the others as they stand in
/// the files.
fn processing_order(model: &Model, calibrated: &[String]) -> Vec<(LayerId, usize)> {
    let places: HashMap<&str, usize> =
        calibrated.iter().enumerate().map(|(i, name)| (name.as_str(), i + 1)).collect();
    let mut order: Vec<(LayerId, usize, usize)> = model
        .tensors()
        .iter()
        .enumerate()
        .map(|(i, t)| (layer_of(&t.name), places.get(t.name.as_str()).copied().unwrap_or(0), i))
        .collect();
    order.sort();
    order.into_iter().map(|(layer, _, i)| (layer, i)).collect()
}

/// The tensors in the order they are worked on.
fn facts(
    model: &Model,
    order: &[(LayerId, usize)],
    max_layers: Option<usize>,
    duplicates: &[Option<usize>],
) -> Vec<TensorFacts> {
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, &(_, tensor))| place[tensor] = at);
    let facts = order.iter().map(|&(layer, tensor)| {
        let t = &model.tensors()[tensor];
        TensorFacts {
            name: t.name.clone(),
            dtype: t.dtype,
            shape: t.shape.clone(),
            bytes: t.bytes,
            same_as: None,
            keep: matches!((layer, max_layers), (LayerId::Layer(n), Some(max)) if n as usize >= max),
        }
    });
    tie(facts.collect(), order, &place, duplicates)
}

/// Points every duplicate at the first of its kind in processing order.
fn tie(
    mut facts: Vec<TensorFacts>,
    order: &[(LayerId, usize)],
    place: &[usize],
    duplicates: &[Option<usize>],
) -> Vec<TensorFacts> {
    let group = |tensor: usize| duplicates[tensor].unwrap_or(tensor);
    let mut first: std::collections::BTreeMap<usize, usize> = std::collections::BTreeMap::new();
    for &(_, tensor) in order {
        let at = place[tensor];
        match first.get(&group(tensor)) {
            Some(&keeper) => facts[at].same_as = Some(keeper),
            None => {
                first.insert(group(tensor), at);
            }
        }
    }
    facts
}

fn jobs(
    model: &Model,
    order: &[(LayerId, usize)],
    facts: Vec<TensorFacts>,
    assignments: Vec<Assignment>,
) -> Result<Vec<Job>> {
    let mut layer = 0;
    let mut out: Vec<Job> = Vec::with_capacity(order.len());
    for (at, ((&(id, tensor), facts), assignment)) in order.iter().zip(facts).zip(assignments).enumerate() {
        if at > 0 && order[at - 1].0 != id {
            layer += 1;
        }
        let tiling = assignment.quantizer.tiling(&facts.matrix()).map_err(Error::codec(&facts.name))?;
        let source = &model.tensors()[tensor];
        out.push(Job {
            item: WorkItem { tensor, layer, dtype: facts.dtype, tiling },
            layer_name: layer_name(id),
            stored: at,
            file: model.files()[source.file].name.clone(),
            offset: source.offset,
            facts,
            assignment,
        });
    }
    Ok(out)
}

fn layer_name(id: LayerId) -> String {
    match id {
        LayerId::Before => "before layers".into(),
        LayerId::Layer(n) => format!("layer {n}"),
        LayerId::After => "after layers".into(),
    }
}

/// Refuses to write into, or over, what is being read.
fn refuse_overlap(model: &Model, path: &Path, output: &Path) -> Result<()> {
    let refuse = || {
        Err(Error::Refused {
            message: format!(
                "the output {} lies inside the model being read; choose another place with -o",
                output.display()
            ),
        })
    };
    // The output may not exist yet: compare the nearest ancestor that does.
    let full = std::path::absolute(output).map_err(Error::io("resolve", output))?;
    // A lone file's folder may hold outputs; a model's folder may not.
    let root = if path.is_file() { path } else { model.files().first().map_or(path, |f| folder(&f.path)) };
    let source = std::fs::canonicalize(root).map_err(Error::io("resolve", root))?;
    let mut existing = full.as_path();
    let mut rest = PathBuf::new();
    let resolved = loop {
        match std::fs::canonicalize(existing) {
            Ok(real) => break real.join(&rest),
            Err(_) => match (existing.parent(), existing.file_name()) {
                (Some(parent), Some(name)) => {
                    rest = Path::new(name).join(&rest);
                    existing = parent;
                }
                _ => break full.clone(),
            },
        }
    };
    if source.is_dir() && resolved.starts_with(&source) || resolved == source { refuse() } else { Ok(()) }
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn describe(
    model: &Model,
    jobs: &[Job],
    source_bytes: u64,
    config: &CompressConfig,
    memory: &Memory,
    warnings: Vec<String>,
) -> Plan {
    let tensors: Vec<PlannedTensor> = jobs
        .iter()
        .map(|j| {
            let quantizer = &*j.assignment.quantizer;
            let whole = j.assignment.estimate.bytes + record_bytes(&j.facts, quantizer);
            let predicted = if j.facts.same_as.is_some() { 0.0 } else { whole };
            PlannedTensor {
                name: j.facts.name.clone(),
                layer: j.layer_name.clone(),
                dtype: j.facts.dtype,
                shape: j.facts.shape.clone(),
                codec: quantizer.id().to_owned(),
                parameters: quantizer.parameters(),
                weights: j.facts.matrix().weights(),
                source_bytes: j.facts.bytes,
                predicted_bytes: predicted.round() as u64,
                predicted_snr_db: Some(j.assignment.estimate.snr_db).filter(|s| s.is_finite()),
                same_as: j.facts.same_as.map(|k| jobs[k].facts.name.clone()),
                reason: j.assignment.reason.clone(),
            }
        })
        .collect();
    let all: Vec<TensorFacts> = jobs.iter().map(|j| j.facts.clone()).collect();
    Plan {
        model: model.name().to_owned(),
        source_bytes,
        weights: stored(&all).map(|t| t.matrix().weights()).sum(),
        predicted_bytes: tensors.iter().map(|t| t.predicted_bytes).sum::<u64>() + FIXED_BYTES as u64,
        predicted_ram_bytes: memory.peak,
        ram_limit_bytes: config.target_ram_mb * 1_000_000,
        streamed_tensors: memory.streamed,
        target: config.target,
        warnings,
        tensors,
    }
}

/// Everything that decides the bytes of the package.
fn fingerprint(
    model: &Model,
    jobs: &[Job],
    config: &CompressConfig,
    calibration: Option<&dyn CalibrationSource>,
) -> Result<Fingerprint> {
    let mut out = Fingerprint::new();
    let mut put = |name: &str, value: String| out.set(name, value);
    put("tool", TOOL.into());
    put("algorithm", ALGORITHM_REVISION.into());
    if let Some(calibration) = calibration {
        put("calibration", format!("{} in {} MB", calibration.identity(), config.target_ram_mb));
    }
    for file in model.files() {
        let hash = blake3::Hash::from_bytes(file.header_blake3).to_hex();
        put(&format!("source {}", file.name), format!("{} bytes, header {}", file.bytes, &hash[..16]));
    }
    for file in model.other_files() {
        let mut hasher = blake3::Hasher::new();
        let opened = File::open(&file.path).map_err(Error::io("open", &file.path))?;
        hasher.update_reader(opened).map_err(Error::io("read", &file.path))?;
        put(&format!("file {}", file.name), hasher.finalize().to_hex()[..16].to_owned());
    }
    put("codec", config.codec.clone().unwrap_or_else(|| "chosen".into()));
    put("codecs", config.codecs.join(" "));
    put("rules", config.rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    put("target", config.target.map_or_else(|| "none".into(), |t| format!("{t:?}")));
    let mut plan = blake3::Hasher::new();
    for job in jobs {
        let q = &job.assignment.quantizer;
        plan.update(format!("{}\0{}\0{}\n", job.facts.name, q.id(), q.parameters()).as_bytes());
        for other in &job.assignment.others {
            plan.update(format!("\0{}\0{}\n", other.id(), other.parameters()).as_bytes());
        }
    }
    put("plan", plan.finalize().to_hex()[..16].to_owned());
    put("quality_monitoring", config.quality_monitoring.to_string());
    let adaptive = match config.adaptive_precision {
        AdaptivePrecision::Off => "off".into(),
        AdaptivePrecision::Threshold => config.quality_threshold.to_string(),
        AdaptivePrecision::Measured => "measured".into(),
    };
    put("adaptive_precision", adaptive);
    put("allow_nonfinite", config.allow_nonfinite.to_string());
    put("shard_bytes", config.shard_bytes.to_string());
    Ok(out)
}

/// A weight that is NaN or infinite, as the user should hear of it.
pub(super) fn nonfinite(job: &Job, index: u64, value: f32) -> Error {
    let rule = if value.is_nan() { "B53" } else { "B54" };
    Error::Input(
        lsb_format::Error::corruption(rule, format!("weight {index} is {value}"))
            .in_file(job.file.as_str())
            .in_tensor(job.facts.name.as_str())
            .at(job.offset + index * job.facts.dtype.bits() / 8)
            .advise("use --allow-nonfinite to keep such tensors raw, or --codec lossless"),
    )
}

/// The report inside a finished package.
pub(crate) fn read_document(store: &dyn Store, output: &Path) -> Result<Document> {
    let path = output.join("report.json");
    let file = store.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
    let bytes = file.size().map_err(Error::io("read", &path))?;
    if bytes > MAX_REPORT_BYTES {
        return Err(Error::Config(format!("{}: {bytes} bytes are no report", path.display())));
    }
    let mut text = vec![0; bytes as usize];
    file.read_exact_at(&mut text, 0).map_err(Error::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))
}

/// No report is longer: two hundred thousand tensors with a kilobyte each.
const MAX_REPORT_BYTES: u64 = 200 << 20;

/// Bytes of what a decoder needs: manifest and shards.
pub(super) fn package_bytes(manifest: &Manifest) -> Result<u64> {
    Ok(manifest.render()?.len() as u64 + manifest.shards.iter().map(|s| s.bytes).sum::<u64>())
}

impl Job {
    pub(super) fn report(
        &self,
        quantizer: &dyn Quantizer,
        encoded: &Encoded,
        notes: Vec<String>,
    ) -> TensorReport {
        TensorReport {
            name: self.facts.name.clone(),
            layer: self.layer_name.clone(),
            shape: self.facts.shape.clone(),
            dtype: self.facts.dtype,
            codec: quantizer.id().to_owned(),
            parameters: quantizer.parameters(),
            weights: self.facts.matrix().weights(),
            source_bytes: self.facts.bytes,
            bytes: 0,
            exact: encoded.exact,
            distortion: encoded.distortion,
            same_as: None,
            tau: None,
            output_cost: None,
            account: encoded.account,
            notes,
        }
    }
}

impl Prepared {
    /// Reads bytes of a job's tensor, from byte `at` of it on.
    pub(super) fn read(&self, job: &Job, at: u64, out: &mut [u8]) -> Result<()> {
        self.input.read(job.item.tensor, at, out)
    }

    pub(super) fn empty_reports(&self) -> Vec<Option<TensorReport>> {
        self.jobs.iter().map(|_| None).collect()
    }

    /// Where the tensor stands in the processing order.
    pub(super) fn position(&self, name: &str) -> Result<usize> {
        self.jobs
            .iter()
            .position(|j| j.facts.name == name)
            .ok_or_else(|| Error::Config(format!("the journal names an unknown tensor \"{name}\"")))
    }

    /// Adds the tensors that are stored with another one.
    pub(super) fn complete_reports(&self, reports: Vec<Option<TensorReport>>) -> Result<Vec<TensorReport>> {
        let mut out: Vec<TensorReport> = Vec::with_capacity(reports.len());
        for (job, report) in self.jobs.iter().zip(reports) {
            let report = match (report, job.facts.same_as) {
                (Some(report), _) => report,
                // A duplicate comes after the tensor it is stored with.
                (None, Some(keeper)) => TensorReport {
                    name: job.facts.name.clone(),
                    layer: job.layer_name.clone(),
                    bytes: 0,
                    same_as: Some(self.jobs[keeper].facts.name.clone()),
                    ..out[keeper].clone()
                },
                (None, None) => {
                    return Err(Error::Config(format!("tensor \"{}\" was not processed", job.facts.name)));
                }
            };
            out.push(report);
        }
        Ok(out)
    }

    /// The tensors of the package, in the order they are written.
    pub(super) fn stored_tensors(&self) -> Vec<TensorPlan> {
        self.jobs
            .iter()
            .map(|j| TensorPlan {
                name: j.facts.name.clone(),
                dtype: j.facts.dtype,
                shape: j.facts.shape.clone(),
                same_as: j.facts.same_as.map(|k| self.jobs[k].facts.name.clone()),
            })
            .collect()
    }

    /// What is compressed, as the manifest says it.
    pub(super) fn source(&self) -> Source {
        let file = |f: &crate::source::WeightFile| SourceFile {
            file: f.name.clone(),
            bytes: f.bytes,
            header_blake3: Digest::from_blake3(&blake3::Hash::from_bytes(f.header_blake3)),
        };
        Source {
            weight_bytes: self.jobs.iter().map(|j| j.facts.bytes).sum(),
            files: self.input.model.files().iter().map(file).collect(),
        }
    }

    /// Copies every file that holds no weights.
    pub(super) fn copy_files(&self, writer: &mut PackageWriter) -> Result<()> {
        for file in self.input.model.other_files() {
            let mut reader = File::open(&file.path).map_err(Error::io("open", &file.path))?;
            // A source's own report or card gives way to the package's.
            if !["lsb.json", "report.json", "README.md"].contains(&file.name.as_str()) {
                writer.add_file(&file.name, &mut reader, FileRole::Copied)?;
            }
        }
        Ok(())
    }
}
