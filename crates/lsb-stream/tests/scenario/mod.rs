//! A tiny package of three shards with opaque tiles, and one run of writing it, as the crash and damage tests use.

#![allow(dead_code, unreachable_pub)]

use lsb_format::package::{FileRole, Fingerprint, Hash, ShortDigest, Source, SourceFile};
use lsb_format::{DType, Tiling};
use lsb_quant::{EncodedTile, Parameters};
use lsb_stream::package::{Begin, PackageWriter, TensorPlan, WriteOptions};
use lsb_stream::store::{MemoryStore, Store};
use lsb_stream::{Error, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Where the package goes.
pub const OUT: &str = "/out";

/// What is to be written; `seed` stands for everything that decides the bytes.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub seed: u64,
    pub restart: bool,
    pub overwrite: bool,
    /// Makes every tensor durable by itself, so that runs are also continued in the middle of a shard.
    pub checkpoints: bool,
}

impl Scenario {
    pub const fn new(seed: u64) -> Self {
        Scenario { seed, restart: false, overwrite: false, checkpoints: false }
    }

    pub fn plan(&self) -> Vec<TensorPlan> {
        let plan = |name: &str, shape: &[u64]| TensorPlan {
            name: name.to_owned(),
            dtype: DType::BF16,
            shape: shape.to_vec(),
            same_as: None,
        };
        vec![
            plan("embed", &[40, 8]),
            plan("layers.0.norm", &[8]),
            plan("layers.0.up", &[8, 40]),
            TensorPlan { same_as: Some("embed".to_owned()), ..plan("head", &[40, 8]) },
            plan("layers.0.empty", &[0, 8]),
            plan("layers.0.down", &[40, 8]),
        ]
    }

    pub fn options(&self) -> WriteOptions {
        let header_blake3 = Hash::of(&self.seed.to_le_bytes());
        WriteOptions {
            fingerprint: Fingerprint::new().with("tool", "lsb test").with("seed", self.seed.to_string()),
            restart: self.restart,
            overwrite: self.overwrite,
            tool: "lsb test".to_owned(),
            source: Source {
                weight_bytes: 5008,
                files: vec![SourceFile { file: "model.safetensors".to_owned(), bytes: 6000, header_blake3 }],
            },
            tensors: self.plan(),
            shard_bytes: 640,
        }
    }

    /// Runs once from begin to publish.
    pub fn run(&self, store: Arc<dyn Store>) -> Result<()> {
        self.run_at(store, Path::new(OUT))
    }

    /// As `run`, into `out`. Copies files first and last, so that both orders are seen.
    pub fn run_at(&self, store: Arc<dyn Store>, out: &Path) -> Result<()> {
        let (mut writer, finished) = match PackageWriter::begin(store, out, self.options())? {
            Begin::Done(_) => return Ok(()),
            Begin::Write { writer, finished } => (writer, finished),
        };
        for (i, tensor) in finished.iter().enumerate() {
            assert_eq!(tensor.facts["order"], json!(i), "facts come back as they were given");
        }
        writer.add_file("1_Pooling/config.json", &mut &b"{\"pooling\":true}\n"[..], FileRole::Copied)?;
        while let Some(index) = writer.next_tensor() {
            self.write_tensor(&mut writer, index)?;
            if self.checkpoints {
                writer.checkpoint()?;
            }
        }
        writer.add_file("config.json", &mut &b"{}\n"[..], FileRole::Copied)?;
        let predicted = writer.package_bytes(&[("report.json", 9)])?;
        writer.add_file("report.json", &mut &b"{\"ok\":1}\n"[..], FileRole::Document)?;
        let published = writer.publish()?;
        assert_eq!(published.package_bytes, predicted);
        Ok(())
    }

    fn write_tensor(&self, writer: &mut PackageWriter, index: usize) -> Result<()> {
        let tiling = self.tiling(index);
        if index == 2 {
            // A first attempt with another codec, thrown away.
            writer.begin_tensor(index, tiling)?;
            writer.push(&self.tiles(&tiling, 99)[..1])?;
            writer.abort_tensor()?;
        }
        writer.begin_tensor(index, tiling)?;
        for tile in self.all_tiles(index) {
            writer.push(&[tile])?;
        }
        let order = writer.finished().len();
        let parameters = Parameters::new().with("bits", (index % 2) as i64).with("ratio", 0.25);
        let side = [7u8; 5];
        let facts = json!({"order": order});
        writer.finish_tensor(
            &side[..index % 5],
            ShortDigest::of(&[index as u8]),
            "opaque",
            &parameters,
            facts,
        )?;
        Ok(())
    }

    fn tiling(&self, index: usize) -> Tiling {
        let shape = &self.plan()[index].shape;
        let (rows, cols) = if shape.len() == 1 { (1, shape[0]) } else { (shape[0], shape[1]) };
        Tiling::new(rows, cols, 16, 8, 1 + (index % 2) as u8).unwrap()
    }

    /// The tiles of the tensor with this index in the plan.
    pub fn all_tiles(&self, index: usize) -> Vec<EncodedTile> {
        self.tiles(&self.tiling(index), index as u64)
    }

    /// Opaque tiles: pseudo-random bytes of lengths that differ.
    fn tiles(&self, tiling: &Tiling, salt: u64) -> Vec<EncodedTile> {
        let mut state = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut tile = || {
            let mut out = EncodedTile::default();
            for _ in 0..tiling.parts() {
                let length = 10 + next() % 50;
                out.buffer().extend((0..length).map(|_| next() as u8));
                out.end_part();
            }
            out
        };
        (0..tiling.len()).map(|_| tile()).collect()
    }
}

/// A finished package of this scenario.
pub fn golden(scenario: Scenario) -> MemoryStore {
    let store = MemoryStore::new();
    scenario.run(Arc::new(store.clone())).unwrap();
    store
}

/// The files of the package, by their path below the output.
pub fn package_files(store: &MemoryStore) -> BTreeMap<String, Vec<u8>> {
    let out = format!("{}/", OUT.trim_start_matches('/'));
    store.files().into_iter().filter_map(|(k, v)| Some((k.strip_prefix(&out)?.to_owned(), v))).collect()
}

/// True for the errors that a stopped or broken store gives.
pub fn is_io(error: &Error) -> bool {
    matches!(error, Error::Io { .. })
}
