//! A copy of a package in which some tensors have other side information.
//!
//! Tiles are copied part by part and checked on the way; their checksums are made anew, because they hold the package's
//! id. Everything else is copied too, and the two documents say what was done.

use crate::compress::{DOCUMENTS, Document, TOOL, read_document};
use crate::package::{Begin, Package, PackageWriter, TensorPlan, WriteOptions};
use crate::store::Store;
use crate::{Error, Result};
use lsb_format::Error as FormatError;
use lsb_format::package::{Content, FileRecord, FileRole, Fingerprint, Hash, Manifest};
use lsb_quant::EncodedTile;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What to change, and where to write.
#[derive(Clone, Debug)]
pub struct Retouch {
    /// Package directory to make.
    pub output: PathBuf,
    /// New side information of stored tensors, by name.
    pub sides: BTreeMap<String, Vec<u8>>,
    /// A sentence for the package's documents.
    pub note: String,
    /// Replace an existing output.
    pub overwrite: bool,
    /// Discard unfinished work of an earlier run.
    pub restart: bool,
    /// Source bytes after which the package starts a new shard.
    pub shard_bytes: u64,
}

/// The copy.
#[derive(Clone, Debug)]
pub struct Retouched {
    /// What it holds.
    pub manifest: Manifest,
    /// Bytes of its manifest and shards: what a decoder needs.
    pub package_bytes: u64,
    /// True where it was there already.
    pub already_done: bool,
}

/// Copies `package` with the side information of `wanted`. Memory: one tile, and the side information.
///
/// Unfinished work of an earlier call with the same package and side information is continued; the output appears under
/// its name only when it is complete.
///
/// # Errors
/// If a tensor is not stored in the package, anything there is damaged, something is in the way of the output, or
/// writing fails; [`Error::Interrupted`] soon after `interrupt` becomes true.
pub fn retouch(
    package: &Package,
    store: Arc<dyn Store>,
    wanted: &Retouch,
    interrupt: &AtomicBool,
) -> Result<Retouched> {
    let manifest = package.manifest();
    let is_stored =
        |name: &str| manifest.tensor(name).is_some_and(|t| matches!(t.content, Content::Stored(_)));
    if let Some(name) = wanted.sides.keys().find(|name| !is_stored(name)) {
        return Err(FormatError::argument("the package stores no tensor of that name")
            .in_tensor(name)
            .into());
    }
    let options = WriteOptions {
        fingerprint: fingerprint(manifest, wanted)?,
        restart: wanted.restart,
        overwrite: wanted.overwrite,
        tool: TOOL.to_owned(),
        source: manifest.source.clone(),
        tensors: plan(manifest)?,
        shard_bytes: wanted.shard_bytes,
    };
    let mut writer = match PackageWriter::begin(Arc::clone(&store), &wanted.output, options)? {
        Begin::Done(manifest) => return finished(*manifest, true),
        Begin::Write { writer, .. } => writer,
    };
    while let Some(index) = writer.next_tensor() {
        copy_tensor(package, index, wanted, &mut writer, interrupt)?;
    }
    let document = document(package, &*store, wanted, &writer);
    for file in &manifest.files {
        match (&document, DOCUMENTS.contains(&file.file.as_str())) {
            (Some(_), true) => {}
            _ => copy_file(package, file, &mut writer)?,
        }
    }
    if let Some(document) = document {
        writer.add_file(DOCUMENTS[0], &mut document.to_json().as_slice(), FileRole::Document)?;
        writer.add_file(DOCUMENTS[1], &mut document.to_card().as_slice(), FileRole::Document)?;
    }
    finished(writer.publish()?.manifest, false)
}

fn finished(manifest: Manifest, already_done: bool) -> Result<Retouched> {
    let shards: u64 = manifest.shards.iter().map(|s| s.bytes).sum();
    Ok(Retouched { package_bytes: manifest.render()?.len() as u64 + shards, manifest, already_done })
}

/// Everything that decides the bytes: the package, whose manifest holds the hashes of all it has, and what is new.
fn fingerprint(manifest: &Manifest, wanted: &Retouch) -> Result<Fingerprint> {
    let mut sides = blake3::Hasher::new();
    for (name, side) in &wanted.sides {
        for bytes in [name.as_bytes(), side] {
            sides.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
    }
    let package = blake3::hash(&manifest.render()?).to_hex();
    Ok(Fingerprint::new()
        .with("tool", TOOL)
        .with("work", "retouch 1")
        .with("package", &package[..32])
        .with("side information", &sides.finalize().to_hex()[..32])
        .with("note", &*wanted.note))
}

fn plan(manifest: &Manifest) -> Result<Vec<TensorPlan>> {
    let of = |tensor: &lsb_format::package::TensorRecord| {
        let (same_as, content) = match &tensor.content {
            Content::SameAs(other) => (Some(other.clone()), manifest.tensor(other).map(|t| &t.content)),
            content => (None, Some(content)),
        };
        let Some(Content::Stored(stored)) = content else {
            let message = "the tensor it is the same as is not stored";
            return Err(FormatError::corruption("P15", message).in_tensor(&tensor.name).into());
        };
        let (name, shape) = (tensor.name.clone(), stored.shape.clone());
        Ok(TensorPlan { name, dtype: stored.dtype, shape, same_as })
    };
    manifest.tensors.iter().map(of).collect()
}

fn copy_tensor(
    package: &Package,
    index: usize,
    wanted: &Retouch,
    writer: &mut PackageWriter,
    interrupt: &AtomicBool,
) -> Result<()> {
    let tensor = package.tensor_at(index)?;
    writer.begin_tensor(index, *tensor.tiling())?;
    let (mut buffer, mut tile) = (Vec::new(), EncodedTile::default());
    for number in 0..tensor.tiling().len() {
        if interrupt.load(Ordering::Relaxed) {
            writer.abort_tensor()?;
            writer.checkpoint()?;
            return Err(Error::Interrupted);
        }
        tile.clear();
        for part in tensor.read_tile(number, tensor.tiling().parts(), &mut buffer)? {
            tile.buffer().extend_from_slice(part);
            tile.end_part();
        }
        writer.push(std::slice::from_ref(&tile))?;
    }
    let side = wanted.sides.get(tensor.name()).map_or(tensor.side(), Vec::as_slice);
    writer.finish_tensor(side, tensor.source_digest(), tensor.codec(), tensor.parameters(), Value::Null)?;
    Ok(())
}

/// Copies a file that holds no weights, if it is the one the manifest was written with.
fn copy_file(package: &Package, file: &FileRecord, writer: &mut PackageWriter) -> Result<()> {
    let path = package.path().join(&file.file);
    let open = || File::open(&path).map_err(Error::io("open", &path));
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(open()?).map_err(Error::io("read", &path))?;
    if Hash::from_blake3(&hasher.finalize()) != file.blake3 {
        let message = "the file is not the one the manifest was written with";
        return Err(FormatError::corruption("P23", message).in_file(&*file.file).into());
    }
    writer.add_file(&file.file, &mut open()?, file.role)
}

/// The package's report with the new sizes and the note; `None` where it has none that can be read.
fn document(
    package: &Package,
    store: &dyn Store,
    wanted: &Retouch,
    writer: &PackageWriter,
) -> Option<Document> {
    let documents = package.manifest().files.iter().filter(|f| f.role == FileRole::Document);
    if documents.filter(|f| DOCUMENTS.contains(&f.file.as_str())).count() != DOCUMENTS.len() {
        return None;
    }
    let mut document = read_document(store, package.path()).ok()?;
    for tensor in writer.finished() {
        if let Some(report) = document.tensors.iter_mut().find(|t| t.name == tensor.name) {
            report.bytes = tensor.bytes;
        }
    }
    document.calibration.push(wanted.note.clone());
    Some(document)
}
