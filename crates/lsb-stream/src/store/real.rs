//! The operating system's files.

use super::{Entry, Lock, OpenMode, Store, StoreFile};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with, statvfs};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Files of the operating system. Nothing is ever mapped into memory; modes follow the umask.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealStore;

impl Store for RealStore {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoreFile>> {
        // Opening a named pipe would wait for ever, so the kind of file is asked for first.
        match fs::metadata(path) {
            Ok(m) if m.is_file() => {}
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound && mode == OpenMode::Create => {}
            Err(e) => return Err(e),
        }
        let mut options = File::options();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Update => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(true);
            }
        }
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        use rustix::io::Errno;
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(|e| match e {
            Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => io::ErrorKind::Unsupported.into(),
            e => e.into(),
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        match fs::metadata(path) {
            Ok(m) if m.is_file() => Ok(Some(Entry::File(m.len()))),
            Ok(m) if m.is_dir() => Ok(Some(Entry::Directory)),
            Ok(_) => Ok(Some(Entry::Other)),
            // A link to nothing is a name all the same.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Ok(fs::symlink_metadata(path).is_ok().then_some(Entry::Other))
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        use rustix::io::Errno;
        let directory = File::open(path)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            // Network file systems without locks still deserve to work; there the user is on their own.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOLCK | Errno::BADF | Errno::NOSYS) => {}
            Err(e) => return Err(e.into()),
        }
        // The holder before us may have given the directory another name between our two calls.
        let (ours, named) = (directory.metadata()?, fs::metadata(path)?);
        if (ours.dev(), ours.ino()) != (named.dev(), named.ino()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(RealLock { _directory: directory }))
    }

    fn free_space(&self, path: &Path) -> io::Result<Option<u64>> {
        let space = statvfs(path)?;
        Ok(Some(space.f_bavail.saturating_mul(space.f_frsize)))
    }
}

#[derive(Debug)]
struct RealFile(File);

impl StoreFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let _phase = tracing::debug_span!("reading").entered();
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

// The lock is the open directory: closing it lets go.
#[derive(Debug)]
struct RealLock {
    _directory: File,
}

impl Lock for RealLock {}
