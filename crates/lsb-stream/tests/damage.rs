//! Every change of a finished package is found, and found in the right place; no damaged package is read wrongly.

#![allow(clippy::unwrap_used)]

mod scenario;

use lsb_format::package::{Content, MANIFEST_FILE};
use lsb_stream::package::{Damage, Depth, Package, VerifyReport, verify_in};
use lsb_stream::store::{MemoryStore, Store};
use lsb_stream::{Error, Result};
use proptest::prelude::*;
use scenario::{OUT, Scenario, golden, package_files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn path(name: &str) -> PathBuf {
    Path::new(OUT).join(name)
}

fn verify(store: &MemoryStore, depth: Depth) -> VerifyReport {
    verify_in(Arc::new(store.clone()), Path::new(OUT), depth).unwrap()
}

/// The golden package with one file replaced.
fn with(name: &str, bytes: &[u8]) -> MemoryStore {
    let store = golden(Scenario::new(7));
    store.put(&path(name), bytes).unwrap();
    store
}

/// What a byte of a shard belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Header,
    Tile(String, u64),
    Table(String),
}

/// Who owns each byte of each shard, told by the writer's own numbers and not by the reader under test.
fn owners(files: &BTreeMap<String, Vec<u8>>, scenario: Scenario) -> BTreeMap<String, Vec<Owner>> {
    let mut out = BTreeMap::new();
    for (name, bytes) in files.iter().filter(|(n, _)| n.ends_with(".lsb")) {
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk::<8>().unwrap()) as usize;
        let mut owner = vec![Owner::Header; header];
        let tensors = safetensors_order(bytes);
        for (tensor, end) in tensors {
            let index = scenario.plan().iter().position(|p| p.name == tensor).unwrap();
            for (number, tile) in scenario.all_tiles(index).iter().enumerate() {
                let tile_owner = Owner::Tile(tensor.clone(), number as u64);
                owner.resize(owner.len() + tile.bytes().len(), tile_owner);
            }
            owner.resize(header + end, Owner::Table(tensor));
        }
        assert_eq!(owner.len(), bytes.len());
        out.insert(name.clone(), owner);
    }
    out
}

/// Names and ends of the tensors of a shard, read from its header as plain JSON.
fn safetensors_order(bytes: &[u8]) -> Vec<(String, usize)> {
    let length = u64::from_le_bytes(*bytes.first_chunk::<8>().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut tensors: Vec<(String, usize)> = header
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| (name.clone(), entry["data_offsets"][1].as_u64().unwrap() as usize))
        .collect();
    tensors.sort_by_key(|t| t.1);
    tensors
}

/// True if the report names exactly the owner of the damaged byte.
fn located(damage: &[Damage], file: &str, owner: Option<&Owner>) -> bool {
    let [damage] = damage else { return false };
    let (tensor, tile) = match owner {
        Some(Owner::Tile(tensor, tile)) => (Some(tensor.as_str()), Some(*tile)),
        Some(Owner::Table(tensor)) => (Some(tensor.as_str()), None),
        Some(Owner::Header) | None => (None, None),
    };
    damage.file == file && damage.tensor.as_deref() == tensor && damage.tile == tile
}

/// Reads everything that can be read, each tile with all its parts.
fn read_everything(store: &MemoryStore) -> Result<Vec<Vec<u8>>> {
    let package = Package::open_in(Arc::new(store.clone()), Path::new(OUT))?;
    let mut out = Vec::new();
    for index in 0..package.manifest().tensors.len() {
        let tensor = package.tensor_at(index)?;
        out.push(tensor.side().to_vec());
        for tile in 0..tensor.tiling().len() {
            let mut buffer = Vec::new();
            tensor.read_tile(tile, tensor.tiling().parts(), &mut buffer)?;
            out.push(buffer);
        }
    }
    Ok(out)
}

#[test]
fn packages_are_read_back_tile_by_tile() {
    let scenario = Scenario::new(7);
    let store = golden(scenario);
    let package = Package::open_in(Arc::new(store), Path::new(OUT)).unwrap();
    for (index, plan) in scenario.plan().iter().enumerate() {
        let tensor = package.tensor(&plan.name).unwrap();
        let source = plan.same_as.as_ref().map_or(index, |_| 0);
        assert_eq!(tensor.codec(), "opaque");
        assert_eq!(tensor.parameters().to_string(), format!("bits={},ratio=0.25", source % 2));
        assert_eq!(tensor.side(), &[7u8; 5][..source % 5]);
        assert_eq!(tensor.stored().shape, plan.shape);
        let tiles = scenario.all_tiles(source);
        assert_eq!(tensor.tiling().len(), tiles.len() as u64);
        for (number, tile) in tiles.iter().enumerate() {
            let mut buffer = vec![9; 3];
            for parts in 1..=tensor.tiling().parts() {
                let read = tensor.read_tile(number as u64, parts, &mut buffer).unwrap();
                let expected: Vec<&[u8]> = tile.parts().take(usize::from(parts)).collect();
                assert_eq!(read, expected);
            }
        }
        assert!(tensor.read_tile(tiles.len() as u64, 1, &mut Vec::new()).is_err());
    }
    assert!(package.tensor("layers.1.up").is_err());
    assert!(package.tensor_at(99).is_err());
}

#[test]
fn every_single_byte_change_is_found_and_located() {
    let scenario = Scenario::new(7);
    let store = golden(scenario);
    let good = read_everything(&store).unwrap();
    let files = package_files(&store);
    let owners = owners(&files, scenario);
    let mut cases = 0;
    for (name, bytes) in &files {
        // One handle writes the change and takes it back: the disk stays the golden one in between.
        for (i, byte) in bytes.iter().enumerate() {
            for to in [byte ^ 1, byte ^ 0x80, 0x00, 0xff] {
                if to == *byte {
                    continue;
                }
                cases += 1;
                let file = store.open(&path(name), lsb_stream::store::OpenMode::Update).unwrap();
                file.write_all_at(&[to], i as u64).unwrap();
                let report = verify(&store, Depth::Full);
                let owner = owners.get(name).map(|o| &o[i]);
                assert!(
                    !report.ok && located(&report.damaged, name, owner),
                    "{name} byte {i} {byte:#04x} -> {to:#04x}, part of {owner:?}: {:?}",
                    report.damaged
                );
                match read_everything(&store) {
                    // Copied files hold no weights, and reading weights does not look at them.
                    Ok(read) => assert!(read == good && !name.contains("lsb"), "{name} byte {i}"),
                    Err(error) => assert!(matches!(error, Error::Input(_)), "{name} byte {i}: {error}"),
                }
                file.write_all_at(&[*byte], i as u64).unwrap();
                file.sync_data().unwrap();
            }
        }
    }
    println!("{cases} changes");
    assert!(verify(&store, Depth::Full).ok);
}

#[test]
fn every_truncation_is_found_even_by_a_quick_look() {
    for (name, bytes) in package_files(&golden(Scenario::new(7))) {
        for length in 0..bytes.len() {
            let store = with(&name, &bytes[..length]);
            for depth in [Depth::Quick, Depth::Full] {
                let report = verify(&store, depth);
                assert!(
                    !report.ok && report.damaged.iter().all(|d| d.file == name),
                    "{name} cut at {length}"
                );
            }
            let _ = read_everything(&store);
        }
        let longer = with(&name, &[&bytes[..], b"x"].concat());
        let report = verify(&longer, Depth::Quick);
        assert!(!report.ok && report.damaged[0].file == name, "{name} longer");
    }
}

#[test]
fn zeroed_sectors_and_swapped_tiles_are_found() {
    let scenario = Scenario::new(7);
    let files = package_files(&golden(scenario));
    for (name, owner) in owners(&files, scenario) {
        let bytes = &files[&name];
        for start in (0..bytes.len()).step_by(512) {
            let mut damaged = bytes.clone();
            let end = (start + 512).min(bytes.len());
            damaged[start..end].fill(0);
            assert!(!verify(&with(&name, &damaged), Depth::Full).ok, "{name} zeroed at {start}");
        }
        // Pieces of equal length that change places, each valid by itself.
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (i, o) in owner.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if owner[run.0] == *o => run.1 = i + 1,
                _ => runs.push((i, i + 1)),
            }
        }
        for (a, b) in runs.iter().flat_map(|a| runs.iter().map(move |b| (*a, *b))) {
            let length = (a.1 - a.0).min(b.1 - b.0);
            if a >= b || bytes[a.0..a.0 + length] == bytes[b.0..b.0 + length] {
                continue;
            }
            let mut swapped = bytes.clone();
            swapped[a.0..a.0 + length].copy_from_slice(&bytes[b.0..b.0 + length]);
            swapped[b.0..b.0 + length].copy_from_slice(&bytes[a.0..a.0 + length]);
            let report = verify(&with(&name, &swapped), Depth::Full);
            assert!(!report.ok && report.damaged.iter().all(|d| d.file == name), "{name} {a:?} {b:?}");
        }
    }
}

#[test]
fn equal_tiles_of_equal_shape_cannot_change_places() {
    // Two tiles whose payloads differ but whose places are alike: only the tile number tells them apart.
    let scenario = Scenario::new(7);
    let files = package_files(&golden(scenario));
    let name = "weights-00001.lsb";
    let owner = &owners(&files, scenario)[name];
    let tiles: Vec<usize> = (0..2)
        .map(|n| owner.iter().position(|o| *o == Owner::Tile("embed".to_owned(), n)).unwrap())
        .collect();
    let table = owner.iter().position(|o| matches!(o, Owner::Table(_))).unwrap();
    let mut bytes = files[name].clone();
    let first: Vec<u8> = bytes[tiles[0]..tiles[1]].to_vec();
    let end = owner.iter().position(|o| *o == Owner::Tile("embed".to_owned(), 2)).unwrap();
    let second: Vec<u8> = bytes[tiles[1]..end].to_vec();
    let both = [second, first].concat();
    bytes[tiles[0]..end].copy_from_slice(&both);
    assert!(end < table);
    let report = verify(&with(name, &bytes), Depth::Full);
    let numbers: Vec<_> = report.damaged.iter().map(|d| d.tile).collect();
    assert_eq!(numbers, [Some(0), Some(1)]);
}

#[test]
fn shards_of_two_packages_do_not_mix() {
    let other = package_files(&golden(Scenario::new(8)));
    for (name, bytes) in other.iter().filter(|(n, _)| n.contains("lsb")) {
        let store = with(name, bytes);
        let report = verify(&store, Depth::Quick);
        assert!(!report.ok, "{name}");
        if name != MANIFEST_FILE {
            assert!(report.damaged.iter().all(|d| d.file == *name), "{:?}", report.damaged);
        }
        assert!(matches!(read_everything(&store), Err(Error::Input(_))), "{name}");
    }
    let good = package_files(&golden(Scenario::new(7)));
    let store = with("weights-00001.lsb", &good["weights-00002.lsb"]);
    assert!(!verify(&store, Depth::Quick).ok);
}

#[test]
fn missing_and_extra_files_are_found() {
    let names: Vec<String> = package_files(&golden(Scenario::new(7))).into_keys().collect();
    for name in &names {
        let store = golden(Scenario::new(7));
        store.remove_file(&path(name)).unwrap();
        if name == MANIFEST_FILE {
            match verify_in(Arc::new(store), Path::new(OUT), Depth::Quick) {
                Err(Error::Input(e)) => assert_eq!(e.rule(), "P01"),
                other => panic!("{other:?}"),
            }
            continue;
        }
        let report = verify(&store, Depth::Quick);
        assert_eq!(report.damaged.len(), 1, "{name}: {:?}", report.damaged);
        assert!(report.damaged[0].file == *name && report.damaged[0].message.contains("missing"));
    }
    for extra in ["weights-00004.lsb", "notes.txt", "lsb.journal", "1_Pooling/more.json"] {
        let report = verify(&with(extra, b"x"), Depth::Quick);
        assert_eq!(report.damaged.len(), 1, "{extra}");
        assert!(report.damaged[0].file == extra && report.damaged[0].message.contains("P24"));
    }
    assert!(verify(&with(".gitattributes", b"x"), Depth::Full).ok, "other tools' files are let be");
}

#[test]
fn depths_look_as_deep_as_they_say() {
    let scenario = Scenario::new(7);
    let files = package_files(&golden(scenario));
    let name = "weights-00003.lsb";
    let at = owners(&files, scenario)[name].iter().position(|o| matches!(o, Owner::Tile(..))).unwrap();
    let mut shard = files[name].clone();
    shard[at] ^= 1;
    let config = b"{ }"; // as long as the one that was copied
    let damaged = |store: &MemoryStore| {
        [Depth::Quick, Depth::Weights, Depth::Full].map(|depth| verify(store, depth).damaged.len())
    };
    assert_eq!(damaged(&with(name, &shard)), [0, 1, 1]);
    assert_eq!(damaged(&with("config.json", config)), [0, 0, 1]);
}

#[test]
fn checking_goes_on_behind_damage() {
    let scenario = Scenario::new(7);
    let files = package_files(&golden(scenario));
    let store = golden(scenario);
    let mut expected = 0;
    for (name, owner) in owners(&files, scenario) {
        let mut bytes = files[&name].clone();
        for i in
            (1..bytes.len()).filter(|i| matches!(owner[*i], Owner::Tile(..)) && owner[*i] != owner[i - 1])
        {
            bytes[i] ^= 4;
            expected += 1;
        }
        store.put(&path(&name), &bytes).unwrap();
    }
    store.put(&path("config.json"), b"no\n").unwrap();
    let report = verify(&store, Depth::Full);
    assert_eq!(report.damaged.len(), expected + 1, "every tile and the file");
    assert_eq!(report.tensors, 5);
}

#[test]
fn plain_safetensors_lists_every_shard() {
    let store = golden(Scenario::new(7));
    let package = Package::open_in(Arc::new(store.clone()), Path::new(OUT)).unwrap();
    for (number, shard) in package.manifest().shards.iter().enumerate() {
        let bytes = store.read(&path(&shard.file)).unwrap();
        let names: Vec<String> = safetensors_order(&bytes).into_iter().map(|t| t.0).collect();
        let expected: Vec<&str> = package.manifest().stored_in(number).map(|t| t.0).collect();
        assert_eq!(names, expected);
    }
    let stored =
        package.manifest().tensors.iter().filter(|t| matches!(t.content, Content::Stored(_))).count();
    assert_eq!(stored, 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn prop_heavily_damaged_packages_never_panic(
        changes in proptest::collection::vec((0usize..6, any::<u16>(), any::<u8>()), 1..40),
    ) {
        let store = golden(Scenario::new(7));
        let mut files = package_files(&store);
        let names: Vec<String> = files.keys().cloned().collect();
        for (file, at, to) in changes {
            let name = &names[file % names.len()];
            let bytes = files.get_mut(name).unwrap();
            let at = usize::from(at) % bytes.len();
            bytes[at] = to;
        }
        for (name, bytes) in &files {
            store.put(&path(name), bytes).unwrap();
        }
        let _ = verify_in(Arc::new(store.clone()), Path::new(OUT), Depth::Full);
        let _ = read_everything(&store);
    }
}
