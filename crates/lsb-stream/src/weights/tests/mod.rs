//! Runs of elements against plain slices, for every kind of partition.

mod package;

use super::cover::gather;
use super::*;
use lsb_format::TILE_WEIGHTS;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn prop_a_gathered_run_is_the_slice_of_the_matrix(
        rows in 1u64..30, cols in 1u64..30, tile_rows in 1u64..9, tile_cols in 1u64..9,
        grid in any::<bool>(), ends in (0.0f64..1.0, 0.0f64..1.0),
    ) {
        let tile_cols = if grid { tile_cols } else { cols };
        let tiling = Tiling::new(rows, cols, tile_rows, tile_cols, 1).unwrap();
        let matrix: Vec<u64> = (0..rows * cols).collect();
        let at = |x: f64| (x * (rows * cols + 1) as f64) as u64;
        let run = at(ends.0).min(at(ends.1))..at(ends.0).max(at(ends.1));
        let mut out = vec![u64::MAX; (run.end - run.start) as usize];
        let mut spare = Vec::new();
        let mut decoded = 0;
        gather(&tiling, run.clone(), |n| n as usize, &mut out, &mut spare, |tile, values| {
            assert_eq!(values.len(), tile.weights());
            decoded += 1;
            for (i, v) in values.iter_mut().enumerate() {
                let (r, c) = (i as u64 / tile.cols, i as u64 % tile.cols);
                *v = (tile.row + r) * cols + tile.col + c;
            }
            Ok(())
        }).unwrap();
        prop_assert_eq!(&out, &matrix[run.start as usize..run.end as usize]);
        prop_assert!(spare.len() as u64 <= tile_rows * tile_cols);
        prop_assert!(decoded <= tiling.len());
    }
}

fn source() -> MemoryWeights {
    MemoryWeights::new()
        .with_f32("a", &[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        .unwrap()
        .with("b", DType::F4, &[4], vec![0x21, 0x43])
        .unwrap()
        .with("empty", DType::BF16, &[0, 7], vec![])
        .unwrap()
}

#[test]
fn memory_weights_read_any_run() {
    let source = source();
    let (a, mut scratch) = (source.open(0).unwrap(), Scratch::default());
    let mut out = [9.0; 3];
    a.read_f32(2..5, &mut out, &mut scratch).unwrap();
    assert_eq!(out, [2.0, 3.0, 4.0]);
    let mut bytes = [0; 4];
    a.read_exact(5..6, &mut bytes, &mut scratch).unwrap();
    assert_eq!(bytes, 5.0f32.to_le_bytes());
    source.open(2).unwrap().read_f32(0..0, &mut [], &mut scratch).unwrap();
    assert_eq!(source.find("b"), Some(1));
}

#[test]
fn wrong_runs_buffers_types_and_numbers_are_errors() {
    let (source, mut scratch) = (source(), Scratch::default());
    let a = source.open(0).unwrap();
    let backwards = Range { start: 3, end: 2 };
    for run in [0..7, backwards, 6..7, u64::MAX - 1..u64::MAX, 0..2] {
        let e = a.read_f32(run, &mut [0.0], &mut scratch).unwrap_err();
        assert!(e.to_string().contains("do not fit"), "{e}");
    }
    let b = source.open(1).unwrap();
    let e = b.read_f32(0..1, &mut [0.0], &mut scratch).unwrap_err();
    assert!(e.to_string().contains("F4") && e.to_string().contains("\"b\""), "{e}");
    assert!(b.read_exact(0..1, &mut [0], &mut scratch).is_err(), "half a byte");
    assert!(b.read_exact(1..3, &mut [0], &mut scratch).is_err(), "from the middle of a byte");
    b.read_exact(2..4, &mut [0], &mut scratch).unwrap();
    assert!(source.open(3).is_err());
    assert!(MemoryWeights::new().with_f32("x", &[3], &[1.0]).is_err());
    assert!(MemoryWeights::new().with_f32("x", &[u64::MAX, 3], &[1.0]).is_err());
    assert!(MemoryWeights::new().with_f32("x", &[0, u64::MAX, u64::MAX, 3], &[]).is_err());
    assert!(source.clone().with_f32("a", &[1], &[1.0]).is_err());
}

/// A model of one file, written by hand.
fn model_file(dir: &std::path::Path, tensors: &[(&str, DType, &[u64], Vec<u8>)]) -> std::path::PathBuf {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({"dtype": dtype.name(), "shape": shape, "data_offsets": offsets});
        header.insert((*name).to_owned(), entry);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    let path = dir.join("model.safetensors");
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(&path, file).unwrap();
    path
}

#[test]
fn a_model_reads_the_same_as_its_bytes_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    // More than one tile, so that reading goes through the buffer twice.
    let (rows, cols) = (270u64, 1000u64);
    let values: Vec<u8> =
        (0..rows * cols).flat_map(|i| ((i * 40503) as u16 & 0xbfff).to_le_bytes()).collect();
    let tensors: [(&str, DType, &[u64], Vec<u8>); 3] = [
        ("model.layers.3.w", DType::BF16, &[rows, cols], values),
        ("lm_head.empty", DType::F32, &[0, 3], vec![]),
        ("ids", DType::I64, &[2], (0..16).collect()),
    ];
    let mut memory = MemoryWeights::new();
    for (name, dtype, shape, bytes) in &tensors {
        memory = memory.with(name, *dtype, shape, bytes.clone()).unwrap();
    }
    let model = crate::source::Model::open(&model_file(dir.path(), &tensors), &Default::default()).unwrap();
    let model = ModelWeights::new(model);
    let mut scratch = Scratch::default();
    for facts in memory.tensors() {
        let i = model.find(&facts.name).unwrap();
        assert_eq!((model.tensors()[i].dtype, &model.tensors()[i].shape), (facts.dtype, &facts.shape));
        let (a, b) = (model.open(i).unwrap(), memory.open(memory.find(&facts.name).unwrap()).unwrap());
        let n = facts.weights();
        for run in [0..n, 0..n / 2, n / 3..n, n..n] {
            let len = (run.end - run.start) as usize;
            let bytes = len * facts.dtype.bits() as usize / 8;
            let (mut x, mut y) = (vec![0; bytes], vec![1; bytes]);
            a.read_exact(run.clone(), &mut x, &mut scratch).unwrap();
            b.read_exact(run.clone(), &mut y, &mut scratch).unwrap();
            assert_eq!(x, y);
            if facts.dtype.is_float() {
                let (mut x, mut y) = (vec![0.0; len], vec![1.0; len]);
                a.read_f32(run.clone(), &mut x, &mut scratch).unwrap();
                b.read_f32(run, &mut y, &mut scratch).unwrap();
                assert_eq!(x, y);
            }
            assert!(scratch.held_bytes() <= a.scratch_bytes().max(TILE_WEIGHTS * 2));
        }
        assert!(a.read_exact(0..n + 1, &mut [0], &mut scratch).is_err());
    }
    let w = &model.tensors()[model.find("model.layers.3.w").unwrap()];
    assert_eq!((w.layer.as_str(), w.codec_id(), w.stored_bytes), ("layer 3", "none", rows * cols * 2));
}
