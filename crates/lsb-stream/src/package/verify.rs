//! Checks a package and lists all that is damaged, down to the tile.

use super::reader::{Files, Package, check_size};
use super::tensor::PackedTensor;
use super::{CHUNK_BYTES, read_exact};
use crate::store::{Entry, OpenMode, RealStore, Store};
use crate::{Error, Result};
use lsb_format::package::{Content, Digest, FileRecord, MANIFEST_FILE, MAX_FILE_NAME_DEPTH, ShortDigest};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// How much to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Manifest, sizes of all files, shard headers, tile tables. Reads next to nothing.
    Quick,
    /// As quick, and every byte of the shards: the checksum of each tile, the hash of each tensor.
    Weights,
    /// As weights, and the hashes of all other files.
    Full,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file, named inside the package.
    pub file: String,
    /// The tensor, where it can be told.
    pub tensor: Option<String>,
    /// The tile of the tensor, where it can be told.
    pub tile: Option<u64>,
    /// What is wrong with it.
    pub message: String,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// True where nothing is damaged.
    pub ok: bool,
    /// Stored tensors that were looked at.
    pub tensors: u64,
    /// Bytes of all files that the package lists, the manifest included.
    pub bytes: u64,
    /// Everything that is damaged.
    pub damaged: Vec<Damage>,
}

/// Checks the package in directory `path`.
///
/// Damage is no error: it is what the report lists, and checking goes on behind it.
///
/// # Errors
/// If `path` holds no package at all, or cannot be read.
pub fn verify(path: &Path, depth: Depth) -> Result<VerifyReport> {
    verify_in(Arc::new(RealStore), path, depth)
}

/// As [`verify`], in any store.
///
/// # Errors
/// As [`verify`].
pub fn verify_in(store: Arc<dyn Store>, path: &Path, depth: Depth) -> Result<VerifyReport> {
    let files = Files::new(Arc::clone(&store), path);
    let mut report = VerifyReport { ok: true, tensors: 0, bytes: 0, damaged: Vec::new() };
    let manifest_path = path.join(MANIFEST_FILE);
    if store.entry(&manifest_path).map_err(Error::io("look at", &manifest_path))?.is_none() {
        return Err(files.manifest().err().unwrap_or(Error::Interrupted));
    }
    let manifest = match files.manifest() {
        Ok(manifest) => manifest,
        Err(error) => {
            // Without a manifest nothing else can be judged.
            report.add(error, MANIFEST_FILE, None);
            return Ok(report);
        }
    };
    report.bytes = store_size(&*store, &manifest_path)?
        + manifest.shards.iter().map(|s| s.bytes).chain(manifest.files.iter().map(|f| f.bytes)).sum::<u64>();

    let mut places = vec![None; manifest.tensors.len()];
    for (number, shard) in manifest.shards.iter().enumerate() {
        let mut check = |result: Result<()>| result.map_err(|e| report.add(e, &shard.file, None)).is_ok();
        let sized = check(files.check_size(&manifest, number));
        match files.shard_places(&manifest, number) {
            Ok(found) => {
                for (tensor, place) in found {
                    if let Some(slot) = places.get_mut(tensor) {
                        *slot = Some(place);
                    }
                }
            }
            // A missing file has been reported already.
            Err(Error::Io { .. }) if !sized => {}
            Err(error) => {
                check(Err(error));
            }
        }
    }
    for file in &manifest.files {
        check_file(&*store, path, file, depth, &mut report);
    }
    let listed: BTreeSet<&str> = manifest
        .shards
        .iter()
        .map(|s| s.file.as_str())
        .chain(manifest.files.iter().map(|f| f.file.as_str()))
        .chain([MANIFEST_FILE])
        .collect();
    find_extra(&*store, path, "", &listed, &mut report)?;

    let located: Vec<bool> = places.iter().map(Option::is_some).collect();
    let package = Package::assemble(files, manifest, places);
    for (index, tensor) in package.manifest().tensors.iter().enumerate() {
        // Tensors of a shard without a valid header cannot be found; the header has been reported.
        let (Content::Stored(stored), Some(true)) = (&tensor.content, located.get(index)) else { continue };
        report.tensors += 1;
        let shard = package.manifest().shards.get(stored.shard).map_or("", |s| s.file.as_str());
        match package.tensor_at(index) {
            Ok(packed) if depth != Depth::Quick => check_tensor(&packed, shard, &mut report),
            Ok(_) => {}
            Err(error) => report.add(error, shard, Some(&tensor.name)),
        }
    }
    Ok(report)
}

impl VerifyReport {
    fn add(&mut self, error: Error, file: &str, tensor: Option<&str>) {
        self.ok = false;
        let (message, tensor, tile) = match &error {
            Error::Input(e) => {
                let advice = if e.advice().is_empty() { String::new() } else { format!("; {}", e.advice()) };
                let message = format!("[{}] {}{advice}", e.rule(), e.message());
                (message, e.tensor().or(tensor), e.tile())
            }
            e => (e.to_string(), tensor, None),
        };
        self.damaged.push(Damage { file: file.to_owned(), tensor: tensor.map(str::to_owned), tile, message });
    }
}

fn store_size(store: &dyn Store, path: &Path) -> Result<u64> {
    match store.entry(path).map_err(Error::io("look at", path))? {
        Some(Entry::File(size)) => Ok(size),
        _ => Ok(0),
    }
}

/// Checks every tile, and the hash of the whole tensor where all tiles are well.
fn check_tensor(tensor: &PackedTensor, shard: &str, report: &mut VerifyReport) {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    let mut well = true;
    let mut data = 0;
    for index in 0..tensor.tiling().len() {
        match tensor.read_tile(index, tensor.tiling().parts(), &mut buffer) {
            Ok(_) => {
                hasher.update(&buffer);
                data += buffer.len() as u64;
            }
            Err(error) => {
                report.add(error, shard, Some(tensor.name()));
                well = false;
            }
        }
    }
    if !well {
        return;
    }
    // The table and its length field.
    let start = tensor.place.start + data;
    buffer.clear();
    buffer.resize(usize::try_from(tensor.place.end - start).unwrap_or(0), 0);
    let result = read_exact(&*tensor.file, &tensor.path, &mut buffer, start).and_then(|()| {
        hasher.update(&buffer);
        let found = ShortDigest::from_blake3(&hasher.finalize());
        let stored = tensor.stored().blake3;
        if found == stored {
            return Ok(());
        }
        let message = format!("the tensor's hash is {found} and should be {stored}");
        let error = lsb_format::Error::corruption("P22", message);
        Err(error.advise("fetch or build this file again").into())
    });
    if let Err(error) = result {
        report.add(error, shard, Some(tensor.name()));
    }
}

fn check_file(store: &dyn Store, root: &Path, file: &FileRecord, depth: Depth, report: &mut VerifyReport) {
    let path = root.join(&file.file);
    let result = store
        .entry(&path)
        .map_err(Error::io("look at", &path))
        .and_then(|found| check_size(found, &file.file, file.bytes))
        .and_then(|()| if depth == Depth::Full { check_content(store, &path, file) } else { Ok(()) });
    if let Err(error) = result {
        report.add(error, &file.file, None);
    }
}

fn check_content(store: &dyn Store, path: &Path, file: &FileRecord) -> Result<()> {
    let handle = store.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < file.bytes {
        let length = usize::try_from(file.bytes - at).map_or(CHUNK_BYTES, |n| n.min(CHUNK_BYTES));
        let (chunk, _) = buffer.split_at_mut(length);
        read_exact(&*handle, path, chunk, at)?;
        hasher.update(chunk);
        at += length as u64;
    }
    let found = Digest::from_blake3(&hasher.finalize());
    if found == file.blake3 {
        return Ok(());
    }
    let message = format!("the file's hash is {found} and should be {}", file.blake3);
    Err(lsb_format::Error::corruption("P23", message).advise("fetch this file again").into())
}

/// Reports files that the package does not list. Names that start with a dot belong to other tools.
fn find_extra(
    store: &dyn Store,
    root: &Path,
    prefix: &str,
    listed: &BTreeSet<&str>,
    report: &mut VerifyReport,
) -> Result<()> {
    let directory = root.join(prefix);
    for name in store.list(&directory).map_err(Error::io("list", &directory))? {
        let inner = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        if name.starts_with('.') || listed.contains(inner.as_str()) {
            continue;
        }
        let below = format!("{inner}/");
        let on_the_way = inner.split('/').count() < MAX_FILE_NAME_DEPTH
            && listed.range(below.as_str()..).next().is_some_and(|l| l.starts_with(&below));
        let path = root.join(&inner);
        if on_the_way && store.entry(&path).map_err(Error::io("look at", &path))? == Some(Entry::Directory) {
            find_extra(store, root, &inner, listed, report)?;
        } else {
            let error = lsb_format::Error::corruption("P24", "the package does not list this file");
            report.add(error.advise("remove it").into(), &inner, None);
        }
    }
    Ok(())
}
