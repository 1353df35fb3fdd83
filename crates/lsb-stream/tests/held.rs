//! Held tensors give what open ones give, for every codec, without the file and from many threads.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

use lsb_quant::Registry;
use lsb_stream::{
    Budget, CompressConfig, LoopCompressor, Scratch, StreamOptions, TensorWeights, WeightSource,
    WeightStream, open_weights,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn open(path: &Path) -> Arc<dyn WeightSource> {
    open_weights(path, &Registry::standard(), &Default::default()).unwrap().into()
}

/// The bits of a run, both ways where both exist.
fn bits(
    weights: &dyn TensorWeights,
    run: std::ops::Range<u64>,
    scratch: &mut Scratch,
) -> (Vec<u32>, Vec<u8>) {
    let n = (run.end - run.start) as usize;
    let (mut values, mut bytes) = (Vec::new(), Vec::new());
    if weights.facts().dtype.is_float() {
        values.resize(n, 0.0);
        weights.read_f32(run.clone(), &mut values, scratch).unwrap();
    }
    if weights.is_exact() {
        bytes.resize(n * weights.facts().dtype.bits() as usize / 8, 0);
        weights.read_exact(run, &mut bytes, scratch).unwrap();
    }
    (values.into_iter().map(f32::to_bits).collect(), bytes)
}

/// Reads every tensor open and held, whole and in runs that meet no tile's ends. Returns bytes read to hold.
fn compare(source: &dyn WeightSource) -> u64 {
    let mut held_bytes = 0;
    for (i, facts) in source.tensors().iter().enumerate() {
        let open = source.open(i).unwrap();
        let before = source.bytes_read();
        let held: Arc<dyn TensorWeights> = source.hold(i).unwrap().into();
        let read = source.bytes_read() - before;
        assert_eq!(read, source.held_bytes(i), "{}", facts.name);
        held_bytes += read;
        assert_eq!((open.facts(), held.facts()), (facts, facts));
        assert_eq!((open.tiling(), open.is_exact()), (held.tiling(), held.is_exact()));
        assert!(held.scratch_bytes() <= open.scratch_bytes());
        let n = facts.weights();
        let runs = [0..n, n / 3..n / 3 * 2, n / 7..n, n.saturating_sub(1)..n, 0..0];
        let mut scratch = Scratch::default();
        let expected: Vec<_> = runs.iter().map(|run| bits(&*open, run.clone(), &mut scratch)).collect();
        assert!(source.bytes_read() > before + read || n == 0, "an open tensor reads its file");
        let before = source.bytes_read();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut scratch = Scratch::default();
                    for (run, expected) in runs.iter().zip(&expected) {
                        assert!(bits(&*held, run.clone(), &mut scratch) == *expected, "{}", facts.name);
                    }
                });
            }
        });
        assert_eq!(source.bytes_read(), before, "a held tensor reads nothing");
    }
    held_bytes
}

#[test]
fn held_tensors_are_open_tensors_for_models_and_every_codec() {
    for name in ["tiny-sharded", "reflm"] {
        let source = open(&model(name));
        assert_eq!(compare(&*source), source.tensors().iter().map(|t| t.stored_bytes).sum::<u64>());
    }
    let temp = tempfile::tempdir().unwrap();
    for codec in Registry::standard().entries() {
        let package = temp.path().join(codec.id);
        let mut config = CompressConfig::default();
        (config.output, config.codec) = (Some(package.clone()), Some(codec.id.to_owned()));
        LoopCompressor::new(config).compress_model(model("tiny-sharded"), None).unwrap();
        let source = open(&package);
        assert!(source.tensors().iter().any(|t| t.codec_id() == codec.id), "{}", codec.id);
        assert!(compare(&*source) > 0);
    }
}

#[test]
fn damage_is_found_when_a_package_is_held_and_the_file_is_not_needed_after() {
    let temp = tempfile::tempdir().unwrap();
    let package = temp.path().join("package");
    let mut config = CompressConfig::default();
    config.output = Some(package.clone());
    LoopCompressor::new(config).compress_model(model("tiny-sharded"), None).unwrap();
    let source = open(&package);
    let held: Vec<_> = (0..source.tensors().len()).map(|i| source.hold(i).unwrap()).collect();
    let mut scratch = Scratch::default();
    let all = |t: &dyn TensorWeights| 0..t.facts().weights();
    let expected: Vec<_> = held.iter().map(|t| bits(&**t, all(&**t), &mut scratch)).collect();

    // Every tensor's first tile is right behind the header or the tensor before: change one byte of each.
    let first = &source.tensors()[0];
    for shard in std::fs::read_dir(&package).unwrap().map(|entry| entry.unwrap().path()) {
        if shard.extension().is_some_and(|e| e == "lsb") {
            let mut bytes = std::fs::read(&shard).unwrap();
            let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            for byte in &mut bytes[header..] {
                *byte ^= 1;
            }
            std::fs::write(&shard, bytes).unwrap();
        }
    }
    let e = open(&package).hold(0).err().unwrap().to_string();
    assert!(e.contains(&first.name) && e.contains(".lsb"), "{e}");
    for (t, expected) in held.iter().zip(&expected) {
        assert!(bits(&**t, all(&**t), &mut scratch) == *expected);
    }
}

#[test]
fn a_stream_gives_the_same_weights_at_any_budget_and_reads_each_byte_once_per_pass() {
    let temp = tempfile::tempdir().unwrap();
    let package = temp.path().join("package");
    let mut config = CompressConfig::default();
    config.output = Some(package.clone());
    LoopCompressor::new(config).compress_model(model("reflm"), None).unwrap();
    for path in [model("reflm"), package] {
        let source = open(&path);
        let order: Vec<usize> = (0..source.tensors().len()).collect();
        let mut scratch = Scratch::default();
        let expected: Vec<_> = order
            .iter()
            .map(|&i| bits(&*source.open(i).unwrap(), 0..source.tensors()[i].weights(), &mut scratch).0)
            .collect();
        let total: u64 = order.iter().map(|&i| source.held_bytes(i)).sum();
        for (limit, prefetch) in [(0, true), (total / 3, true), (total / 3, false), (2 * total, true)] {
            let budget = Budget::new(limit);
            let options = StreamOptions { prefetch, ..Default::default() };
            let stream = WeightStream::new(Arc::clone(&source), order.clone(), &budget, options).unwrap();
            for pass in 0..2 {
                stream.expect_another_pass(pass == 0);
                for &i in &order {
                    let weights = stream.tensor(i).unwrap();
                    let n = weights.facts().weights();
                    let mut values = vec![0.0; n as usize];
                    weights.read_f32(0..n, &mut values, &mut scratch).unwrap();
                    assert!(values.iter().map(|x| x.to_bits()).eq(expected[i].iter().copied()));
                }
            }
            let figures = stream.figures();
            let passes = if figures.resident { 1 } else { 2 };
            assert_eq!(figures.bytes_read, passes * total, "{limit} {prefetch}");
            assert_eq!(figures.resident, limit == 2 * total);
            assert_eq!(figures.not_held == 0, limit == 2 * total, "the embedding alone is too large");
            drop(stream);
            assert!(budget.peak() <= limit && budget.used() == 0);
        }
    }
}
