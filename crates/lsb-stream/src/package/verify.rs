//! Checks a package and lists all that is damaged, down to the tile.

use super::reader::{Files, Package, check_size};
use super::staging::exists;
use super::tensor::PackedTensor;
use super::{CHUNK_BYTES, read_exact};
use crate::store::{Entry, OpenMode, RealStore, Store};
use crate::{Error, Result};
use lsb_format::Error as FormatError;
use lsb_format::package::{Content, Digest, FileRecord, MANIFEST_FILE, Manifest};
use serde::Serialize;
use std::collections::BTreeSet;
use std::ops::Range;
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
    Ok(Check::run(store, path, depth)?.report)
}

/// True if nothing is damaged. What cannot be read is an error here: on the answer depends whether work is done
/// again.
pub(super) fn is_sound(store: Arc<dyn Store>, path: &Path, depth: Depth) -> Result<bool> {
    let check = Check::run(store, path, depth)?;
    match check.unreadable {
        Some(error) => Err(error),
        None => Ok(check.report.ok),
    }
}

/// A check in progress.
struct Check {
    depth: Depth,
    report: VerifyReport,
    /// The first error of the operating system.
    unreadable: Option<Error>,
}

impl Check {
    fn run(store: Arc<dyn Store>, path: &Path, depth: Depth) -> Result<Self> {
        let report = VerifyReport { ok: true, tensors: 0, bytes: 0, damaged: Vec::new() };
        let mut check = Check { depth, report, unreadable: None };
        let files = Files::new(Arc::clone(&store), path);
        let store = &*store;
        let manifest_path = path.join(MANIFEST_FILE);
        let manifest = match files.manifest() {
            Ok(manifest) => manifest,
            Err(error) => {
                if !exists(store, &manifest_path)? {
                    return Err(error);
                }
                // Without a manifest nothing else can be judged.
                check.add(error, MANIFEST_FILE, None);
                return Ok(check);
            }
        };
        if let Some(Entry::File(size)) =
            store.entry(&manifest_path).map_err(Error::io("look at", &manifest_path))?
        {
            let others =
                manifest.shards.iter().map(|s| s.bytes).chain(manifest.files.iter().map(|f| f.bytes));
            check.report.bytes = others.fold(size, u64::saturating_add);
        }
        let places = check.shards(&files, &manifest);
        for file in &manifest.files {
            check.file(store, path, file);
        }
        let shards = manifest.shards.iter().map(|s| s.file.as_str());
        let listed = shards.chain(manifest.files.iter().map(|f| f.file.as_str())).chain([MANIFEST_FILE]);
        check.extra(store, path, "", &listed.collect())?;
        check.tensors(&Package::assemble(files, manifest, places));
        Ok(check)
    }

    fn add(&mut self, error: Error, file: &str, tensor: Option<&str>) {
        let (message, tensor, tile) = match &error {
            Error::Input(e) => {
                let advice = if e.advice().is_empty() { String::new() } else { format!("; {}", e.advice()) };
                let message = format!("[{}] {}{advice}", e.rule(), e.message());
                (message, e.tensor().or(tensor), e.tile())
            }
            e => (e.to_string(), tensor, None),
        };
        let (file, tensor) = (file.to_owned(), tensor.map(str::to_owned));
        self.report.ok = false;
        self.report.damaged.push(Damage { file, tensor, tile, message });
        if matches!(error, Error::Io { .. }) {
            self.unreadable.get_or_insert(error);
        }
    }

    /// Checks sizes and headers of all shards; returns where the tensors lie that can be found.
    fn shards(&mut self, files: &Files, manifest: &Manifest) -> Vec<Option<Range<u64>>> {
        let mut places = vec![None; manifest.tensors.len()];
        for (number, shard) in manifest.shards.iter().enumerate() {
            let sized = files.check_size(manifest, number).map_err(|e| self.add(e, &shard.file, None));
            match files.shard_places(manifest, number) {
                Ok(found) => {
                    for (tensor, place) in found {
                        if let Some(slot) = places.get_mut(tensor) {
                            *slot = Some(place);
                        }
                    }
                }
                // A file that is missing or has another size has been reported already.
                Err(_) if sized.is_err() => {}
                Err(error) => self.add(error, &shard.file, None),
            }
        }
        places
    }

    /// Checks the tensors of all shards with a valid header; the others have been reported with their shard.
    fn tensors(&mut self, package: &Package) {
        let manifest = package.manifest();
        for (index, tensor) in manifest.tensors.iter().enumerate() {
            let Content::Stored(stored) = &tensor.content else { continue };
            if package.place(index).is_none() {
                continue;
            }
            self.report.tensors += 1;
            let shard = manifest.shards.get(stored.shard).map_or("", |s| s.file.as_str());
            match package.tensor_at(index) {
                Ok(packed) if self.depth != Depth::Quick => self.tensor(&packed, shard),
                Ok(_) => {}
                Err(error) => self.add(error, shard, Some(&tensor.name)),
            }
        }
    }

    /// Checks every tile, and the hash of the whole tensor where all tiles are well.
    fn tensor(&mut self, tensor: &PackedTensor, shard: &str) {
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
                    self.add(error, shard, Some(tensor.name()));
                    well = false;
                }
            }
        }
        if well && let Err(error) = tensor.check_hash(hasher, data) {
            self.add(error, shard, Some(tensor.name()));
        }
    }

    fn file(&mut self, store: &dyn Store, root: &Path, file: &FileRecord) {
        let path = root.join(&file.file);
        let result = store
            .entry(&path)
            .map_err(Error::io("look at", &path))
            .and_then(|found| check_size(found, &file.file, file.bytes))
            .and_then(
                |()| if self.depth == Depth::Full { check_content(store, &path, file) } else { Ok(()) },
            );
        if let Err(error) = result {
            self.add(error, &file.file, None);
        }
    }

    /// Reports files that the package does not list. Names that start with a dot belong to other tools.
    fn extra(&mut self, store: &dyn Store, root: &Path, prefix: &str, listed: &BTreeSet<&str>) -> Result<()> {
        let directory = root.join(prefix);
        for name in store.list(&directory).map_err(Error::io("list", &directory))? {
            let inner = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            if name.starts_with('.') || listed.contains(inner.as_str()) {
                continue;
            }
            let below = format!("{inner}/");
            let on_the_way = listed.range(below.as_str()..).next().is_some_and(|l| l.starts_with(&below));
            let path = root.join(&inner);
            let entry = store.entry(&path).map_err(Error::io("look at", &path))?;
            if on_the_way && entry == Some(Entry::Directory) {
                self.extra(store, root, &inner, listed)?;
            } else {
                let error = FormatError::corruption("P24", "the package does not list this file");
                self.add(error.advise("remove it").into(), &inner, None);
            }
        }
        Ok(())
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
    Err(FormatError::corruption("P23", message).advise("fetch this file again").into())
}
