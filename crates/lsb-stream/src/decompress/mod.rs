//! A package back into a Hugging Face model directory.

mod layout;

use crate::package::Package;
use crate::process::peak_rss_bytes;
use crate::store::{OpenMode, Store, StoreFile};
use crate::weights::{PackageWeights, Scratch, TensorFacts, TensorWeights, WeightSource};
use crate::{Budget, Error, Observer, Result, threads_or_default};
use layout::{OutTensor, plan_shards};
use lsb_format::DType;
use lsb_format::package::FileRole;
use lsb_quant::{Registry, from_f32_into};
use rayon::prelude::*;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What to decompress, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecompressOptions {
    /// The package directory.
    pub package: PathBuf,
    /// The model directory to make.
    pub output: PathBuf,
    /// Element type of the float tensors; `None` keeps the source's own.
    pub dtype: Option<DType>,
    /// Replace an existing directory.
    pub overwrite: bool,
    /// Memory the process may use, in MB.
    pub target_ram_mb: u64,
    /// Threads; 0 means [`crate::default_threads`].
    pub threads: usize,
    /// Largest weight file to make, in bytes.
    pub shard_bytes: u64,
}

impl DecompressOptions {
    /// From `package` to `output`, everything else by default.
    pub fn new(package: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        DecompressOptions {
            package: package.into(),
            output: output.into(),
            dtype: None,
            overwrite: false,
            target_ram_mb: 400,
            threads: 0,
            shard_bytes: 5_000_000_000,
        }
    }
}

/// What came out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecompressReport {
    /// The model directory.
    pub output: PathBuf,
    /// Tensors written.
    pub tensors: usize,
    /// Of these, how many have the source's own bytes.
    pub exact_tensors: usize,
    /// Bytes of the weight files.
    pub bytes: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Peak resident set of the process.
    pub peak_rss_bytes: u64,
}

/// Turns a package back into safetensors, with every file that was copied into it beside them. The output
/// appears under its name only when it is complete.
///
/// # Errors
/// If the package is damaged, the output exists, or writing fails.
pub fn decompress(
    options: &DecompressOptions,
    registry: &Registry,
    store: &Arc<dyn Store>,
    observer: &mut dyn Observer,
) -> Result<DecompressReport> {
    let start = Instant::now();
    if let Some(dtype) = options.dtype
        && !dtype.is_float()
    {
        return Err(Error::Config(format!("{dtype} is not a float type")));
    }
    let out = &options.output;
    let exists = store.entry(out).map_err(Error::io("look at", out))?.is_some();
    if exists && !options.overwrite {
        let message = format!("{} exists; use --overwrite to replace it, or another -o", out.display());
        return Err(Error::Refused { message });
    }
    let package = Package::open(&options.package)?;
    let copied = package.manifest().files.iter().filter(|f| f.role == FileRole::Copied);
    let files: Vec<String> = copied.map(|f| f.file.clone()).collect();
    let weights = PackageWeights::new(package, registry)?;
    let tensors: Vec<OutTensor> = weights
        .tensors()
        .iter()
        .enumerate()
        .map(|(index, t)| OutTensor::new(index, t, options.dtype))
        .collect::<Result<_>>()?;
    let shards = plan_shards(&tensors, options.shard_bytes);
    let total = tensors.iter().map(|t| t.bytes).sum();
    observer.started(tensors.len(), total, 0);

    let staging = staging(out)?;
    if store.entry(&staging).map_err(Error::io("look at", &staging))?.is_some() {
        clear(&**store, &staging)?;
    } else {
        store.create_dir(&staging).map_err(Error::io("create", &staging))?;
    }
    let work =
        Work { weights: &weights, budget: Budget::for_process(options.target_ram_mb), pool: pool(options)? };
    let mut exact_tensors = 0;
    let mut bytes = 0;
    for (number, shard) in shards.iter().enumerate() {
        let path = staging.join(shard.file_name(number, shards.len()));
        let header = shard.header(&tensors, &weights)?;
        let file = store.open(&path, OpenMode::Create).map_err(Error::io("create", &path))?;
        file.write_all_at(&header, 0).map_err(Error::io("write", &path))?;
        let mut at = header.len() as u64;
        for tensor in &tensors[shard.tensors.clone()] {
            observer.tensor_started(&weights.tensors()[tensor.index].name, tensor.bytes);
            exact_tensors += usize::from(work.write(tensor, &*file, &path, at, observer)?);
            at += tensor.bytes;
        }
        file.sync_data().map_err(Error::io("sync", &path))?;
        bytes += at;
    }
    if shards.len() > 1 {
        let index = layout::index_json(&tensors, &shards, &weights);
        write_whole(&**store, &staging.join("model.safetensors.index.json"), &index)?;
    }
    for name in &files {
        copy(&**store, &options.package.join(name), &staging.join(name))?;
    }
    publish(&**store, &staging, out, exists)?;
    Ok(DecompressReport {
        output: out.clone(),
        tensors: tensors.len(),
        exact_tensors,
        bytes,
        seconds: start.elapsed().as_secs_f64(),
        peak_rss_bytes: peak_rss_bytes(),
    })
}

fn pool(options: &DecompressOptions) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads_or_default(options.threads))
        .build()
        .map_err(|e| Error::Config(format!("cannot start threads: {e}; use --threads 1")))
}

fn staging(out: &Path) -> Result<PathBuf> {
    let name =
        out.file_name().ok_or_else(|| Error::Config(format!("{} is no directory name", out.display())))?;
    Ok(out.with_file_name(format!("{}.partial", name.to_string_lossy())))
}

struct Work<'a> {
    weights: &'a PackageWeights,
    budget: Budget,
    pool: rayon::ThreadPool,
}

/// Output bytes decoded before they are written.
const CHUNK_BYTES: u64 = 16 << 20;

impl Work<'_> {
    /// Decodes one tensor to its place in `file`; says whether its bytes are the source's own.
    fn write(
        &self,
        tensor: &OutTensor,
        file: &dyn StoreFile,
        path: &Path,
        at: u64,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let facts = &self.weights.tensors()[tensor.index];
        let open = self.weights.open(tensor.index)?;
        let exact = open.is_exact() && tensor.dtype == facts.dtype;
        let tiling = *open.tiling();
        let unit = tiling.span_unit();
        let unit_elements = (tiling.tile_rows() * tiling.tile_cols() * unit).max(1);
        let unit_bytes = (unit_elements * tensor.dtype.bits() / 8).max(1);
        let threads = self.pool.current_num_threads() as u64;
        let per_thread = open.scratch_bytes() + 4 * unit_elements;
        // As many units at once as keep the threads busy and stay inside the budget.
        let _scratch = self.budget.reserve(per_thread * threads, "decoding")?;
        let room = (self.budget.limit() - self.budget.used()) / unit_bytes;
        let step = (CHUNK_BYTES / unit_bytes).max(threads).min(room).max(1) * unit;
        let mut buffer = Vec::new();
        let mut done = 0;
        while done < tiling.len() {
            let tiles = done..(done + step).min(tiling.len());
            let elements = tiling.elements(tiles.clone());
            let byte = |e: u64| e * tensor.dtype.bits() / 8;
            let bytes = (byte(elements.end) - byte(elements.start)) as usize;
            let _chunk = self.budget.reserve(bytes as u64, "decoded weights")?;
            buffer.resize(bytes, 0);
            self.decode(&*open, facts, tensor.dtype, exact, &tiles, unit, &mut buffer)?;
            file.write_all_at(&buffer, at + byte(elements.start)).map_err(Error::io("write", path))?;
            observer.advanced(bytes as u64);
            done = tiles.end;
        }
        Ok(exact)
    }

    #[allow(clippy::too_many_arguments, reason = "one private call, all of it needed")]
    fn decode(
        &self,
        open: &dyn TensorWeights,
        facts: &TensorFacts,
        dtype: DType,
        exact: bool,
        tiles: &Range<u64>,
        unit: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let tiling = open.tiling();
        let mut pieces = Vec::new();
        let mut rest = buffer;
        let mut first = tiles.start;
        while first < tiles.end {
            let elements = tiling.elements(first..(first + unit).min(tiles.end));
            let len = ((elements.end - elements.start) * dtype.bits() / 8) as usize;
            let (piece, tail) = rest.split_at_mut(len);
            pieces.push((elements, piece));
            rest = tail;
            first += unit;
        }
        let results: Vec<Result<()>> = self.pool.install(|| {
            pieces
                .into_par_iter()
                .map_init(
                    || (Scratch::default(), Vec::new()),
                    |(scratch, values), (elements, piece)| {
                        if exact || !facts.dtype.is_float() {
                            return open.read_exact(elements, piece, scratch);
                        }
                        values.resize((elements.end - elements.start) as usize, 0.0);
                        open.read_f32(elements, values, scratch)?;
                        from_f32_into(dtype, values, piece);
                        Ok(())
                    },
                )
                .collect()
        });
        results.into_iter().collect()
    }
}

fn write_whole(store: &dyn Store, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = store.open(path, OpenMode::Create).map_err(Error::io("create", path))?;
    file.write_all_at(bytes, 0).map_err(Error::io("write", path))?;
    file.sync_data().map_err(Error::io("sync", path))
}

fn copy(store: &dyn Store, from: &Path, to: &Path) -> Result<()> {
    let mut source = std::fs::File::open(from).map_err(Error::io("open", from))?;
    let file = store.open(to, OpenMode::Create).map_err(Error::io("create", to))?;
    let mut chunk = vec![0; 1 << 16];
    let mut at = 0;
    loop {
        let n = source.read(&mut chunk).map_err(Error::io("read", from))?;
        if n == 0 {
            return file.sync_data().map_err(Error::io("sync", to));
        }
        file.write_all_at(&chunk[..n], at).map_err(Error::io("write", to))?;
        at += n as u64;
    }
}

/// Removes what an interrupted decompression left; refuses to touch anything else.
fn clear(store: &dyn Store, staging: &Path) -> Result<()> {
    let names = store.list(staging).map_err(Error::io("list", staging))?;
    if names.iter().any(|n| n.starts_with("lsb.")) {
        let message =
            format!("{} holds unfinished compression; finish or remove it first", staging.display());
        return Err(Error::Refused { message });
    }
    for name in names {
        let path = staging.join(name);
        store.remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

fn publish(store: &dyn Store, staging: &Path, out: &Path, exists: bool) -> Result<()> {
    store.sync_dir(staging).map_err(Error::io("sync", staging))?;
    if exists {
        store.exchange(staging, out).map_err(Error::io("replace", out))?;
        for name in store.list(staging).map_err(Error::io("list", staging))? {
            let path = staging.join(name);
            store.remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        store.remove_dir(staging).map_err(Error::io("remove", staging))?;
    } else {
        store.rename(staging, out).map_err(Error::io("rename", staging))?;
    }
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    store.sync_dir(parent).map_err(Error::io("sync", parent))
}
