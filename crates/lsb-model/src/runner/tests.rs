//! Forward passes against outputs of an independent implementation.

use super::batch::cut;
use crate::{CacheType, ModelRunner, NoTap, RunOptions};
use lsb_quant::Registry;
use lsb_stream::{Budget, CompressConfig, LoopCompressor, Scratch, TensorWeights};
use std::path::{Path, PathBuf};

const ALL: &[&str] = &[
    "bert",
    "gemma2",
    "gemma3",
    "gpt-neox",
    "gpt2",
    "llama",
    "llama3-rope",
    "mistral",
    "mixtral",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3-moe",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden").join(name)
}

struct Expected {
    ids: Vec<u32>,
    values: Vec<Vec<f32>>,
}

fn expected(folder: &Path) -> Expected {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    Expected {
        ids: serde_json::from_value(json["input_ids"].clone()).unwrap(),
        values: serde_json::from_value(json["values"].clone()).unwrap(),
    }
}

fn largest_difference(got: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let pairs = got.iter().zip(expected).flat_map(|(g, e)| {
        assert_eq!(g.len(), e.len());
        g.iter().zip(e)
    });
    pairs.map(|(g, e)| (g - e).abs()).fold(0.0, f32::max)
}

/// What a batch of one window gives: logits, or hidden states of an encoder.
fn outputs(model: &ModelRunner, ids: &[u32]) -> Vec<Vec<f32>> {
    let mut batch = model.batch(&[ids.to_vec()]).unwrap();
    batch.run(&mut NoTap).unwrap();
    let mut out = Vec::new();
    for chunk in 0..batch.chunks().len() {
        let x = batch.output(chunk).unwrap();
        let x = match model.logits() {
            0 => x,
            _ => model.head().unwrap().logits(&x).unwrap(),
        };
        out.extend(x.to_vec2::<f32>().unwrap());
    }
    out
}

fn open(folder: &Path, budget: u64, options: &RunOptions) -> ModelRunner {
    ModelRunner::open(folder, &Registry::standard(), &Budget::new(budget), options).unwrap()
}

#[test]
fn every_architecture_agrees_with_an_independent_implementation() {
    for name in ALL {
        let expected = expected(&golden(name));
        let model = open(&golden(name), 1 << 30, &RunOptions::default());
        let difference = largest_difference(&outputs(&model, &expected.ids), &expected.values);
        println!("{name} {difference}");
        assert!(difference < 1e-3, "{name}: {difference}");
    }
}

#[test]
fn chunks_and_caches_change_nothing() {
    for name in ALL {
        let expected = expected(&golden(name));
        let options = RunOptions { chunk_tokens: 7, ..RunOptions::default() };
        let model = open(&golden(name), 1 << 30, &options);
        let difference = largest_difference(&outputs(&model, &expected.ids), &expected.values);
        assert!(difference < 1e-3, "{name}: {difference}");
        if model.logits() == 0 {
            continue;
        }
        for (kind, tolerance) in [(CacheType::F32, 1e-3), (CacheType::F16, 0.01), (CacheType::Q8, 0.15)] {
            let mut session = model.session(24, kind).unwrap();
            let (prompt, rest) = expected.ids.split_at(10);
            let mut rows = vec![session.feed(prompt, true).unwrap()];
            for id in rest {
                rows.push(session.feed(&[*id], true).unwrap());
            }
            let difference = largest_difference(&rows, &expected.values[9..]);
            println!("{name} {kind:?} {difference}");
            assert!(difference < tolerance, "{name} {kind:?}: {difference}");
            assert!(session.feed(&[1], false).is_err(), "the session is full");
        }
    }
}

#[test]
fn windows_are_cut_into_chunks() {
    let chunks = cut(&[3, 4, 10, 2, 2], 7);
    let tokens: Vec<_> = chunks.iter().map(|c| c.tokens.clone()).collect();
    assert_eq!(tokens, [0..7, 7..14, 14..17, 17..21]);
    assert_eq!(chunks.iter().map(|c| c.part).collect::<Vec<_>>(), [false, true, true, false]);
    assert_eq!(chunks[2].segments[0].first, 7);
    assert_eq!(
        chunks[3].segments.iter().map(|s| (s.sequence, s.first)).collect::<Vec<_>>(),
        [(0, 0), (1, 0)]
    );
}

#[test]
fn a_lossless_package_gives_the_same_in_every_way_of_reading_it() {
    for name in ALL {
        let expected = expected(&golden(name));
        let dir = tempfile::tempdir().unwrap();
        let mut config = CompressConfig::default();
        config.codec = Some("lossless".to_owned());
        config.output = Some(dir.path().join("package"));
        LoopCompressor::new(config).compress_model(golden(name), None).unwrap();
        let small = RunOptions { caching: false, activation_bytes: Some(1 << 23), ..RunOptions::default() };
        let direct = RunOptions { prefetch: false, ..small.clone() };
        for (budget, options) in [(1 << 30, RunOptions::default()), (24 << 20, small), (24 << 20, direct)] {
            let model = open(&dir.path().join("package"), budget, &options);
            let difference = largest_difference(&outputs(&model, &expected.ids), &expected.values);
            assert!(difference < 1e-3, "{name}: {difference}");
        }
    }
}

#[test]
fn steps_of_generation_give_the_same_whether_weights_are_decoded_multiplied_or_unpacked() {
    // Experts, tied heads, fused projections, and weights in the order of inputs.
    for (name, codec) in [
        ("mixtral", "trellis:3"),
        ("gemma2", "trellis:5"),
        ("phi3", "trellis:2"),
        ("gpt2", "trellis:3"),
        ("mixtral", "rtn:bits=4,group=32"),
        ("gemma2", "outlier-binary"),
        ("phi3", "rtn:3"),
        ("gpt2", "ternary"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = CompressConfig::default();
        config.codec = Some(codec.to_owned());
        config.output = Some(dir.path().join("package"));
        LoopCompressor::new(config).compress_model(golden(name), None).unwrap();
        let ids = expected(&golden(name)).ids;
        let run = |options: RunOptions| {
            let model = open(&dir.path().join("package"), 200 << 20, &options);
            let mut session = model.session(ids.len(), CacheType::F32).unwrap();
            ids.iter().map(|&id| session.feed(&[id], true).unwrap()).collect::<Vec<_>>()
        };
        let dense = run(RunOptions::default());
        let multiplied = run(RunOptions { caching: false, ..RunOptions::default() });
        let unpacked = run(RunOptions { unpacked: true, ..RunOptions::default() });
        let scale = dense.iter().flatten().fold(0.0, |most: f32, x| most.max(x.abs()));
        // Beside weights of one bit, activations have 12 bits.
        let most = if codec == "outlier-binary" { 2e-3 } else { 1e-4 };
        for other in [multiplied, unpacked] {
            let difference = largest_difference(&other, &dense);
            assert!(difference < most * scale, "{name}: {difference} of {scale}");
        }
    }
}

#[test]
fn a_session_of_absurd_length_is_refused() {
    let options = RunOptions { session: Some((usize::MAX, CacheType::F16)), ..RunOptions::default() };
    let model = open(&golden("phi3"), 64 << 20, &options);
    let error = model.session(usize::MAX, CacheType::F16).unwrap_err().to_string();
    assert!(error.contains("tokens; it can have"), "{error}");
}

/// Weights would take most of these budgets if a session had to do with what they leave.
#[test]
fn a_planned_session_fits_wherever_the_model_could_be_opened() {
    let ids = expected(&golden("llama")).ids;
    let plan = |capacity| RunOptions { session: Some((capacity, CacheType::F16)), ..RunOptions::default() };
    let try_open = |budget: u64, options: &RunOptions| {
        ModelRunner::open(&golden("llama"), &Registry::standard(), &Budget::new(budget), options)
    };
    for capacity in [ids.len(), 10_000, 60_000] {
        let refused = try_open(1 << 10, &plan(capacity)).unwrap_err();
        let crate::Error::Stream(lsb_stream::Error::OverBudget { needed, .. }) = refused else {
            panic!("{refused}");
        };
        assert!(try_open(needed - 1, &plan(capacity)).is_err());
        for budget in [needed, needed + needed / 8, 2 * needed, 3 * needed] {
            let model = try_open(budget, &plan(capacity)).unwrap();
            let mut session = model.session(capacity, CacheType::F16).unwrap();
            assert!(!session.feed(&ids, true).unwrap().is_empty());
        }
    }
}

#[test]
fn weights_are_unpacked_where_there_is_room_for_all_of_them() {
    for codec in ["trellis:3", "rtn:4", "outlier-binary", "ternary"] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = CompressConfig::default();
        config.codec = Some(codec.to_owned());
        config.output = Some(dir.path().join("package"));
        LoopCompressor::new(config).compress_model(golden("phi3"), None).unwrap();
        let path = dir.path().join("package");
        let source = lsb_stream::open_weights(&path, &Registry::standard(), &Default::default()).unwrap();
        let mut unpacked = 0;
        for number in 0..source.tensors().len() {
            let weights = source.open(number).unwrap();
            let Some(whole) = weights.unpack(u64::MAX).unwrap() else {
                assert!(weights.unpacked_bytes().is_none());
                continue;
            };
            assert!(weights.unpacked_bytes().is_some());
            assert!(weights.unpack(whole.bytes()).unwrap().is_some());
            assert!(weights.unpack(whole.bytes() - 1).unwrap().is_none());
            let (elements, mut scratch) = (weights.facts().weights(), Scratch::default());
            let mut read = [vec![f32::NAN; elements as usize], vec![f32::NAN; elements as usize]];
            weights.read_f32(0..elements, &mut read[0], &mut scratch).unwrap();
            whole.read_f32(0..elements, &mut read[1], &mut scratch).unwrap();
            assert_eq!(read[0], read[1], "{codec}: tensor {number}");
            unpacked += 1;
        }
        assert!(unpacked > 4, "{codec}: {unpacked} tensors");
    }
}

#[test]
fn an_unknown_architecture_is_refused_by_name() {
    let source = lsb_stream::MemoryWeights::new();
    let config = crate::ModelConfig::parse(br#"{"model_type": "mamba"}"#).unwrap();
    let budget = Budget::new(1 << 30);
    let error =
        ModelRunner::new(std::sync::Arc::new(source), config, &budget, &RunOptions::default()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("mamba") && message.contains("llama") && message.contains("gpt_neox"),
        "{message}"
    );
}
