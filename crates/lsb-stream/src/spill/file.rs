//! A file of f32 values that has no name and no life after the process.

use crate::{Error, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Values converted at a time: a buffer that stays in the cache.
const VALUES: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct SpillFile {
    file: File,
    /// Where it was made, for errors.
    dir: PathBuf,
}

impl SpillFile {
    /// A file of `bytes` bytes in `dir`, whose space is claimed now rather than found missing hours later.
    pub(super) fn new(dir: &Path, bytes: u64) -> Result<Self> {
        let file = tempfile::tempfile_in(dir).map_err(Error::io("create a temporary file in", dir))?;
        if bytes > 0 {
            match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => extend(&file, dir, bytes)?,
                Err(Errno::NOSPC | Errno::FBIG | Errno::DQUOT) => return Err(full(dir, bytes)),
                Err(e) => return Err(Error::io("claim space in", dir)(e.into())),
            }
        }
        Ok(SpillFile { file, dir: dir.to_owned() })
    }

    /// Writes `values` from byte `at` on.
    pub(super) fn write(&self, mut at: u64, values: &[f32]) -> Result<()> {
        let mut bytes = Vec::with_capacity(values.len().min(VALUES) * 4);
        for piece in values.chunks(VALUES) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|x| x.to_le_bytes()));
            self.file.write_all_at(&bytes, at).map_err(|e| match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    full(&self.dir, bytes.len() as u64)
                }
                _ => Error::io("write the temporary file in", &self.dir)(e),
            })?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// Fills `out` from byte `at` on.
    pub(super) fn read(&self, mut at: u64, out: &mut [f32]) -> Result<()> {
        let mut bytes = vec![0; out.len().min(VALUES) * 4];
        for piece in out.chunks_mut(VALUES) {
            let (bytes, _) = bytes.split_at_mut(piece.len() * 4);
            let read = self.file.read_exact_at(bytes, at);
            read.map_err(Error::io("read the temporary file in", &self.dir))?;
            for (x, b) in piece.iter_mut().zip(bytes.as_chunks().0) {
                *x = f32::from_le_bytes(*b);
            }
            at += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Where space cannot be claimed: looks whether it is there, and sets the size.
fn extend(file: &File, dir: &Path, bytes: u64) -> Result<()> {
    let free = statvfs(dir).map(|space| space.f_bavail.saturating_mul(space.f_frsize));
    if free.is_ok_and(|free| free < bytes) {
        return Err(full(dir, bytes));
    }
    file.set_len(bytes).map_err(Error::io("claim space in", dir))
}

fn full(dir: &Path, bytes: u64) -> Error {
    let dir = dir.display();
    let message = format!(
        "activations need {bytes} bytes on disk and {dir} has no room for them; free some, raise \
         --target-ram-mb, or set TMPDIR to a directory with room"
    );
    Error::Refused { message }
}
