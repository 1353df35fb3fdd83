//! Open files, as few as needed: a model may have more shards than a process may open files.

use super::file::{Identity, open_regular};
use crate::error::Result;
use lsb_format::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Files kept open at once.
const MAX_OPEN: usize = 64;

/// The files of a model, opened on first use and closed when others are used more.
#[derive(Debug)]
pub(super) struct Handles {
    files: Vec<Known>,
    /// Number of the file and its handle, least recently used first.
    open: Mutex<Vec<(usize, Arc<File>)>>,
}

#[derive(Debug)]
struct Known {
    name: String,
    path: PathBuf,
    identity: Identity,
}

impl Handles {
    pub(super) fn new(files: impl Iterator<Item = (String, PathBuf, Identity)>) -> Self {
        let files = files.map(|(name, path, identity)| Known { name, path, identity }).collect();
        Handles { files, open: Mutex::new(Vec::new()) }
    }

    /// The open file number `file`, its path and name.
    pub(super) fn get(&self, file: usize) -> Result<(Arc<File>, &Path, &str)> {
        let known = self.files.get(file).ok_or_else(|| Error::argument(format!("no file number {file}")))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = match open.iter().position(|(number, _)| *number == file) {
            Some(at) => open.remove(at).1,
            None => {
                let (handle, identity) = open_regular(&known.path, &known.name)?;
                same(known.identity, identity, &known.name)?;
                if open.len() == MAX_OPEN {
                    open.remove(0);
                }
                Arc::new(handle)
            }
        };
        open.push((file, Arc::clone(&handle)));
        Ok((handle, &known.path, &known.name))
    }

    /// Compares every file with what it was when the model was opened.
    pub(super) fn ensure_unchanged(&self) -> Result<()> {
        for known in &self.files {
            let now = std::fs::metadata(&known.path).map_err(crate::Error::io("examine", &known.path))?;
            same(known.identity, Identity::of(&now), &known.name)?;
        }
        Ok(())
    }
}

fn same(then: Identity, now: Identity, name: &str) -> Result<()> {
    if then == now {
        return Ok(());
    }
    let what = if (then.device, then.inode) != (now.device, now.inode) {
        "it was replaced by another file".to_owned()
    } else if then.bytes != now.bytes {
        format!("it had {} bytes and has {}", then.bytes, now.bytes)
    } else {
        "it was written to".to_owned()
    };
    Err(Error::corruption("F21", format!("the file changed while it was used: {what}"))
        .in_file(name)
        .advise("something else writes to the model; stop it and start again")
        .into())
}
