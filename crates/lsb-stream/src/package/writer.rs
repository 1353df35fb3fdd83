//! Writes the tensors of a package, one after the other, into a staging directory.
//!
//! Finished tensors are proven in groups: the data is synced first, then its journal lines are appended and synced.
//! Groups close by bytes and never by time, so the operations of a run are always the same.

use super::JOURNAL_FILE;
use super::begin::Job;
use super::journal::{FinishedTensor, Journal};
use super::staging::{self, sync_dir};
use super::tensor::PackedTensor;
use crate::store::{Lock, OpenMode, StoreFile};
use crate::{Error, Result};
use lsb_format::Tiling;
use lsb_format::package::{
    CodecRecord, Content, FileRecord, FileRole, Hash, MANIFEST_FILE, Manifest, ShardRecord, ShortDigest,
    StoredTensor, TensorKey, TensorRecord, TileTable, check_file_name, max_tile_bytes, shard_file_name,
};
use lsb_quant::{EncodedTile, MatrixInfo, Parameters};
use serde_json::Value;
use std::io::{self, Read};
use std::path::PathBuf;

/// Source bytes after which finished tensors are made durable and journaled: what a kill can cost at most,
/// besides the tensor in work.
pub const GROUP_SOURCE_BYTES: u64 = 64 << 20;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes a package. Made by [`PackageWriter::begin`]; dropping it leaves the work to be continued later.
///
/// After an error nothing more can be written: begin again, which continues from what is proven.
#[derive(Debug)]
pub struct PackageWriter {
    pub(super) job: Job,
    pub(super) lock: Box<dyn Lock>,
    pub(super) journal: Journal,
    /// All finished tensors; those from `unproven` on are not yet in the journal.
    pub(super) finished: Vec<FinishedTensor>,
    unproven: usize,
    unproven_source: u64,
    shard: Option<Shard>,
    current: Option<Current>,
    pub(super) files: Vec<FileRecord>,
    broken: bool,
}

/// The shard that is being written.
#[derive(Debug)]
struct Shard {
    number: usize,
    path: PathBuf,
    file: Box<dyn StoreFile>,
    /// Its name may not be durable yet.
    new: bool,
    /// Bytes that are not written yet, and where they belong.
    buffer: Vec<u8>,
    buffer_at: u64,
}

/// The tensor that is being written.
#[derive(Debug)]
struct Current {
    key: TensorKey,
    tiling: Tiling,
    entries: Vec<(u32, u32)>,
    tiles: u64,
    hasher: blake3::Hasher,
    offset: u64,
}

impl PackageWriter {
    pub(super) fn new(
        job: Job,
        lock: Box<dyn Lock>,
        journal: Journal,
        finished: Vec<FinishedTensor>,
    ) -> Self {
        PackageWriter {
            job,
            lock,
            journal,
            unproven: finished.len(),
            finished,
            unproven_source: 0,
            shard: None,
            current: None,
            files: Vec::new(),
            broken: false,
        }
    }

    /// Index in the plan of the tensor to be written next; `None` once all are.
    pub fn next_tensor(&self) -> Option<usize> {
        self.job.layout.stored.get(self.finished.len()).copied()
    }

    /// The tensors finished so far, in order, those of earlier runs included.
    pub fn finished(&self) -> &[FinishedTensor] {
        &self.finished
    }

    /// Begins the tensor with index `index` of the plan, which must be [`PackageWriter::next_tensor`].
    ///
    /// # Errors
    /// If it is another tensor's turn, the tiling is of another shape, or the shard cannot be opened.
    pub fn begin_tensor(&mut self, index: usize, tiling: Tiling) -> Result<()> {
        self.attempt(|w| {
            let position = w.finished.len();
            let plan = w.job.layout.stored(position).filter(|_| w.next_tensor() == Some(index));
            let (Some(plan), None) = (plan, &w.current) else {
                return Err(misuse(format!("tensor {index} of the plan is not the next one")));
            };
            let matrix = MatrixInfo::of_shape(&plan.shape, plan.dtype);
            if (matrix.rows, matrix.cols) != (tiling.rows(), tiling.cols()) {
                return Err(misuse(format!("the tiling of tensor \"{}\" has another shape", plan.name)));
            }
            let key = TensorKey::new(&w.job.package_id, &plan.name);
            let shard = w.open_shard(position)?;
            let offset = shard.end();
            let hasher = blake3::Hasher::new();
            w.current = Some(Current { key, tiling, entries: Vec::new(), tiles: 0, hasher, offset });
            Ok(())
        })
    }

    /// Appends the next tiles of the current tensor.
    ///
    /// # Errors
    /// If there are more tiles or other parts than the tiling has, if a tile is larger than the format allows,
    /// or if writing fails.
    pub fn push(&mut self, tiles: &[EncodedTile]) -> Result<()> {
        self.attempt(|w| {
            let (Some(current), Some(shard)) = (&mut w.current, &mut w.shard) else {
                return Err(misuse("no tensor was begun"));
            };
            for encoded in tiles {
                if current.tiles >= current.tiling.len() {
                    return Err(misuse(format!("more than {} tiles", current.tiling.len())));
                }
                let tile = current.tiling.tile(current.tiles);
                let parts = encoded.parts();
                if parts.len() != usize::from(current.tiling.parts()) {
                    let expected = current.tiling.parts();
                    return Err(misuse(format!("a tile of {} parts instead of {expected}", parts.len())));
                }
                let most = max_tile_bytes(tile.rows * tile.cols);
                if encoded.bytes().len() as u64 > most {
                    let bytes = encoded.bytes().len();
                    return Err(misuse(format!("a tile of {bytes} bytes: at most {most} are allowed")));
                }
                for (number, part) in (0u8..).zip(parts) {
                    // Tiles are at most 2^24 + 2^16 bytes.
                    let crc = current.key.tile_crc(&tile, number, part);
                    current.entries.push((part.len() as u32, crc));
                }
                current.hasher.update(encoded.bytes());
                current.tiles += 1;
                shard.append(encoded.bytes())?;
            }
            Ok(())
        })
    }

    /// Forgets what was written of the current tensor, so that it can be begun again with another codec.
    ///
    /// # Errors
    /// If no tensor was begun.
    pub fn abort_tensor(&mut self) -> Result<()> {
        self.attempt(|w| {
            let (Some(current), Some(shard)) = (w.current.take(), &mut w.shard) else {
                return Err(misuse("no tensor was begun"));
            };
            shard.rewind(current.offset);
            Ok(())
        })
    }

    /// Ends the current tensor: `side` is the codec's side information, `source` the hash of the tensor's source
    /// bytes, `codec` and `parameters` what was really used, `facts` anything the caller wants back on resume.
    /// Returns the stored bytes.
    ///
    /// # Errors
    /// If tiles are missing, if the tensor is larger than the format allows, or if writing fails.
    pub fn finish_tensor(
        &mut self,
        side: &[u8],
        source: ShortDigest,
        codec: &str,
        parameters: &Parameters,
        facts: Value,
    ) -> Result<u64> {
        self.attempt(|w| {
            let (Some(mut current), Some(shard)) = (w.current.take(), &mut w.shard) else {
                return Err(misuse("no tensor was begun"));
            };
            let table = TileTable::new(current.tiling, source, current.entries, side.to_vec())?;
            let rendered = table.render(&current.key);
            current.hasher.update(&rendered);
            shard.append(&rendered)?;

            let seq = w.finished.len();
            let (Some(plan), Some(place)) = (w.job.layout.stored(seq), w.job.layout.shards.get(shard.number))
            else {
                return Err(misuse("no tensor is left"));
            };
            let (bytes, most) = (shard.end() - current.offset, place.reserved + place.max_data);
            if shard.end() > most {
                let message = format!("the codec grows the tensor \"{}\" to {bytes} bytes", plan.name);
                return Err(misuse(format!("{message}: shard {} overflows", shard.number + 1)));
            }
            let source_bytes = plan.source_bytes()?;
            w.finished.push(FinishedTensor {
                seq,
                name: plan.name.clone(),
                shard: shard.number,
                offset: current.offset,
                bytes,
                blake3: ShortDigest::from_blake3(&current.hasher.finalize()),
                codec: codec_record(codec, parameters)?,
                facts,
            });
            w.unproven_source = w.unproven_source.saturating_add(source_bytes);
            let is_last = place.end == w.finished.len();
            if is_last || w.unproven_source >= GROUP_SOURCE_BYTES {
                w.prove()?;
            }
            if is_last {
                w.shard = None;
            }
            Ok(bytes)
        })
    }

    /// Opens a tensor that is finished, by this run or an earlier one.
    ///
    /// # Errors
    /// If it is not finished, or cannot be read back.
    pub fn open_finished(&mut self, name: &str) -> Result<PackedTensor> {
        self.attempt(|w| {
            let Some(at) = w.finished.iter().position(|f| f.name == name) else {
                return Err(misuse(format!("the tensor \"{name}\" is not finished")));
            };
            if let Some(shard) = &mut w.shard {
                shard.flush()?;
            }
            let (finished, plan) = match (w.finished.get(at), w.job.layout.stored(at)) {
                (Some(finished), Some(plan)) => (finished, plan),
                _ => return Err(misuse("a finished tensor has no plan")),
            };
            let path = w.job.staging.join(shard_file_name(finished.shard));
            let file = w.job.store.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
            let stored = StoredTensor {
                dtype: plan.dtype,
                shape: plan.shape.clone(),
                codec: 0,
                shard: finished.shard,
                blake3: finished.blake3,
            };
            let parameters = serde_json::to_value(&finished.codec.parameters)
                .and_then(serde_json::from_value)
                .map_err(|e| misuse(format!("parameters of {}: {e}", finished.codec.id)))?;
            PackedTensor::open(
                file.into(),
                path,
                TensorKey::new(&w.job.package_id, &plan.name),
                finished.offset..finished.offset + finished.bytes,
                plan.name.clone(),
                stored,
                finished.codec.id.clone(),
                parameters,
            )
        })
    }

    /// Makes every finished tensor durable now, so that a later run continues behind it: for a polite stop.
    ///
    /// # Errors
    /// If writing fails.
    pub fn checkpoint(&mut self) -> Result<()> {
        self.attempt(Self::prove)
    }

    /// Copies `content` into the package as `name`. Files are written again by every run.
    ///
    /// # Errors
    /// If the name is not allowed or given twice, or if reading or writing fails.
    pub fn add_file(&mut self, name: &str, content: &mut dyn Read, role: FileRole) -> Result<()> {
        self.attempt(|w| {
            check_file_name(name)?;
            if w.files.iter().any(|f| f.file.to_lowercase() == name.to_lowercase()) {
                return Err(misuse(format!("the file {name} was already added")));
            }
            let store = &*w.job.store;
            let path = w.job.staging.join(name);
            for (end, _) in name.match_indices('/') {
                let directory = w.job.staging.join(name.get(..end).unwrap_or_default());
                match store.create_dir(&directory) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(Error::io("create", &directory)(e));
                    }
                    _ => {}
                }
            }
            let file = store.open(&path, OpenMode::Create).map_err(Error::io("create", &path))?;
            let mut hasher = blake3::Hasher::new();
            let mut buffer = vec![0; 1 << 18];
            let mut bytes = 0u64;
            loop {
                let n = match content.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(Error::io("copy", &path)(e)),
                };
                let chunk = buffer.get(..n).unwrap_or_default();
                file.write_all_at(chunk, bytes).map_err(Error::io("write", &path))?;
                hasher.update(chunk);
                bytes += n as u64;
            }
            file.sync_data().map_err(Error::io("sync", &path))?;
            let blake3 = Hash::from_blake3(&hasher.finalize());
            w.files.push(FileRecord { file: name.to_owned(), bytes, blake3, role });
            Ok(())
        })
    }

    /// Bytes of `lsb.json` and the shards together, as they will be once `documents` (name and size) are added:
    /// what a report inside the package can say about the package.
    ///
    /// # Errors
    /// If tensors are missing.
    pub fn package_bytes(&self, documents: &[(&str, u64)]) -> Result<u64> {
        let mut manifest = self.manifest()?;
        manifest.files.extend(documents.iter().map(|(name, bytes)| FileRecord {
            file: (*name).to_owned(),
            bytes: *bytes,
            blake3: Hash::from_bytes([0; 32]),
            role: FileRole::Document,
        }));
        Ok(manifest.render()?.len() as u64 + manifest.shards.iter().map(|s| s.bytes).sum::<u64>())
    }

    /// Runs one step; an error in it is final, because what is on disk is then unknown.
    pub(super) fn attempt<R>(&mut self, step: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        if self.broken {
            return Err(misuse("an earlier step failed: begin again to continue from what is proven"));
        }
        let result = step(self);
        self.broken = result.is_err();
        result
    }

    /// Opens the shard of stored tensor `position`, behind what is already in it.
    fn open_shard(&mut self, position: usize) -> Result<&mut Shard> {
        let number = self.job.layout.shard_of(position);
        let open = self.shard.take().filter(|s| s.number == number);
        let shard = match (open, self.job.layout.shards.get(number)) {
            (Some(shard), _) => shard,
            (None, None) => return Err(misuse("no tensor is left")),
            (None, Some(place)) => {
                let path = self.job.staging.join(shard_file_name(number));
                let last = self.finished.last().filter(|f| f.shard == number);
                let mode = if last.is_some() { OpenMode::Update } else { OpenMode::Create };
                let file = self.job.store.open(&path, mode).map_err(Error::io("open", &path))?;
                let (buffer, buffer_at) = match last {
                    Some(last) => {
                        let end = last.offset + last.bytes;
                        file.set_size(end).map_err(Error::io("cut", &path))?;
                        (Vec::new(), end)
                    }
                    // Zeros where the header will be: real bytes, so that a full disk shows now.
                    None => (vec![0; usize::try_from(place.reserved).unwrap_or(0)], 0),
                };
                Shard { number, path, file, new: last.is_none(), buffer, buffer_at }
            }
        };
        Ok(self.shard.insert(shard))
    }

    /// Syncs the data of all finished tensors, then their journal lines.
    fn prove(&mut self) -> Result<()> {
        let unproven = self.finished.get(self.unproven..).unwrap_or_default();
        if let (Some(shard), false) = (&mut self.shard, unproven.is_empty()) {
            shard.flush()?;
            shard.file.sync_data().map_err(Error::io("sync", &shard.path))?;
            if std::mem::take(&mut shard.new) {
                sync_dir(&*self.job.store, &self.job.staging)?;
            }
            self.journal.append(unproven)?;
        }
        self.unproven = self.finished.len();
        self.unproven_source = 0;
        Ok(())
    }

    /// Sizes of the tensors stored in shard `number`.
    pub(super) fn stored_sizes(&self, number: usize) -> Vec<u64> {
        self.finished.iter().filter(|f| f.shard == number).map(|f| f.bytes).collect()
    }

    /// The header of shard `number`, as it will stand in the file.
    pub(super) fn shard_header(&self, number: usize) -> Result<Vec<u8>> {
        let layout = &self.job.layout;
        let Some(place) = layout.shards.get(number) else { return Err(misuse("no such shard")) };
        let sizes = self.stored_sizes(number);
        let header = layout.header(&self.job.package_id, number, layout.shards.len(), place, &sizes);
        Ok(header.render(place.reserved)?)
    }

    /// The manifest of the finished package.
    pub(super) fn manifest(&self) -> Result<Manifest> {
        let layout = &self.job.layout;
        if self.finished.len() != layout.stored.len() || self.current.is_some() {
            let (have, all) = (self.finished.len(), layout.stored.len());
            return Err(misuse(format!("{have} of {all} tensors are written")));
        }
        let mut codecs: Vec<CodecRecord> = Vec::new();
        let mut finished = self.finished.iter();
        let mut tensors = Vec::with_capacity(layout.tensors.len());
        let mut weights = 0u64;
        for plan in &layout.tensors {
            let content = match (&plan.same_as, finished.len()) {
                (Some(other), _) => Content::SameAs(other.clone()),
                (None, _) => {
                    let Some(done) = finished.next() else { return Err(misuse("a tensor is missing")) };
                    let known = codecs.iter().position(|c| *c == done.codec);
                    let codec = known.unwrap_or(codecs.len());
                    if known.is_none() {
                        codecs.push(done.codec.clone());
                    }
                    let stored = StoredTensor {
                        dtype: plan.dtype,
                        shape: plan.shape.clone(),
                        codec,
                        shard: done.shard,
                        blake3: done.blake3,
                    };
                    weights = weights.saturating_add(stored.weights());
                    Content::Stored(stored)
                }
            };
            tensors.push(TensorRecord { name: plan.name.clone(), content });
        }
        let mut shards = Vec::with_capacity(layout.shards.len());
        for number in 0..layout.shards.len() {
            let header = self.shard_header(number)?;
            shards.push(ShardRecord {
                file: shard_file_name(number),
                bytes: header.len() as u64 + self.stored_sizes(number).iter().sum::<u64>(),
                header_blake3: Hash::of(&header),
            });
        }
        Ok(Manifest {
            features: Default::default(),
            tool: self.job.tool.clone(),
            fingerprint: self.job.fingerprint.digest(),
            source: self.job.source.clone(),
            weights,
            codecs,
            shards,
            tensors,
            files: self.files.clone(),
            extra: Default::default(),
        })
    }

    /// Removes everything from the staging directory that is not part of the package: leftovers of earlier runs.
    pub(super) fn sweep(&self) -> Result<()> {
        let own = [MANIFEST_FILE.to_owned(), JOURNAL_FILE.to_owned()];
        let shards = (0..self.job.layout.shards.len()).map(shard_file_name);
        let keep: Vec<String> =
            own.into_iter().chain(shards).chain(self.files.iter().map(|f| f.file.clone())).collect();
        self.sweep_directory("", &keep)
    }

    fn sweep_directory(&self, prefix: &str, keep: &[String]) -> Result<()> {
        let store = &*self.job.store;
        let directory = self.job.staging.join(prefix);
        for name in staging::list(store, &directory)? {
            let inner = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if keep.contains(&inner) {
                continue;
            }
            let below = format!("{inner}/");
            if keep.iter().any(|k| k.starts_with(&below)) {
                self.sweep_directory(&inner, keep)?;
            } else {
                staging::remove_all(store, &self.job.staging.join(&inner), 8)?;
            }
        }
        sync_dir(store, &directory)
    }
}

impl Shard {
    fn end(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all_at(&self.buffer, self.buffer_at).map_err(Error::io("write", &self.path))?;
        self.buffer_at = self.end();
        self.buffer.clear();
        Ok(())
    }

    /// Goes back to `offset`; what lies behind it in the file is written over or cut off later.
    fn rewind(&mut self, offset: u64) {
        match offset.checked_sub(self.buffer_at).and_then(|n| usize::try_from(n).ok()) {
            Some(keep) => self.buffer.truncate(keep),
            None => {
                self.buffer.clear();
                self.buffer_at = offset;
            }
        }
    }
}

fn codec_record(id: &str, parameters: &Parameters) -> Result<CodecRecord> {
    let parameters = parameters
        .iter()
        .map(|(name, value)| Ok((name.to_owned(), serde_json::to_value(value)?)))
        .collect::<Result<_, serde_json::Error>>()
        .map_err(|e| misuse(format!("parameters of {id}: {e}")))?;
    Ok(CodecRecord { id: id.to_owned(), parameters })
}

pub(super) fn misuse(message: impl Into<String>) -> Error {
    Error::Refused { message: message.into() }
}
