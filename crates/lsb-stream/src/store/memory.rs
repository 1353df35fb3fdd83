//! Files in memory, with a model of what a power cut leaves of them.
//!
//! Every file keeps a durable image and the operations since its last sync, every directory the same for its
//! names. A crash keeps the durable images and any subset of the operations, the last kept write possibly torn.
//! The model assumes what real disks and file systems promise: a sync that succeeds has happened, a write
//! touches no other bytes, a rename is one step.

use super::{Entry, Lock, OpenMode, Store, StoreFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Inode = usize;
const ROOT: Inode = 0;

/// Files in memory. Clones share the files; [`MemoryStore::snapshot`] does not.
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Mutex<Disk>>);

/// What a power cut keeps of the operations that were not synced.
#[derive(Clone, Copy, Debug)]
pub struct Durability<'a> {
    /// For each unsynced operation, in the order they were made: whether it is kept.
    pub kept: &'a [bool],
    /// Of the last kept operation, if it is a write, only so many bytes arrive.
    pub torn: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    nodes: Vec<Node>,
    clock: u64,
    locked: BTreeSet<Inode>,
    capacity: Option<u64>,
}

#[derive(Clone, Debug)]
enum Node {
    File(Versions<Vec<u8>, FileChange>),
    Directory(Versions<Names, NameChange>),
}

type Names = BTreeMap<String, Inode>;

/// What is there now, what is durable, and the changes between the two with the time of each.
#[derive(Clone, Debug)]
struct Versions<T, C> {
    now: T,
    durable: T,
    changes: Vec<(u64, C)>,
}

impl<T: Default, C> Default for Versions<T, C> {
    fn default() -> Self {
        Versions { now: T::default(), durable: T::default(), changes: Vec::new() }
    }
}

#[derive(Clone, Debug)]
enum FileChange {
    Write(u64, Vec<u8>),
    Resize(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Insert(String, Inode),
    Remove(String),
    Rename(String, String),
    Exchange(String, String),
}

trait Change<T> {
    fn apply(&self, to: &mut T);
}

impl Change<Vec<u8>> for FileChange {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            FileChange::Write(offset, bytes) => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if to.len() < end {
                    to.resize(end, 0);
                }
                if let Some(place) = to.get_mut(start..end) {
                    place.copy_from_slice(bytes);
                }
            }
            FileChange::Resize(size) => to.resize(*size as usize, 0),
        }
    }
}

// A change whose name is not there (because the one that made it was lost) does nothing.
impl Change<Names> for NameChange {
    fn apply(&self, to: &mut Names) {
        match self {
            NameChange::Insert(name, inode) => {
                to.insert(name.clone(), *inode);
            }
            NameChange::Remove(name) => {
                to.remove(name);
            }
            NameChange::Rename(from, other) => {
                if let Some(inode) = to.remove(from) {
                    to.insert(other.clone(), inode);
                }
            }
            NameChange::Exchange(a, b) => {
                if let (Some(x), Some(y)) = (to.get(a).copied(), to.get(b).copied()) {
                    to.insert(a.clone(), y);
                    to.insert(b.clone(), x);
                }
            }
        }
    }
}

impl<T: Clone, C: Change<T>> Versions<T, C> {
    fn change(&mut self, time: u64, change: C) {
        change.apply(&mut self.now);
        self.changes.push((time, change));
    }

    fn sync(&mut self) {
        self.durable = self.now.clone();
        self.changes.clear();
    }

    fn keep(&mut self, keep: impl Fn(u64, C) -> Option<C>) {
        for (time, change) in std::mem::take(&mut self.changes) {
            if let Some(change) = keep(time, change) {
                change.apply(&mut self.durable);
            }
        }
        self.now = self.durable.clone();
    }
}

impl MemoryStore {
    /// An empty disk.
    pub fn new() -> Self {
        let disk = Disk { nodes: vec![Node::Directory(Versions::default())], ..Disk::default() };
        MemoryStore(Arc::new(Mutex::new(disk)))
    }

    /// A copy that shares nothing with this one. Nobody holds a lock in it.
    pub fn snapshot(&self) -> Self {
        let mut disk = self.disk().clone();
        disk.locked.clear();
        MemoryStore(Arc::new(Mutex::new(disk)))
    }

    /// Lets the disk hold at most so many bytes of files; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// How many operations a power cut could lose.
    pub fn unsynced(&self) -> usize {
        self.disk().unsynced().len()
    }

    /// The disk after a power cut that kept what `durability` says.
    #[must_use]
    pub fn crash(&self, durability: Durability<'_>) -> Self {
        let after = self.snapshot();
        let mut disk = after.disk();
        let times = disk.unsynced();
        let kept: BTreeSet<u64> =
            times.iter().zip(durability.kept).filter(|(_, kept)| **kept).map(|(time, _)| *time).collect();
        let last = kept.last().copied();
        for node in &mut disk.nodes {
            match node {
                Node::File(file) => file.keep(|time, change| match (change, durability.torn) {
                    _ if !kept.contains(&time) => None,
                    (FileChange::Write(offset, mut bytes), Some(torn)) if Some(time) == last => {
                        bytes.truncate(torn);
                        Some(FileChange::Write(offset, bytes))
                    }
                    (change, _) => Some(change),
                }),
                Node::Directory(names) => {
                    names.keep(|time, change| kept.contains(&time).then_some(change));
                }
            }
        }
        drop(disk);
        after
    }

    /// All files with their content, by path from the root, for comparisons.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let disk = self.disk();
        let mut out = BTreeMap::new();
        disk.collect(ROOT, "", &mut out);
        out
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.disk();
        match disk.node(disk.find(path)?) {
            Some(Node::File(file)) => Ok(file.now.clone()),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Puts a durable file at `path`, whose directory must exist.
    ///
    /// # Errors
    /// If the directory does not exist.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.open(path, OpenMode::Create)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.sync_dir(path.parent().unwrap_or(Path::new("")))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk {
    fn node(&self, inode: Inode) -> Option<&Node> {
        self.nodes.get(inode)
    }

    fn names(&self, inode: Inode) -> io::Result<&Names> {
        match self.nodes.get(inode) {
            Some(Node::Directory(names)) => Ok(&names.now),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(missing()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        let mut at = ROOT;
        for component in path.components() {
            if let Component::Normal(name) = component {
                at = *self.names(at)?.get(name.to_string_lossy().as_ref()).ok_or_else(missing)?;
            }
        }
        Ok(at)
    }

    /// The directory that holds `path`, and the name in it.
    fn place(&self, path: &Path) -> io::Result<(Inode, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.names(parent)?;
        Ok((parent, name.to_string_lossy().into_owned()))
    }

    fn change_names(&mut self, directory: Inode, change: NameChange) {
        self.clock += 1;
        let time = self.clock;
        if let Some(Node::Directory(names)) = self.nodes.get_mut(directory) {
            names.change(time, change);
        }
    }

    fn change_file(&mut self, inode: Inode, change: FileChange) {
        self.clock += 1;
        let time = self.clock;
        if let Some(Node::File(file)) = self.nodes.get_mut(inode) {
            file.change(time, change);
        }
    }

    fn insert(&mut self, directory: Inode, name: String, node: Node) -> Inode {
        let inode = self.nodes.len();
        self.nodes.push(node);
        self.change_names(directory, NameChange::Insert(name, inode));
        inode
    }

    fn unsynced(&self) -> Vec<u64> {
        let mut times: Vec<u64> = Vec::new();
        for node in &self.nodes {
            match node {
                Node::File(file) => times.extend(file.changes.iter().map(|c| c.0)),
                Node::Directory(names) => times.extend(names.changes.iter().map(|c| c.0)),
            }
        }
        times.sort_unstable();
        times
    }

    fn used(&self) -> u64 {
        let size = |node: &Node| if let Node::File(file) = node { file.now.len() as u64 } else { 0 };
        self.nodes.iter().map(size).sum()
    }

    fn collect(&self, inode: Inode, prefix: &str, out: &mut BTreeMap<String, Vec<u8>>) {
        match self.node(inode) {
            Some(Node::File(file)) => {
                out.insert(prefix.to_owned(), file.now.clone());
            }
            Some(Node::Directory(names)) => {
                for (name, inode) in &names.now {
                    let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
                    self.collect(*inode, &path, out);
                }
            }
            None => {}
        }
    }
}

impl Store for MemoryStore {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let (parent, name) = disk.place(path)?;
        if disk.names(parent)?.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.insert(parent, name, Node::Directory(Versions::default()));
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoreFile>> {
        let mut disk = self.disk();
        let (parent, name) = disk.place(path)?;
        let inode = match (disk.names(parent)?.get(&name).copied(), mode) {
            (Some(inode), _) => inode,
            (None, OpenMode::Create) => disk.insert(parent, name, Node::File(Versions::default())),
            (None, _) => return Err(missing()),
        };
        match disk.node(inode) {
            Some(Node::File(file)) if mode == OpenMode::Create && !file.now.is_empty() => {
                disk.change_file(inode, FileChange::Resize(0));
            }
            Some(Node::File(_)) => {}
            _ => return Err(io::ErrorKind::IsADirectory.into()),
        }
        drop(disk);
        Ok(Box::new(MemoryFile { store: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let ((parent, from), (other, to)) = (disk.place(from)?, disk.place(to)?);
        if parent != other {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let names = disk.names(parent)?;
        let source = *names.get(&from).ok_or_else(missing)?;
        if let Some(target) = names.get(&to) {
            match (disk.node(source), disk.node(*target)) {
                (Some(Node::File(_)), Some(Node::File(_))) => {}
                (Some(Node::Directory(_)), Some(Node::Directory(n))) if n.now.is_empty() => {}
                (_, Some(Node::Directory(_))) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                _ => return Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        disk.change_names(parent, NameChange::Rename(from, to));
        Ok(())
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let ((parent, a), (other, b)) = (disk.place(a)?, disk.place(b)?);
        if parent != other {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let names = disk.names(parent)?;
        if !names.contains_key(&a) || !names.contains_key(&b) {
            return Err(missing());
        }
        disk.change_names(parent, NameChange::Exchange(a, b));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let (parent, name) = disk.place(path)?;
        let inode = disk.find(path)?;
        if matches!(disk.node(inode), Some(Node::Directory(_))) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        disk.change_names(parent, NameChange::Remove(name));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let (parent, name) = disk.place(path)?;
        if !disk.names(disk.find(path)?)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        disk.change_names(parent, NameChange::Remove(name));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        Ok(disk.names(disk.find(path)?)?.keys().cloned().collect())
    }

    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let disk = self.disk();
        match disk.find(path) {
            Ok(inode) => Ok(disk.node(inode).map(|node| match node {
                Node::File(file) => Entry::File(file.now.len() as u64),
                Node::Directory(_) => Entry::Directory,
            })),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let inode = disk.find(path)?;
        if let Some(Node::Directory(names)) = disk.nodes.get_mut(inode) {
            names.sync();
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut disk = self.disk();
        let inode = disk.find(path)?;
        if !disk.locked.insert(inode) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        drop(disk);
        Ok(Box::new(MemoryLock { store: self.clone(), inode }))
    }

    fn free_space(&self, _path: &Path) -> io::Result<Option<u64>> {
        let disk = self.disk();
        Ok(disk.capacity.map(|c| c.saturating_sub(disk.used())))
    }
}

#[derive(Debug)]
struct MemoryFile {
    store: MemoryStore,
    inode: Inode,
}

impl MemoryFile {
    fn with<R>(&self, f: impl FnOnce(&[u8]) -> R) -> io::Result<R> {
        match self.store.disk().node(self.inode) {
            Some(Node::File(file)) => Ok(f(&file.now)),
            _ => Err(missing()),
        }
    }
}

impl StoreFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|bytes| {
            let rest = usize::try_from(offset).ok().and_then(|o| bytes.get(o..)).unwrap_or_default();
            let mut n = 0;
            for (to, from) in buffer.iter_mut().zip(rest) {
                *to = *from;
                n += 1;
            }
            n
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.store.disk();
        let grows = match disk.node(self.inode) {
            Some(Node::File(file)) => (offset + bytes.len() as u64).saturating_sub(file.now.len() as u64),
            _ => return Err(missing()),
        };
        if disk.capacity.is_some_and(|c| disk.used() + grows > c) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.change_file(self.inode, FileChange::Write(offset, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn size(&self) -> io::Result<u64> {
        self.with(|bytes| bytes.len() as u64)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.store.disk().change_file(self.inode, FileChange::Resize(bytes));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(Node::File(file)) = self.store.disk().nodes.get_mut(self.inode) {
            file.sync();
        }
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryLock {
    store: MemoryStore,
    inode: Inode,
}

impl Lock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.store.disk().locked.remove(&self.inode);
    }
}
