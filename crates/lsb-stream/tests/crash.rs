//! Whatever happens while a package is written (a kill at any operation, a full disk, an error of the disk, a power
//! cut), the old output stays whole until the new one is, and running again gives the same bytes.

#![allow(clippy::unwrap_used)]

mod scenario;

use lsb_stream::Error;
use lsb_stream::package::{Begin, Depth, PackageWriter, verify_in};
use lsb_stream::store::{CountdownStore, Durability, Fault, MemoryStore, Store};
use scenario::{OUT, Scenario, golden, is_io, package_files};
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EDQUOT: i32 = 122;

type Files = BTreeMap<String, Vec<u8>>;

/// One way to write: into an empty place, or over an older package.
struct Case {
    scenario: Scenario,
    start: MemoryStore,
    goal: Files,
}

fn cases() -> Vec<Case> {
    let fresh = Scenario::new(7);
    let replace = Scenario { overwrite: true, checkpoints: true, ..fresh };
    let goal = golden(fresh).files();
    let half_done = {
        let memory = MemoryStore::new();
        let store = CountdownStore::new(Arc::new(memory.clone()), 45, Fault::Stop);
        Scenario::new(3).run(Arc::new(store)).unwrap_err();
        memory
    };
    vec![
        Case { scenario: fresh, start: MemoryStore::new(), goal: goal.clone() },
        Case {
            scenario: Scenario { checkpoints: true, ..fresh },
            start: MemoryStore::new(),
            goal: goal.clone(),
        },
        Case { scenario: replace, start: golden(Scenario::new(3)), goal: goal.clone() },
        Case { scenario: Scenario { restart: true, ..fresh }, start: half_done, goal },
    ]
}

/// The disk shows the old package or the new one, never a mix or a half.
fn check_old_or_new(case: &Case, disk: &MemoryStore, what: &str) {
    let old = package_files(&case.start);
    let now = package_files(disk);
    let new: Files = case.goal.iter().map(|(k, v)| (k["out/".len()..].to_owned(), v.clone())).collect();
    assert!(now == old || now == new, "{what}: the output is neither the old nor the new package");
}

/// Running the same command again ends with the same bytes and nothing beside them.
fn check_resume(case: &Case, disk: &MemoryStore, what: &str) {
    case.scenario.run(Arc::new(disk.clone())).unwrap_or_else(|e| panic!("{what}: resume: {e}"));
    assert!(disk.files() == case.goal, "{what}: other bytes after resume: {:?}", disk.files().keys());
}

fn operations(case: &Case) -> u64 {
    let store = CountdownStore::new(Arc::new(case.start.snapshot()), 0, Fault::None);
    case.scenario.run(Arc::new(store.clone())).unwrap();
    store.operations()
}

fn broken_run(case: &Case, disk: &MemoryStore, at: u64, fault: Fault) -> (CountdownStore, Result<(), Error>) {
    let store = CountdownStore::new(Arc::new(disk.clone()), at, fault);
    let result = case.scenario.run(Arc::new(store.clone()));
    (store, result)
}

#[test]
fn the_scenario_is_what_it_says() {
    let store = golden(Scenario::new(7));
    let files = package_files(&store);
    assert_eq!(files.keys().filter(|k| k.ends_with(".lsb")).count(), 3);
    let report = verify_in(Arc::new(store.clone()), Path::new(OUT), Depth::Full).unwrap();
    assert!(report.ok, "{:?}", report.damaged);
    assert_eq!(report.tensors, 5);
    assert_eq!(report.bytes, files.values().map(|f| f.len() as u64).sum::<u64>());
}

#[test]
fn a_kill_at_every_operation_is_resumed_to_the_same_bytes() {
    for (number, case) in cases().iter().enumerate() {
        let count = operations(case);
        assert!(count > 60, "case {number} has only {count} operations");
        for at in 0..count {
            for fault in [Fault::Stop, Fault::StopTorn] {
                let what = format!("case {number}, {fault:?} at {at} of {count}");
                let disk = case.start.snapshot();
                let (store, result) = broken_run(case, &disk, at, fault);
                assert!(store.has_fired() && result.is_err(), "{what}");
                check_old_or_new(case, &disk, &what);
                check_resume(case, &disk, &what);
                check_resume(case, &disk, &format!("{what}, once more"));
            }
        }
    }
}

#[test]
fn kills_during_resume_are_resumed_too() {
    for (number, case) in cases().iter().enumerate() {
        let count = operations(case);
        for (first, second) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
            // Every pair is too many: these meet each first and each second kill several times.
            if (first * 31 + second * 17) % 11 != 0 {
                continue;
            }
            let what = format!("case {number}, killed at {first}, then at {second}");
            let disk = case.start.snapshot();
            broken_run(case, &disk, first, Fault::Stop).1.unwrap_err();
            let disk = disk.snapshot();
            let _ = broken_run(case, &disk, second, Fault::StopTorn);
            check_old_or_new(case, &disk, &what);
            check_resume(case, &disk, &what);
        }
    }
}

#[test]
fn a_full_disk_at_every_operation_leaves_the_old_output_and_is_resumed() {
    for (number, case) in cases().iter().enumerate() {
        for at in 0..operations(case) {
            for (errno, once) in [(ENOSPC, true), (ENOSPC, false), (EDQUOT, true)] {
                let what = format!("case {number}, error {errno} at {at}, once: {once}");
                let disk = case.start.snapshot();
                let (store, result) = broken_run(case, &disk, at, Fault::Full { errno, once });
                match result {
                    Err(e) => assert!(is_io(&e) && e.to_string().contains("/out"), "{what}: {e}"),
                    Ok(()) => assert!(!store.has_fired(), "{what}: the error was swallowed"),
                }
                check_old_or_new(case, &disk, &what);
                store.heal();
                case.scenario.run(Arc::new(store)).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(disk.files() == case.goal, "{what}");
            }
        }
    }
}

#[test]
fn a_disk_of_every_size_works_or_refuses() {
    let case = &cases()[0];
    let total: usize = case.goal.values().map(Vec::len).sum();
    for capacity in (0..total as u64 + 600).step_by(37) {
        let disk = MemoryStore::new();
        disk.set_capacity(Some(capacity));
        let result = case.scenario.run(Arc::new(disk.clone()));
        assert!(result.is_ok() || is_io(&result.unwrap_err()), "{capacity} bytes");
        check_old_or_new(case, &disk, "small disk");
        disk.set_capacity(None);
        check_resume(case, &disk, &format!("grown from {capacity} bytes"));
    }
}

#[test]
fn disk_errors_at_every_operation_and_sync_are_resumed() {
    for (number, case) in cases().iter().enumerate() {
        for at in 0..operations(case) {
            for fault in [Fault::Sync(EIO), Fault::Once(EIO)] {
                let what = format!("case {number}, {fault:?} at {at}");
                let disk = case.start.snapshot();
                let (store, result) = broken_run(case, &disk, at, fault);
                assert!(result.is_err() == store.has_fired(), "{what}: {result:?}");
                if let Err(e) = result {
                    assert!(is_io(&e), "{what}: {e}");
                }
                check_old_or_new(case, &disk, &what);
                check_resume(case, &disk, &what);
            }
        }
    }
}

/// Which of `count` unsynced operations survive: all subsets of a few, chosen ones of many.
fn subsets(count: usize, seed: u64) -> Vec<Vec<bool>> {
    if count <= 8 {
        return (0..1u32 << count).map(|bits| (0..count).map(|i| bits >> i & 1 == 1).collect()).collect();
    }
    let mut out: Vec<Vec<bool>> = (0..=count).map(|n| (0..count).map(|i| i < n).collect()).collect();
    out.extend((0..count).map(|lost| (0..count).map(|i| i != lost).collect()));
    let mut state = seed | 1;
    for _ in 0..32 {
        out.push(
            (0..count)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state & 1 == 1
                })
                .collect(),
        );
    }
    out
}

#[test]
fn a_power_cut_in_every_state_is_resumed_to_the_same_bytes() {
    let mut seen = HashSet::new();
    let mut states = 0;
    for (number, case) in cases().iter().enumerate() {
        let count = operations(case);
        for at in 0..=count {
            let disk = case.start.snapshot();
            let result = broken_run(case, &disk, at, Fault::Stop).1;
            assert_eq!(result.is_ok(), at == count);
            for kept in subsets(disk.unsynced(), at) {
                for torn in [None, Some(0), Some(13), Some(512)] {
                    states += 1;
                    let after = disk.crash(Durability { kept: &kept, torn });
                    // Many states look alike; each is tried once.
                    let mut hasher = DefaultHasher::new();
                    (number, after.files()).hash(&mut hasher);
                    if !seen.insert(hasher.finish()) {
                        continue;
                    }
                    let what = format!("case {number}, power cut at {at}, kept {kept:?}, torn {torn:?}");
                    check_old_or_new(case, &after, &what);
                    if at == count {
                        assert!(after.files() == case.goal, "{what}: a finished run is durable");
                    }
                    check_resume(case, &after, &what);
                }
            }
        }
    }
    println!("{states} states, {} different", seen.len());
    assert!(seen.len() > 100);
}

#[test]
fn a_journal_cut_or_changed_at_every_byte_is_resumed_to_the_same_bytes() {
    let case = &cases()[0];
    let count = operations(case);
    let journal = Path::new("/out.partial/lsb.journal");
    // As late as the journal still exists: all tensors are in it, the manifest is written.
    let at = (0..count)
        .rev()
        .find(|at| {
            let disk = case.start.snapshot();
            broken_run(case, &disk, *at, Fault::Stop).1.unwrap_err();
            disk.read(journal).is_ok()
        })
        .unwrap();
    let disk = case.start.snapshot();
    broken_run(case, &disk, at, Fault::Stop).1.unwrap_err();
    let bytes = disk.read(journal).unwrap();
    for i in 0..=bytes.len() {
        let cut = disk.snapshot();
        cut.put(journal, &bytes[..i]).unwrap();
        check_resume(case, &cut, &format!("journal cut at {i}"));
        if let Some(byte) = bytes.get(i) {
            for change in [1u8, 0x80] {
                let mut damaged = bytes.clone();
                damaged[i] = byte ^ change;
                let flipped = disk.snapshot();
                flipped.put(journal, &damaged).unwrap();
                check_resume(case, &flipped, &format!("journal changed at {i}"));
            }
        }
    }
    let deleted = disk.snapshot();
    deleted.remove_file(journal).unwrap();
    check_resume(case, &deleted, "journal deleted");
}

#[test]
fn finished_parts_that_were_changed_are_written_again() {
    let case = &cases()[1];
    let disk = MemoryStore::new();
    // Late enough for proven tensors in all shards, early enough for none of them being finished.
    let count = operations(case);
    broken_run(case, &disk, count - 40, Fault::Stop).1.unwrap_err();
    for (name, bytes) in disk.files() {
        if !name.ends_with(".lsb") {
            continue;
        }
        let path = Path::new("/").join(&name);
        for i in (0..bytes.len()).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x10;
            let changed = disk.snapshot();
            changed.put(&path, &damaged).unwrap();
            check_resume(case, &changed, &format!("{name} changed at {i}"));
        }
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            let cut = disk.snapshot();
            cut.put(&path, &bytes[..length]).unwrap();
            check_resume(case, &cut, &format!("{name} cut at {length}"));
        }
        let longer = disk.snapshot();
        longer.put(&path, &[&bytes[..], b"stale bytes of a longer run"].concat()).unwrap();
        check_resume(case, &longer, "longer");
        let removed = disk.snapshot();
        removed.remove_file(&path).unwrap();
        check_resume(case, &removed, "removed");
    }
}

#[test]
fn short_writes_change_nothing() {
    let case = &cases()[0];
    for longest in [1, 7, 100] {
        let disk = MemoryStore::new();
        let store = CountdownStore::with_short_writes(Arc::new(disk.clone()), 0, Fault::None, longest);
        case.scenario.run(Arc::new(store)).unwrap();
        assert!(disk.files() == case.goal);
    }
}

#[test]
fn resuming_with_something_else_is_refused_by_name() {
    let scenario = Scenario::new(7);
    let disk = MemoryStore::new();
    let store = CountdownStore::new(Arc::new(disk.clone()), 30, Fault::Stop);
    scenario.run(Arc::new(store)).unwrap_err();
    let before = disk.files();
    let other = Scenario::new(8);
    match other.run(Arc::new(disk.clone())) {
        Err(Error::Resume { field, then, now, .. }) => {
            assert_eq!((field.as_str(), then.as_str(), now.as_str()), ("seed", "7", "8"));
        }
        other => panic!("{other:?}"),
    }
    let mut plan = scenario.options();
    plan.shard_bytes += 1;
    match PackageWriter::begin(Arc::new(disk.clone()), Path::new(OUT), plan) {
        Err(Error::Resume { field, .. }) => assert_eq!(field, "package plan"),
        other => panic!("{other:?}"),
    }
    assert!(disk.files() == before, "a refusal changes nothing");
    Scenario { restart: true, ..other }.run(Arc::new(disk.clone())).unwrap();
    assert!(disk.files() == golden(other).files());
}

#[test]
fn an_output_that_is_there_is_done_refused_or_replaced() {
    let scenario = Scenario::new(7);
    let disk = golden(scenario);
    let before = disk.files();
    let begin = |s: Scenario| PackageWriter::begin(Arc::new(disk.clone()), Path::new(OUT), s.options());
    assert!(matches!(begin(scenario).unwrap(), Begin::Done(_)));
    match begin(Scenario::new(8)) {
        Err(Error::Refused { message }) => assert!(message.contains("--overwrite"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(disk.files() == before);
    Scenario { overwrite: true, ..Scenario::new(8) }.run(Arc::new(disk.clone())).unwrap();
    assert!(disk.files() == golden(Scenario::new(8)).files());

    // Neither an empty directory nor unfinished work of another kind is in the way; a stranger's folder is.
    let disk = MemoryStore::new();
    disk.create_dir(Path::new(OUT)).unwrap();
    scenario.run(Arc::new(disk.clone())).unwrap();
    assert!(disk.files() == before);
    for folder in ["/out", "/out.partial"] {
        let disk = MemoryStore::new();
        disk.create_dir(Path::new(folder)).unwrap();
        disk.put(&Path::new(folder).join("letters.txt"), b"dear").unwrap();
        let scenario = Scenario { overwrite: true, restart: true, ..scenario };
        assert!(matches!(scenario.run(Arc::new(disk.clone())), Err(Error::Refused { .. })), "{folder}");
        assert_eq!(disk.files().len(), 1);
    }
}

#[test]
fn two_runs_on_one_output_exclude_each_other() {
    let scenario = Scenario::new(7);
    let disk = MemoryStore::new();
    let begin = |s: Scenario| PackageWriter::begin(Arc::new(disk.clone()), Path::new(OUT), s.options());
    let first = begin(scenario).unwrap();
    assert!(matches!(begin(scenario), Err(Error::InUse { .. })));
    assert!(matches!(begin(Scenario { restart: true, ..scenario }), Err(Error::InUse { .. })));
    drop(first);
    scenario.run(Arc::new(disk.clone())).unwrap();
}

#[test]
fn the_real_file_system_gives_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let options = |overwrite| lsb_stream::package::WriteOptions { overwrite, ..Scenario::new(7).options() };
    let memory = golden(Scenario::new(7));
    for (name, bytes) in package_files(&golden(Scenario::new(3))) {
        let path = out.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let store = || Arc::new(lsb_stream::store::RealStore);
    assert!(matches!(PackageWriter::begin(store(), &out, options(false)), Err(Error::Refused { .. })));
    Scenario { overwrite: true, ..Scenario::new(7) }.run_at(store(), &out).unwrap();
    for (name, bytes) in package_files(&memory) {
        assert_eq!(std::fs::read(out.join(&name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "nothing is left beside the output");
    assert!(lsb_stream::package::verify(&out, Depth::Full).unwrap().ok);
    assert!(matches!(PackageWriter::begin(store(), &out, options(false)).unwrap(), Begin::Done(_)));
}
