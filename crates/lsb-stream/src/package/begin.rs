//! Starting, continuing or recognising a package: everything that happens before the first new weight.
//!
//! What is there decides: a finished output with the same fingerprint is done, a staging directory with a journal
//! is continued behind the last tensor whose bytes still have their hash, a complete one is published. Nothing is
//! written before all of that is known, so a kill in here changes nothing.

use super::journal::{FinishedTensor, Journal, Proven};
use super::layout::{Layout, TensorPlan};
use super::staging::{self, exists, sync_dir};
use super::verify::{Depth, is_sound};
use super::writer::PackageWriter;
use super::{CHUNK_BYTES, JOURNAL_FILE, Package};
use crate::store::{Entry, OpenMode, Store, StoreFile};
use crate::{Error, Result};
use lsb_format::package::{Fingerprint, MANIFEST_FILE, Manifest, ShortDigest, Source, shard_file_name};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is to be written, and how to treat what is already there.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// What decides the bytes. The plan and the shard size are added to it.
    pub fingerprint: Fingerprint,
    /// Discard unfinished work instead of continuing it.
    pub restart: bool,
    /// Replace a package that is already there, once the new one is complete.
    pub overwrite: bool,
    /// The program and its version, such as `lsb 0.1.0`.
    pub tool: String,
    /// What is compressed.
    pub source: Source,
    /// The tensors in the order they will be written.
    pub tensors: Vec<TensorPlan>,
    /// Source bytes after which a new shard starts.
    pub shard_bytes: u64,
}

/// How a package begins.
#[derive(Debug)]
pub enum Begin {
    /// It is already there, complete and with the same fingerprint.
    Done(Box<Manifest>),
    /// It is to be written.
    Write {
        /// Takes the tensors that are missing.
        writer: Box<PackageWriter>,
        /// The tensors that are already written, in order.
        finished: Vec<FinishedTensor>,
    },
}

/// What begins, resolved from [`WriteOptions`].
#[derive(Debug)]
pub(super) struct Job {
    pub(super) store: Arc<dyn Store>,
    pub(super) out: PathBuf,
    pub(super) staging: PathBuf,
    pub(super) fingerprint: Fingerprint,
    pub(super) package_id: String,
    pub(super) overwrite: bool,
    pub(super) tool: String,
    pub(super) source: Source,
    pub(super) layout: Layout,
}

impl PackageWriter {
    /// Begins the package `out`, whose parent directory must exist.
    ///
    /// # Errors
    /// [`Error::InUse`] if another process works on it, [`Error::Resume`] if unfinished work there was started
    /// with another fingerprint, [`Error::Refused`] if something else is in the way or the plan is impossible,
    /// [`Error::Io`] if the operating system refuses.
    pub fn begin(store: Arc<dyn Store>, out: &Path, options: WriteOptions) -> Result<Begin> {
        let restart = options.restart;
        let job = Job::new(store, out, options)?;
        let store = &*job.store;

        let staged = exists(store, &job.staging)?;
        let lock = if staged { Some(staging::lock(store, &job.staging, out)?) } else { None };
        if let Some(manifest) = job.finished_output()? {
            // A kill after the exchange leaves the old package behind; unfinished other work has a journal.
            if staged && staging::is_ours(&staging::list(store, &job.staging)?) && job.proven()?.is_none() {
                staging::remove(store, &job.staging)?;
            }
            return Ok(Begin::Done(Box::new(manifest)));
        }
        job.check_output()?;

        let Some(lock) = lock else {
            store.create_dir(&job.staging).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => Error::InUse { path: out.to_owned() },
                _ => Error::io("create", &job.staging)(e),
            })?;
            let lock = staging::lock(store, &job.staging, out)?;
            return job.start(lock);
        };
        if !restart {
            if let Some(proven) = job.proven()? {
                return job.resume(lock, proven);
            }
            if let Some(manifest) = job.complete_staging()? {
                job.put_in_place(lock)?;
                return Ok(Begin::Done(Box::new(manifest)));
            }
        }
        staging::clear(store, &job.staging)?;
        job.start(lock)
    }
}

impl Job {
    fn new(store: Arc<dyn Store>, out: &Path, options: WriteOptions) -> Result<Self> {
        let plan = Layout::digest(&options.tensors, options.shard_bytes);
        let fingerprint = options.fingerprint.with("package plan", plan.to_string());
        let package_id = fingerprint.package_id();
        let layout = Layout::new(options.tensors, options.shard_bytes, &package_id)?;
        Ok(Job {
            store,
            staging: staging::staging_path(out)?,
            out: out.to_owned(),
            fingerprint,
            package_id,
            overwrite: options.overwrite,
            tool: options.tool,
            source: options.source,
            layout,
        })
    }

    /// The manifest of the output if that is already what is asked for.
    fn finished_output(&self) -> Result<Option<Manifest>> {
        let store = &self.store;
        if !exists(&**store, &self.out.join(MANIFEST_FILE))? {
            return Ok(None);
        }
        let Some(package) = valid(Package::open_in(Arc::clone(store), &self.out))? else { return Ok(None) };
        if package.manifest().fingerprint != self.fingerprint.digest()
            || !is_sound(Arc::clone(store), &self.out, Depth::Quick)?
        {
            return Ok(None);
        }
        Ok(Some(package.into_manifest()))
    }

    /// What the journal of the staging directory proves, if there is one that proves anything.
    fn proven(&self) -> Result<Option<Proven>> {
        let path = self.staging.join(JOURNAL_FILE);
        if exists(&*self.store, &path)? { Journal::read(&*self.store, &path) } else { Ok(None) }
    }

    /// Refuses to begin where the output is in the way.
    fn check_output(&self) -> Result<()> {
        let refuse = |why: &str| {
            Err(Error::Refused { message: format!("{} already exists {why}", self.out.display()) })
        };
        match self.store.entry(&self.out).map_err(Error::io("look at", &self.out))? {
            None => Ok(()),
            Some(Entry::Directory) => {
                let names = staging::list(&*self.store, &self.out)?;
                if names.is_empty() {
                    Ok(())
                } else if !names.iter().any(|n| n == MANIFEST_FILE) {
                    refuse("and is not an lsb package; choose another output")
                } else if !self.overwrite {
                    refuse("with other content; use --overwrite to replace it, or choose another output")
                } else {
                    Ok(())
                }
            }
            Some(_) => refuse("and is not a directory; choose another output"),
        }
    }

    /// The manifest of the staging directory if that is complete: only its new name is missing.
    fn complete_staging(&self) -> Result<Option<Manifest>> {
        let store = &self.store;
        // Where a journal is left, the last sync before its removal may not have happened.
        if !exists(&**store, &self.staging.join(MANIFEST_FILE))?
            || exists(&**store, &self.staging.join(JOURNAL_FILE))?
        {
            return Ok(None);
        }
        let Some(package) = valid(Package::open_in(Arc::clone(store), &self.staging))? else {
            return Ok(None);
        };
        if !is_sound(Arc::clone(store), &self.staging, Depth::Full)? {
            return Ok(None);
        }
        let (then, now) = (package.manifest().fingerprint, self.fingerprint.digest());
        if then != now {
            return Err(Error::Resume {
                path: self.staging.clone(),
                field: "fingerprint".to_owned(),
                then: then.to_string(),
                now: now.to_string(),
            });
        }
        Ok(Some(package.into_manifest()))
    }

    /// Starts in an empty staging directory.
    fn start(self, lock: Box<dyn crate::store::Lock>) -> Result<Begin> {
        let store = &*self.store;
        let journal = Journal::create(store, &self.staging.join(JOURNAL_FILE), &self.fingerprint)?;
        sync_dir(store, &self.staging)?;
        sync_dir(store, staging::parent(&self.staging))?;
        let writer = Box::new(PackageWriter::new(self, lock, journal, Vec::new()));
        Ok(Begin::Write { writer, finished: Vec::new() })
    }

    /// Continues behind what the journal proves and the shards still hold.
    fn resume(self, lock: Box<dyn crate::store::Lock>, proven: Proven) -> Result<Begin> {
        if let Some((field, then, now)) = proven.fingerprint.first_difference(&self.fingerprint) {
            return Err(Error::Resume { path: self.staging.clone(), field, then, now });
        }
        let mut finished = Vec::new();
        let mut end = proven.start;
        let mut shard: Option<(usize, Box<dyn StoreFile>)> = None;
        for (record, line_end) in proven.tensors {
            if !self.is_next(&finished, &record) || !self.holds(&mut shard, &record)? {
                break;
            }
            finished.push(record);
            end = line_end;
        }
        drop(shard);
        let path = self.staging.join(JOURNAL_FILE);
        let journal = Journal::resume(&*self.store, &path, &self.fingerprint, end)?;
        let writer = Box::new(PackageWriter::new(self, lock, journal, finished.clone()));
        Ok(Begin::Write { writer, finished })
    }

    /// True if `record` is what the plan puts behind the tensors before it.
    fn is_next(&self, before: &[FinishedTensor], record: &FinishedTensor) -> bool {
        let position = before.len();
        let shard = self.layout.shard_of(position);
        let Some((plan, place)) = self.layout.stored(position).zip(self.layout.shards.get(shard)) else {
            return false;
        };
        let offset = match before.last() {
            Some(last) if last.shard == shard => last.offset + last.bytes,
            _ => place.reserved,
        };
        let end = offset.checked_add(record.bytes);
        record.name == plan.name
            && record.shard == shard
            && record.offset == offset
            && end.is_some_and(|end| end <= place.reserved + place.max_data)
    }

    /// True if the bytes of `record` are on disk with the hash they had. Hours of work stand on the answer and
    /// reading takes seconds, so everything is read again, not only what was written last.
    fn holds(&self, open: &mut Option<(usize, Box<dyn StoreFile>)>, record: &FinishedTensor) -> Result<bool> {
        let path = self.staging.join(shard_file_name(record.shard));
        if open.as_ref().is_none_or(|(shard, _)| *shard != record.shard) {
            match self.store.open(&path, OpenMode::Read) {
                Ok(file) => *open = Some((record.shard, file)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(Error::io("open", &path)(e)),
            }
        }
        let Some((_, file)) = open else { return Ok(false) };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let (mut at, end) = (record.offset, record.offset + record.bytes);
        while at < end {
            let length = usize::try_from(end - at).map_or(CHUNK_BYTES, |n| n.min(CHUNK_BYTES));
            let (chunk, _) = buffer.split_at_mut(length);
            match file.read_exact_at(chunk, at) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(e) => return Err(Error::io("read", &path)(e)),
            }
            hasher.update(chunk);
            at += length as u64;
        }
        Ok(ShortDigest::from_blake3(&hasher.finalize()) == record.blake3)
    }
}

/// A package that is damaged is none; one that cannot be read is an error.
fn valid(package: Result<Package>) -> Result<Option<Package>> {
    match package {
        Ok(package) => Ok(Some(package)),
        Err(Error::Input(_)) => Ok(None),
        Err(e) => Err(e),
    }
}
