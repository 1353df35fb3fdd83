//! The stores agree with each other, and the model of a power cut keeps what it must.

use super::*;
use std::path::PathBuf;
use std::sync::Arc;

fn exercise(store: &dyn Store, root: &Path) {
    let at = |name: &str| root.join(name);
    let kind = |e: io::Error| e.kind();
    store.create_dir(&at("a")).unwrap();
    assert_eq!(kind(store.create_dir(&at("a")).unwrap_err()), io::ErrorKind::AlreadyExists);
    let missing = store.open(&at("a/x"), OpenMode::Update).unwrap_err();
    assert_eq!(kind(missing), io::ErrorKind::NotFound);
    let file = store.open(&at("a/x"), OpenMode::Create).unwrap();
    file.write_all_at(b"hello", 3).unwrap();
    let mut buffer = [9; 8];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"\0\0\0hello");
    assert_eq!(kind(file.read_exact_at(&mut buffer, 1).unwrap_err()), io::ErrorKind::UnexpectedEof);
    file.set_size(5).unwrap();
    file.sync_data().unwrap();
    assert_eq!(file.size().unwrap(), 5);
    assert_eq!(store.entry(&at("a/x")).unwrap(), Some(Entry::File(5)));
    assert_eq!(store.entry(&at("a")).unwrap(), Some(Entry::Directory));
    assert_eq!(store.entry(&at("b")).unwrap(), None);
    assert_eq!(store.list(&at("a")).unwrap(), ["x"]);
    store.sync_dir(&at("a")).unwrap();
    assert!(store.remove_dir(&at("a")).is_err());

    let lock = store.lock(&at("a")).unwrap();
    assert_eq!(kind(store.lock(&at("a")).unwrap_err()), io::ErrorKind::WouldBlock);
    store.create_dir(&at("b")).unwrap();
    store.rename(&at("a"), &at("b")).unwrap();
    assert_eq!(kind(store.lock(&at("b")).unwrap_err()), io::ErrorKind::WouldBlock);
    drop(lock);
    drop(store.lock(&at("b")).unwrap());

    store.create_dir(&at("c")).unwrap();
    assert!(store.rename(&at("c"), &at("b")).is_err(), "b is not empty");
    store.exchange(&at("b"), &at("c")).unwrap();
    assert_eq!(store.list(&at("c")).unwrap(), ["x"]);
    assert!(store.exchange(&at("b"), &at("nothing")).is_err());
    assert!(store.open(&at("c/x"), OpenMode::Create).unwrap().size().unwrap() == 0);
    store.remove_file(&at("c/x")).unwrap();
    store.remove_dir(&at("c")).unwrap();
    store.remove_dir(&at("b")).unwrap();
    store.free_space(root).unwrap();
}

#[test]
fn real_and_memory_agree() {
    let dir = tempfile::tempdir().unwrap();
    exercise(&RealStore, dir.path());
    exercise(&MemoryStore::new(), Path::new("/"));
    let counted = CountdownStore::with_short_writes(Arc::new(MemoryStore::new()), 0, Fault::None, 1);
    exercise(&counted, Path::new("/"));
    assert!(counted.operations() > 30 && !counted.has_fired());
}

#[test]
fn a_pipe_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert!(RealStore.open(&path, OpenMode::Read).is_err());
    assert_eq!(RealStore.entry(&path).unwrap(), Some(Entry::Other));
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
    let store = MemoryStore::new();
    let path = PathBuf::from("/x");
    store.put(&path, b"old").unwrap();
    let file = store.open(&path, OpenMode::Update).unwrap();
    file.write_all_at(b"NEW", 0).unwrap();
    file.write_all_at(b"more", 3).unwrap();
    store.open(Path::new("/y"), OpenMode::Create).unwrap();
    assert_eq!(store.unsynced(), 3);
    let after = |kept: &[bool], torn| store.crash(Durability { kept, torn }).files();
    assert_eq!(after(&[false, false, false], None)["x"], b"old");
    assert_eq!(after(&[false, true, false], None)["x"], b"oldmore");
    assert_eq!(after(&[true, false, false], Some(1))["x"], b"Nld");
    assert_eq!(after(&[true, true, true], None).len(), 2);
    file.sync_data().unwrap();
    assert_eq!(after(&[false], None)["x"], b"NEWmore");
    assert_eq!(store.files().len(), 2, "the original goes on unharmed");
}

#[test]
fn faults_happen_where_they_were_ordered() {
    let run = |at, fault| {
        let memory = MemoryStore::new();
        let store = CountdownStore::new(Arc::new(memory.clone()), at, fault);
        let result = (|| -> io::Result<()> {
            let file = store.open(Path::new("/x"), OpenMode::Create)?;
            file.write_all_at(b"12345678", 0)?;
            file.sync_data()?;
            file.write_all_at(b"9", 8)?;
            file.sync_data()
        })();
        (result.err().map(|e| e.raw_os_error()), memory.files().get("x").cloned().unwrap_or_default())
    };
    assert_eq!(run(9, Fault::Stop), (None, b"123456789".to_vec()));
    assert_eq!(run(0, Fault::Stop), (Some(None), vec![]));
    assert_eq!(run(1, Fault::StopTorn), (Some(None), b"1234".to_vec()));
    assert_eq!(run(1, Fault::Full { errno: 28, once: true }), (Some(Some(28)), b"1234".to_vec()));
    assert_eq!(run(0, Fault::Sync(5)), (Some(Some(5)), b"12345678".to_vec()));
    assert_eq!(run(3, Fault::Once(5)), (Some(Some(5)), b"12345678".to_vec()));
}
