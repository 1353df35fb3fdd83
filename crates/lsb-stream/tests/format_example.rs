//! The worked example of `docs/format.md` is what the writer really writes, byte for byte.
//!
//! A change of these bytes is a change of the format: it needs a new format version and a reader for the old one.

#![allow(clippy::unwrap_used)]

use lsb_format::package::{FileRole, Fingerprint, Hash, ShortDigest, Source, SourceFile};
use lsb_format::{DType, Tiling};
use lsb_quant::{EncodedTile, Parameters};
use lsb_stream::package::{Begin, PackageWriter, TensorPlan, WriteOptions};
use lsb_stream::store::MemoryStore;
use std::path::Path;
use std::sync::Arc;

fn plan(name: &str, same_as: Option<&str>) -> TensorPlan {
    let same_as = same_as.map(str::to_owned);
    TensorPlan { name: name.to_owned(), dtype: DType::BF16, shape: vec![2, 3], same_as }
}

/// A 2 x 3 matrix and one tied to it, stored as they are.
fn write() -> MemoryStore {
    let source_file = SourceFile {
        file: "model.safetensors".to_owned(),
        bytes: 100,
        header_blake3: Hash::of(b"the header of the source"),
    };
    let options = WriteOptions {
        fingerprint: Fingerprint::new().with("tool", "lsb 0.1.0"),
        restart: false,
        overwrite: false,
        tool: "lsb 0.1.0".to_owned(),
        source: Source { weight_bytes: 12, files: vec![source_file] },
        tensors: vec![plan("w", None), plan("tied", Some("w"))],
        shard_bytes: 1 << 30,
    };
    let store = MemoryStore::new();
    let Begin::Write { mut writer, .. } =
        PackageWriter::begin(Arc::new(store.clone()), Path::new("/out"), options).unwrap()
    else {
        panic!("nothing is there yet");
    };
    let source: Vec<u8> = (1..=12).collect();
    let mut tile = EncodedTile::default();
    tile.buffer().extend(&source);
    tile.end_part();
    writer.begin_tensor(0, Tiling::standard(2, 3).unwrap()).unwrap();
    writer.push(&[tile]).unwrap();
    let facts = serde_json::Value::Null;
    writer.finish_tensor(&[], ShortDigest::of(&source), "raw", &Parameters::new(), facts).unwrap();
    writer.add_file("config.json", &mut &b"{}\n"[..], FileRole::Copied).unwrap();
    writer.publish().unwrap();
    store
}

fn dump(bytes: &[u8]) -> String {
    let line = |(number, row): (usize, &[u8])| {
        let hex: Vec<String> = row.iter().map(|b| format!("{b:02x}")).collect();
        let text: String = row
            .iter()
            .map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' })
            .collect();
        format!("{:04x}  {:<47}  {text}", number * 16, hex.join(" ")).trim_end().to_owned()
    };
    bytes.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn v1_worked_example() {
    let document = include_str!("../../../docs/format.md").replace("\r\n", "\n");
    let store = write();
    let manifest = String::from_utf8(store.read(Path::new("/out/lsb.json")).unwrap()).unwrap();
    let shard = dump(&store.read(Path::new("/out/weights-00001.lsb")).unwrap());
    println!("{manifest}{shard}");
    // The manifest is wrapped in the document: its line breaks are not part of it.
    let unwrapped = document.replace('\n', "");
    assert!(unwrapped.contains(manifest.trim_end()), "the manifest of the example differs");
    assert!(document.contains(&shard), "the shard of the example differs");
}
