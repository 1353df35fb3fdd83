//! Every write to disk, and the few reads that resuming needs, behind one trait.
//!
//! [`RealStore`] is the operating system. [`CountdownStore`] makes operation `k` fail or the world end there;
//! [`MemoryStore`] holds files in memory and knows what a power cut would leave of them. Together they let tests
//! stop a run at every single operation.

mod countdown;
mod memory;
mod real;

pub use countdown::{CountdownStore, Fault};
pub use memory::{Durability, MemoryStore};
pub use real::RealStore;

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    Update,
    /// For reading and writing; a file that exists is emptied.
    Create,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// Something else.
    Other,
}

/// A place that holds directories and files.
///
/// Nothing is durable until the file's `sync_data` and, for names, the directory's `sync_dir` succeeded.
/// Methods return the errors of the operating system as they are.
#[allow(clippy::missing_errors_doc)]
pub trait Store: Debug + Send + Sync {
    /// Makes a directory; its parent must exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoreFile>>;

    /// Gives `from` the name `to`, in one step; `to` may be an empty directory where `from` is a directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Exchanges two names in one step, or fails with [`io::ErrorKind::Unsupported`] where that cannot be done.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory, sorted. Names that are not UTF-8 are shown with replacement characters.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// What `path` stands for; `None` where nothing has that name.
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of a directory without waiting: [`io::ErrorKind::WouldBlock`] where another
    /// process holds it. The lock ends with the returned value or with the process, and survives renames.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// Bytes free for this user at `path`, where that is known.
    fn free_space(&self, path: &Path) -> io::Result<Option<u64>>;
}

/// An open file.
#[allow(clippy::missing_errors_doc)]
pub trait StoreFile: Debug + Send + Sync {
    /// Reads at most `buffer.len()` bytes at `offset`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at most `bytes.len()` bytes at `offset` and says how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Cuts or extends the file.
    fn set_size(&self, bytes: u64) -> io::Result<()>;

    /// Makes content and size durable. After an error the file must be treated as lost: a second try would
    /// report success without the data being there.
    fn sync_data(&self) -> io::Result<()>;
}

/// A held lock.
pub trait Lock: Debug + Send + Sync {}

impl dyn StoreFile + '_ {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends first.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    buffer = buffer.split_at_mut(n).1;
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, in as many pieces as the system asks for.
    ///
    /// # Errors
    /// [`io::ErrorKind::WriteZero`] if the system takes no more bytes.
    pub fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    bytes = bytes.split_at(n).1;
                    offset += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
