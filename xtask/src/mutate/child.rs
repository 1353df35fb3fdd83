//! The child: mutates inputs of one target until its time is up.

use super::mutator::{Random, mutate};
use super::{Args, Target, allocator};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The largest single allocation a case may make, in bytes.
const MAX_ALLOCATION: usize = 64 << 20;
/// Time for one case.
const MAX_TIME: Duration = Duration::from_secs(1);
/// Time after which a case counts as hung and the process ends.
const HUNG: Duration = Duration::from_secs(20);
/// Bytes of kept inputs per target, and of one of them.
const MAX_CORPUS: usize = 16 << 10;
const MAX_KEPT: usize = 2 << 10;
/// Faults after which a target stops: the first ones say enough.
const MAX_FINDINGS: usize = 8;

/// Where inputs and findings are.
pub(super) struct Layout {
    corpus: PathBuf,
    pub(super) findings: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Layout { corpus: root.join("fuzz/corpus"), findings: root.join("fuzz/findings") }
    }

    /// The file that holds the input being tried: its length, then its bytes.
    pub(super) fn running(&self, target: &Target) -> PathBuf {
        self.findings.join(format!(".running-{}", target.name))
    }

    pub(super) fn read_running(&self, target: &Target) -> Option<Vec<u8>> {
        let bytes = fs::read(self.running(target)).ok()?;
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        rest.get(..len).map(<[u8]>::to_vec)
    }

    pub(super) fn save_finding(&self, target: &Target, data: &[u8]) -> Result<PathBuf> {
        let path = self.findings.join(format!("{}-{}", target.name, short_hash(data)));
        fs::write(&path, data).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn short_hash(data: &[u8]) -> String {
    blake3::hash(data).to_hex()[..12].to_owned()
}

/// Inputs worth changing further, by what they did.
#[derive(Default)]
struct Corpus {
    inputs: Vec<Vec<u8>>,
    /// For each signature, the index of the shortest input that has it.
    by_signature: BTreeMap<String, usize>,
}

impl Corpus {
    /// Adds `data` where its signature is new, or where it is much shorter than what is known.
    fn offer(&mut self, signature: String, data: Vec<u8>) -> bool {
        match self.by_signature.get(&signature) {
            Some(&i) if data.len() * 2 >= self.inputs[i].len() => false,
            Some(&i) => {
                self.inputs[i] = data;
                false
            }
            None => {
                self.by_signature.insert(signature, self.inputs.len());
                self.inputs.push(data);
                true
            }
        }
    }
}

struct Case<'a> {
    target: &'a Target,
    running: File,
    /// Milliseconds since the start at which the current case began.
    began: Arc<AtomicU64>,
    start: Instant,
}

impl Case<'_> {
    /// Runs one input; an error is a finding.
    fn try_input(&self, data: &[u8]) -> Result<String, String> {
        // One write: should the process die, this is what it died of.
        let record = [&(data.len() as u64).to_le_bytes(), data].concat();
        self.running.write_all_at(&record, 0).map_err(|e| format!("cannot write the running input: {e}"))?;
        allocator::take_largest();
        self.began.store(self.start.elapsed().as_millis() as u64, Relaxed);
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| (self.target.run)(data)));
        let took = begin.elapsed();
        self.began.store(u64::MAX, Relaxed);
        let largest = allocator::take_largest();
        let signature = result.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_else(|| "panic".to_owned())
        })?;
        if largest > MAX_ALLOCATION {
            return Err(format!("asked for {largest} bytes at once, at most {MAX_ALLOCATION}"));
        }
        if took > MAX_TIME {
            return Err(format!("took {} ms, at most {}", took.as_millis(), MAX_TIME.as_millis()));
        }
        Ok(signature)
    }
}

pub(super) fn run(target: &Target, args: &Args, layout: &Layout) -> Result<()> {
    fs::create_dir_all(&layout.findings)?;
    let began = Arc::new(AtomicU64::new(u64::MAX));
    let start = Instant::now();
    watch(target.name, began.clone(), start);
    let panic_text = Arc::new(Mutex::new(String::new()));
    let hook_text = panic_text.clone();
    std::panic::set_hook(Box::new(move |info| {
        if let (Ok(mut text), Some(place)) = (hook_text.lock(), info.location()) {
            *text = place.to_string();
        }
    }));
    let case = Case { target, running: File::create(layout.running(target))?, began, start };

    let mut corpus = Corpus::default();
    let mut findings = BTreeSet::new();
    let mut report = |data: &[u8], fault: String| -> Result<usize> {
        let place = panic_text.lock().map(|mut t| std::mem::take(&mut *t)).unwrap_or_default();
        // One finding per place, or per kind of fault: the rest would only repeat it.
        let kind: String = fault.chars().filter(|c| !c.is_ascii_digit()).collect();
        let key = if place.is_empty() { kind } else { place.clone() };
        if findings.insert(key) {
            let path = layout.save_finding(target, data)?;
            println!("{}: FAULT {fault} {place} on {}", target.name, path.display());
        }
        Ok(findings.len())
    };

    let mut faults = 0;
    for input in seeds(target, layout)? {
        match case.try_input(&input) {
            // Every seed is kept as a starting point, whatever it does.
            Ok(signature) => {
                if !corpus.offer(signature, input.clone()) {
                    corpus.inputs.push(input);
                }
            }
            Err(fault) => faults = report(&input, fault)?,
        }
    }
    if corpus.inputs.is_empty() {
        corpus.inputs.push(Vec::new());
    }
    let mut random = Random::new(args.seed ^ u64::from(crc(target.name)));
    let (mut cases, mut kept) = (0u64, Vec::new());
    while start.elapsed().as_secs() < args.seconds && faults < MAX_FINDINGS {
        let input = &corpus.inputs[random.below(corpus.inputs.len())];
        let other = &corpus.inputs[random.below(corpus.inputs.len())];
        let mut data = mutate(&mut random, input, other);
        // Mostly repaired, so that most cases get past the checksum; sometimes not, to test the checksum.
        if random.below(8) != 0 {
            (target.repair)(&mut data);
        }
        cases += 1;
        match case.try_input(&data) {
            Ok(signature) => {
                if corpus.offer(signature, data.clone()) {
                    kept.push(data);
                }
            }
            Err(fault) => faults = report(&data, fault)?,
        }
    }
    println!(
        "{}: {cases} cases in {} s, {} outcomes, {} new",
        target.name,
        start.elapsed().as_secs(),
        corpus.by_signature.len(),
        kept.len()
    );
    if args.keep {
        keep(&layout.corpus.join(target.name), &kept)?;
    }
    fs::remove_file(layout.running(target))?;
    if faults > 0 {
        bail!("{faults} faults");
    }
    Ok(())
}

/// Generated seeds and committed inputs, in a fixed order.
fn seeds(target: &Target, layout: &Layout) -> Result<Vec<Vec<u8>>> {
    let mut out: Vec<Vec<u8>> = (target.seeds)()?.into_iter().map(|(_, bytes)| bytes).collect();
    let folder = layout.corpus.join(target.name);
    let mut paths: Vec<_> = match fs::read_dir(&folder) {
        Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).collect(),
        Err(_) => Vec::new(),
    };
    paths.sort();
    for path in paths {
        out.push(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(out)
}

/// Adds inputs to the corpus while there is room, shortest first.
fn keep(folder: &Path, inputs: &[Vec<u8>]) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut room = MAX_CORPUS;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("seed-") {
            room = room.saturating_sub(entry.metadata()?.len() as usize);
        }
    }
    let mut inputs: Vec<_> = inputs.iter().filter(|i| i.len() <= MAX_KEPT).collect();
    inputs.sort_by_key(|i| i.len());
    for input in inputs {
        if input.len() > room {
            break;
        }
        room -= input.len();
        fs::write(folder.join(short_hash(input)), input)?;
    }
    Ok(())
}

/// Ends the process when a case hangs; the parent then finds the input in the running file.
fn watch(name: &'static str, began: Arc<AtomicU64>, start: Instant) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let began = began.load(Relaxed);
            let now = start.elapsed().as_millis() as u64;
            if began != u64::MAX && now.saturating_sub(began) > HUNG.as_millis() as u64 {
                eprintln!("{name}: a case hangs");
                std::process::exit(1);
            }
        }
    });
}

/// Different targets start from different random numbers.
fn crc(name: &str) -> u32 {
    name.bytes().fold(17, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)))
}
