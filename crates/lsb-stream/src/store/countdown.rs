//! A store in which operation `k` goes wrong.

use super::{Entry, Lock, OpenMode, Store, StoreFile};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What goes wrong at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing; operations are only counted.
    None,
    /// The process dies: this operation and all later ones do nothing and fail.
    Stop,
    /// As [`Fault::Stop`], but a write still writes the first half of its bytes.
    StopTorn,
    /// Writes, new files and growth fail with this error number from here on, until [`CountdownStore::heal`];
    /// with `once`, only this time. Of a write, the first half is still written.
    Full {
        /// Error number, such as that of ENOSPC.
        errno: i32,
        /// Only this time.
        once: bool,
    },
    /// The operation fails with this error number, once, and does nothing.
    Once(i32),
    /// The first sync at or after the operation fails with this error number, once.
    Sync(i32),
}

/// A store that counts operations and lets one of them go wrong.
#[derive(Clone, Debug)]
pub struct CountdownStore {
    inner: Arc<dyn Store>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    fault: Mutex<(u64, Fault)>,
    count: AtomicU64,
    active: AtomicBool,
    fired: AtomicBool,
    longest_write: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Write,
    Sync,
    Other,
}

/// What an operation is to do.
enum Verdict {
    Go,
    Half(io::Error),
    Fail(io::Error),
}

impl CountdownStore {
    /// `inner`, with `fault` at operation number `at`, counted from zero.
    pub fn new(inner: Arc<dyn Store>, at: u64, fault: Fault) -> Self {
        Self::with_short_writes(inner, at, fault, usize::MAX)
    }

    /// As [`CountdownStore::new`], and no write takes more than `longest_write` bytes at a time.
    pub fn with_short_writes(inner: Arc<dyn Store>, at: u64, fault: Fault, longest_write: usize) -> Self {
        let state = State {
            fault: Mutex::new((at, fault)),
            count: AtomicU64::new(0),
            active: AtomicBool::new(false),
            fired: AtomicBool::new(false),
            longest_write,
        };
        CountdownStore { inner, state: Arc::new(state) }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state.count.load(Ordering::SeqCst)
    }

    /// True once the fault has happened.
    pub fn has_fired(&self) -> bool {
        self.state.fired.load(Ordering::SeqCst)
    }

    /// Ends the fault: from now on everything works.
    pub fn heal(&self) {
        *self.state.fault.lock().unwrap_or_else(PoisonError::into_inner) = (0, Fault::None);
    }
}

impl State {
    fn judge(&self, operation: Operation) -> Verdict {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let (at, fault) = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if number < at {
            return Verdict::Go;
        }
        let errno = io::Error::from_raw_os_error;
        let first = !self.active.load(Ordering::SeqCst);
        let verdict = match fault {
            Fault::None => Verdict::Go,
            Fault::Stop => Verdict::Fail(io::Error::other("stopped")),
            Fault::StopTorn if first && operation == Operation::Write => {
                Verdict::Half(io::Error::other("stopped"))
            }
            Fault::StopTorn => Verdict::Fail(io::Error::other("stopped")),
            Fault::Full { errno: e, once } if operation == Operation::Write && (first || !once) => {
                Verdict::Half(errno(e))
            }
            Fault::Once(e) if first => Verdict::Fail(errno(e)),
            Fault::Sync(e) if first && operation == Operation::Sync => Verdict::Fail(errno(e)),
            Fault::Full { .. } | Fault::Once(_) | Fault::Sync(_) => Verdict::Go,
        };
        if !matches!(verdict, Verdict::Go) {
            self.active.store(true, Ordering::SeqCst);
            self.fired.store(true, Ordering::SeqCst);
        }
        verdict
    }

    fn allow(&self, operation: Operation) -> io::Result<()> {
        match self.judge(operation) {
            Verdict::Go => Ok(()),
            Verdict::Half(e) | Verdict::Fail(e) => Err(e),
        }
    }
}

impl Store for CountdownStore {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.state.allow(Operation::Write)?;
        self.inner.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoreFile>> {
        let operation = if mode == OpenMode::Create { Operation::Write } else { Operation::Other };
        self.state.allow(operation)?;
        let inner = self.inner.open(path, mode)?;
        Ok(Box::new(CountdownFile { inner, state: Arc::clone(&self.state) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.allow(Operation::Other)?;
        self.inner.rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.state.allow(Operation::Other)?;
        self.inner.exchange(a, b)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state.allow(Operation::Other)?;
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.state.allow(Operation::Other)?;
        self.inner.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.state.allow(Operation::Other)?;
        self.inner.list(path)
    }

    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.state.allow(Operation::Other)?;
        self.inner.entry(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.state.allow(Operation::Sync)?;
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.state.allow(Operation::Other)?;
        self.inner.lock(path)
    }

    fn free_space(&self, path: &Path) -> io::Result<Option<u64>> {
        self.state.allow(Operation::Other)?;
        self.inner.free_space(path)
    }
}

#[derive(Debug)]
struct CountdownFile {
    inner: Box<dyn StoreFile>,
    state: Arc<State>,
}

impl StoreFile for CountdownFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.state.allow(Operation::Other)?;
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.state.judge(Operation::Write) {
            Verdict::Go => {
                let bytes = bytes.get(..self.state.longest_write).unwrap_or(bytes);
                self.inner.write_at(bytes, offset)
            }
            Verdict::Half(e) => {
                let (half, _) = bytes.split_at(bytes.len() / 2);
                self.inner.write_all_at(half, offset)?;
                Err(e)
            }
            Verdict::Fail(e) => Err(e),
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.state.allow(Operation::Other)?;
        self.inner.size()
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.state.allow(Operation::Write)?;
        self.inner.set_size(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state.allow(Operation::Sync)?;
        self.inner.sync_data()
    }
}
