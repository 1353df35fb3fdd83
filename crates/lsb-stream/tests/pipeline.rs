//! The whole compression under faults: a stop or a full disk at every operation of a run leaves what stood at
//! the output before, and the same request then finishes to the same bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use lsb_stream::store::{CountdownStore, Fault, MemoryStore, Store};
use lsb_stream::{CompressConfig, CompressReport, Error, LoopCompressor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ENOSPC: i32 = 28;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-sharded")
}

fn config() -> CompressConfig {
    let mut config = CompressConfig::default();
    config.output = Some("out".into());
    config.codec = Some("lossless".into());
    config.threads = 1;
    // Three shards.
    config.shard_bytes = 25_000;
    config
}

fn compress(store: Arc<dyn Store>, config: CompressConfig) -> Result<CompressReport, Error> {
    LoopCompressor::new(config).with_store(store).compress_model(model(), None)
}

fn undisturbed() -> BTreeMap<String, Vec<u8>> {
    let store = MemoryStore::new();
    compress(Arc::new(store.clone()), config()).unwrap();
    store.files()
}

/// Operations of an undisturbed run on a copy of `disk`.
fn operations(disk: &MemoryStore, config: &CompressConfig) -> u64 {
    let counting = CountdownStore::new(Arc::new(disk.snapshot()), 0, Fault::None);
    compress(Arc::new(counting.clone()), config.clone()).unwrap();
    counting.operations()
}

#[test]
fn a_stop_at_any_operation_resumes_to_the_same_bytes() {
    let expected = undisturbed();
    let all = operations(&MemoryStore::new(), &config());
    assert!(all > 50, "{all} operations");
    for fault in [Fault::Stop, Fault::StopTorn] {
        for at in 0..all {
            let disk = MemoryStore::new();
            let stopping = CountdownStore::new(Arc::new(disk.clone()), at, fault);
            assert!(compress(Arc::new(stopping), config()).is_err(), "{fault:?} at {at}");
            let disk = disk.snapshot();
            compress(Arc::new(disk.clone()), config()).unwrap_or_else(|e| panic!("{fault:?} at {at}: {e}"));
            assert!(disk.files() == expected, "{fault:?} at {at}");
        }
    }
    println!("{all} operations, each stopped plainly and with a torn write");
}

#[test]
fn a_full_disk_at_any_write_leaves_the_old_output_and_resumes_once_there_is_room() {
    let old = MemoryStore::new();
    let mut other = config();
    other.codec = Some("raw".into());
    compress(Arc::new(old.clone()), other).unwrap();
    let before = old.files();
    let mut config = config();
    config.overwrite = true;
    let all = operations(&old, &config);
    let expected = undisturbed();
    let (mut failed, mut old_kept) = (0, 0);
    for once in [true, false] {
        for at in 0..all {
            let disk = old.snapshot();
            let full = CountdownStore::new(Arc::new(disk.clone()), at, Fault::Full { errno: ENOSPC, once });
            let result = compress(Arc::new(full.clone()), config.clone());
            if let Err(error) = result {
                failed += 1;
                // Clearing away the old package comes after the switch: then all of the new one is there.
                let now = disk.files();
                let holds = |all: &BTreeMap<String, Vec<u8>>| all.iter().all(|(k, v)| now.get(k) == Some(v));
                assert!(holds(&before) || holds(&expected), "operation {at}: {error}");
                old_kept += usize::from(holds(&before));
                assert!(matches!(error, Error::Io { .. }), "operation {at}: {error}");
            }
            full.heal();
            let disk = disk.snapshot();
            compress(Arc::new(disk.clone()), config.clone())
                .unwrap_or_else(|e| panic!("operation {at}: {e}"));
            assert!(disk.files() == expected, "operation {at}");
        }
    }
    assert!(old_kept > 20, "only {old_kept} of {failed} failures came before the switch");
    println!("{failed} runs met the full disk, {old_kept} of them before the switch");
}

#[test]
fn another_codec_cannot_take_over_unfinished_work_and_restart_discards_it() {
    let disk = MemoryStore::new();
    let all = operations(&disk, &config());
    let stopping = CountdownStore::new(Arc::new(disk.clone()), all / 2, Fault::Stop);
    assert!(compress(Arc::new(stopping), config()).is_err());
    let disk = disk.snapshot();
    let mut other = config();
    other.codec = Some("raw".into());
    match compress(Arc::new(disk.clone()), other.clone()) {
        Err(Error::Resume { field, .. }) => assert_eq!(field, "codec"),
        other => panic!("{other:?}"),
    }
    other.restart = true;
    let report = compress(Arc::new(disk), other).unwrap();
    assert_eq!((report.codec.as_str(), report.resumed_tensors), ("raw", 0));
}

#[test]
fn an_output_that_is_there_is_recognised_or_refused() {
    let disk = MemoryStore::new();
    let first = compress(Arc::new(disk.clone()), config()).unwrap();
    let again = compress(Arc::new(disk.clone()), config()).unwrap();
    assert!(again.already_done && !first.already_done);
    assert_eq!((again.package_bytes, &again.tensors), (first.package_bytes, &first.tensors));
    let mut other = config();
    other.codec = Some("raw".into());
    assert!(matches!(compress(Arc::new(disk), other), Err(Error::Refused { .. })));
}

#[test]
fn an_output_inside_the_model_is_refused() {
    let mut config = config();
    config.output = Some(model().join("out"));
    let result = LoopCompressor::new(config).compress_model(model(), None);
    assert!(matches!(result, Err(Error::Refused { .. })), "{result:?}");
}
