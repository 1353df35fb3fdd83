//! Names around an output: the staging directory beside it, what may be removed there, and in which order.

use super::JOURNAL_FILE;
use crate::store::{Lock, OpenMode, Store};
use crate::{Error, Result};
use lsb_format::package::{MANIFEST_FILE, MAX_FILE_NAME_DEPTH};
use std::io;
use std::path::{Path, PathBuf};

/// The directory that holds the work on `out` until it is published: `out.partial`.
///
/// # Errors
/// If `out` has no name of its own (`/`, `..`).
pub(super) fn staging_path(out: &Path) -> Result<PathBuf> {
    let Some(name) = out.file_name() else {
        return Err(Error::Refused { message: format!("{} cannot be an output directory", out.display()) });
    };
    let mut name = name.to_owned();
    name.push(".partial");
    Ok(out.with_file_name(name))
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(super) fn lock(store: &dyn Store, path: &Path, out: &Path) -> Result<Box<dyn Lock>> {
    store.lock(path).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => Error::InUse { path: out.to_owned() },
        _ => Error::io("lock", path)(e),
    })
}

pub(super) fn exists(store: &dyn Store, path: &Path) -> Result<bool> {
    Ok(store.entry(path).map_err(Error::io("look at", path))?.is_some())
}

pub(super) fn list(store: &dyn Store, path: &Path) -> Result<Vec<String>> {
    store.list(path).map_err(Error::io("list", path))
}

pub(super) fn sync_dir(store: &dyn Store, path: &Path) -> Result<()> {
    store.sync_dir(path).map_err(Error::io("sync", path))
}

/// True where the content of a directory is the work of this program, whole or half removed.
pub(super) fn is_ours(names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|n| n == JOURNAL_FILE || n == MANIFEST_FILE)
}

/// Removes everything from a directory that [`is_ours`] but an empty journal.
///
/// That journal comes first and goes last: as long as anything else is there it says that the directory is ours
/// and that nothing in it is to be continued, wherever this is cut off.
///
/// # Errors
/// [`Error::Refused`] if the directory holds something else.
pub(super) fn clear(store: &dyn Store, directory: &Path) -> Result<()> {
    let names = list(store, directory)?;
    if !is_ours(&names) {
        return Err(Error::Refused {
            message: format!("{} is not the work of lsb; move it away", directory.display()),
        });
    }
    let journal = directory.join(JOURNAL_FILE);
    let file = store.open(&journal, OpenMode::Create).map_err(Error::io("create", &journal))?;
    file.sync_data().map_err(Error::io("sync", &journal))?;
    sync_dir(store, directory)?;
    for name in names.iter().filter(|n| *n != JOURNAL_FILE) {
        remove_all(store, &directory.join(name), MAX_FILE_NAME_DEPTH)?;
    }
    sync_dir(store, directory)
}

/// Empties a directory that [`is_ours`] and removes it, durably.
pub(super) fn remove(store: &dyn Store, directory: &Path) -> Result<()> {
    clear(store, directory)?;
    remove_all(store, &directory.join(JOURNAL_FILE), 0)?;
    store.remove_dir(directory).map_err(Error::io("remove", directory))?;
    sync_dir(store, parent(directory))
}

/// Removes a file, or a directory of at most `depth` levels with all it holds. Links are removed, not followed.
pub(super) fn remove_all(store: &dyn Store, path: &Path, depth: usize) -> Result<()> {
    match store.remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::IsADirectory && depth > 0 => {
            for name in list(store, path)? {
                remove_all(store, &path.join(name), depth - 1)?;
            }
            store.remove_dir(path).map_err(Error::io("remove", path))
        }
        result => result.map_err(Error::io("remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn staging_is_beside_the_output() {
        assert_eq!(staging_path(Path::new("a/out")).unwrap(), Path::new("a/out.partial"));
        assert_eq!(staging_path(Path::new("out/")).unwrap(), Path::new("out.partial"));
        assert_eq!(parent(Path::new("out")), Path::new("."));
        for bad in ["/", "..", ""] {
            assert!(staging_path(Path::new(bad)).is_err());
        }
    }

    #[test]
    fn only_our_own_work_is_cleared() {
        let store = MemoryStore::new();
        let touch = |path: &str| drop(store.open(Path::new(path), OpenMode::Create).unwrap());
        store.create_dir(Path::new("/x")).unwrap();
        touch("/x/letters.txt");
        assert!(matches!(clear(&store, Path::new("/x")), Err(Error::Refused { .. })));
        assert_eq!(store.files().len(), 1);
        for name in ["/x/weights-00001.lsb", "/x/weights-00002.lsb", "/x/lsb.json"] {
            touch(name);
        }
        store.create_dir(Path::new("/x/1_Pooling")).unwrap();
        touch("/x/1_Pooling/config.json");
        remove(&store, Path::new("/x")).unwrap();
        assert!(store.files().is_empty() && !exists(&store, Path::new("/x")).unwrap());
    }
}
