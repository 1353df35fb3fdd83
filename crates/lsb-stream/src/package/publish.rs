//! Turns a complete staging directory into the package, in one step that either happened or did not.

use super::JOURNAL_FILE;
use super::begin::Job;
use super::staging::{self, exists, sync_dir};
use super::writer::{PackageWriter, misuse};
use crate::store::{Entry, Lock, OpenMode};
use crate::{Error, Result};
use lsb_format::package::{MANIFEST_FILE, Manifest, shard_file_name};
use std::io;
use std::path::PathBuf;

/// A package that is in place.
#[derive(Clone, Debug)]
pub struct Published {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of the manifest and the shards: what a decoder needs.
    pub package_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// What it holds.
    pub manifest: Manifest,
}

impl PackageWriter {
    /// Finishes the shards, writes the manifest and gives the directory its name.
    ///
    /// An output that was there stays untouched until the new one is complete and durable, and is then replaced in
    /// one step.
    ///
    /// # Errors
    /// If tensors are missing, if something appeared at the output in the meantime, or if the operating system
    /// refuses. Beginning again continues where this stopped.
    pub fn publish(mut self) -> Result<Published> {
        let manifest = self.attempt(|w| {
            w.checkpoint()?;
            let manifest = w.manifest()?;
            for number in 0..manifest.shards.len() {
                w.finish_shard(number)?;
            }
            w.write_manifest(&manifest)?;
            Ok(manifest)
        })?;
        self.sweep()?;
        let store = &*self.job.store;
        let journal = self.job.staging.join(JOURNAL_FILE);
        store.remove_file(&journal).map_err(Error::io("remove", &journal))?;
        // From here on the directory proves itself: all of it is durable and its manifest holds the hashes.
        sync_dir(store, &self.job.staging)?;
        self.job.put_in_place(self.lock)?;

        let package_bytes =
            manifest.render()?.len() as u64 + manifest.shards.iter().map(|s| s.bytes).sum::<u64>();
        let total_bytes = package_bytes + manifest.files.iter().map(|f| f.bytes).sum::<u64>();
        Ok(Published { path: self.job.out, package_bytes, total_bytes, manifest })
    }

    /// Writes the header of a shard whose data is durable; the length that makes it valid comes last.
    fn finish_shard(&self, number: usize) -> Result<()> {
        let path = self.job.staging.join(shard_file_name(number));
        let header = self.shard_header(number)?;
        let size = header.len() as u64 + self.stored_sizes(number).iter().sum::<u64>();
        let file = self.job.store.open(&path, OpenMode::Update).map_err(Error::io("open", &path))?;
        let found = file.size().map_err(Error::io("look at", &path))?;
        if found < size {
            return Err(misuse(format!(
                "{} has {found} bytes instead of {size}: something else changed it; run again with --restart",
                path.display()
            )));
        }
        file.set_size(size).map_err(Error::io("cut", &path))?;
        let (length, json) = header.split_at(8.min(header.len()));
        file.write_all_at(json, 8).map_err(Error::io("write", &path))?;
        file.sync_data().map_err(Error::io("sync", &path))?;
        file.write_all_at(length, 0).map_err(Error::io("write", &path))?;
        file.sync_data().map_err(Error::io("sync", &path))
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let path = self.job.staging.join(MANIFEST_FILE);
        let file = self.job.store.open(&path, OpenMode::Create).map_err(Error::io("create", &path))?;
        file.write_all_at(&manifest.render()?, 0).map_err(Error::io("write", &path))?;
        file.sync_data().map_err(Error::io("sync", &path))
    }
}

impl Job {
    /// Gives a complete and durable staging directory the name of the output.
    pub(super) fn put_in_place(&self, lock: Box<dyn Lock>) -> Result<()> {
        let store = &*self.store;
        let parent = staging::parent(&self.out);
        let in_the_way = match store.entry(&self.out).map_err(Error::io("look at", &self.out))? {
            None => false,
            Some(Entry::Directory) => !staging::list(store, &self.out)?.is_empty(),
            Some(_) => true,
        };
        if !in_the_way {
            store.rename(&self.staging, &self.out).map_err(Error::io("rename", &self.staging))?;
            sync_dir(store, parent)?;
            drop(lock);
            return Ok(());
        }
        if !self.overwrite || !exists(store, &self.out.join(MANIFEST_FILE))? {
            let (out, staging) = (self.out.display(), self.staging.display());
            let message = format!("{out} appeared in the meantime; the finished work is in {staging}");
            return Err(Error::Refused { message });
        }
        // The old package is locked too: under its next name it must not be taken for work to continue.
        let old = staging::lock(store, &self.out, &self.out)?;
        store.exchange(&self.staging, &self.out).map_err(|e| match e.kind() {
            io::ErrorKind::Unsupported => misuse(format!(
                "this file system cannot exchange two directories; move {} away and run again",
                self.out.display()
            )),
            _ => Error::io("exchange", &self.staging)(e),
        })?;
        sync_dir(store, parent)?;
        staging::remove(store, &self.staging)?;
        drop((lock, old));
        Ok(())
    }
}
