//! A tiny encoder beside itself and beside coarse copies.

use super::*;
use lsb_model::{PoolingKind, RunOptions};
use lsb_quant::Registry;
use lsb_stream::{Budget, CompressConfig, LoopCompressor, MemoryWeights, WeightSource};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn open(path: &Path, options: &RunOptions) -> ModelRunner {
    ModelRunner::open(path, &Registry::standard(), &Budget::new(64 << 20), options).unwrap()
}

fn bert() -> ModelRunner {
    open(&fixture("golden/bert"), &RunOptions::default())
}

fn package(codec: &str, dir: &Path) -> PathBuf {
    let output = dir.join("package");
    let mut config = CompressConfig::default();
    config.codec = Some(codec.to_owned());
    config.output = Some(output.clone());
    LoopCompressor::new(config).compress_model(fixture("golden/bert"), None).unwrap();
    output
}

/// Thirty sentences of 3 to 32 ids below 320, the model's vocabulary.
fn sentences() -> Vec<Vec<u32>> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % 320
    };
    (0..30).map(|n| (0..3 + n).map(|_| next()).collect()).collect()
}

const OPTIONS: EvaluateOptions = EvaluateOptions { map_tokens: 100 };

fn beside(original: &ModelRunner, model: &ModelRunner) -> EmbeddingEvaluation {
    evaluate_embeddings(original, model, &sentences(), Pooling::default(), OPTIONS, &mut |_| {}).unwrap()
}

#[test]
fn a_model_is_exactly_itself() {
    let mut steps = Vec::new();
    let found = evaluate_embeddings(&bert(), &bert(), &sentences(), Pooling::default(), OPTIONS, &mut |p| {
        steps.push(p)
    })
    .unwrap();
    assert_eq!((found.cosine_mean, found.cosine_mean_se), (1.0, 0.0));
    assert_eq!((found.cosine_p1, found.cosine_min, found.broken_sentences), (1.0, 1.0, 0));
    assert_eq!((found.sentences, found.tokens), (30, (3..33).sum()));
    let rows = found.layers.rows.iter().chain(&found.maps.rows);
    assert!(rows.clone().all(|row| row.figures.exact));
    // Queries, keys, values, outputs and both maps of the feed-forward block.
    assert_eq!((found.layers.rows.len(), found.maps.rows.len()), (3, 3 * 6));
    assert_eq!(found.maps.rows[0].figures.values, 100 * 64);
    assert_eq!((found.maps.mean_snr_db, found.maps.snr_db), (None, None));
    let names: Vec<String> = found.measurements().into_iter().map(|m| m.name).collect();
    assert_eq!(
        names,
        ["embedding_cosine_mean", "embedding_cosine_min", "output_correlation", "layer_correlation"]
    );
    let last = steps.last().unwrap();
    assert_eq!((last.done, last.total), (steps.len() as u64, steps.len() as u64));
}

#[test]
fn cosines_are_those_of_the_embeddings() {
    let dir = tempfile::tempdir().unwrap();
    let (original, model) = (bert(), open(&package("rtn:2", dir.path()), &RunOptions::default()));
    for pooling in [Pooling::default(), Pooling { kind: PoolingKind::First, normalize: false }] {
        let found =
            evaluate_embeddings(&original, &model, &sentences(), pooling, OPTIONS, &mut |_| {}).unwrap();
        let [ours, theirs] = [&original, &model].map(|m| m.embeddings(&sentences(), pooling).unwrap());
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let cosines: Vec<f64> =
            ours.iter().zip(&theirs).map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).collect();
        let mean = cosines.iter().sum::<f64>() / 30.0;
        let lowest = cosines.iter().copied().fold(1.0, f64::min);
        assert!(lowest < mean && mean < 0.999, "{mean} {lowest}");
        // Sums of signals pass through f32.
        assert!((found.cosine_mean - mean).abs() < 1e-7, "{} {mean}", found.cosine_mean);
        assert!((found.cosine_min - lowest).abs() < 1e-7, "{} {lowest}", found.cosine_min);
        assert!((lowest..mean).contains(&found.cosine_p1) && found.cosine_mean_se > 0.0);
        let (mean, pooled) = (found.maps.mean_snr_db.unwrap(), found.maps.snr_db.unwrap());
        let worst = found.maps.worst_snr_db.unwrap();
        assert!(worst < mean && worst < pooled && mean < 30.0, "{mean} {pooled} {worst}");
        assert_eq!(found.measurements().len(), 5);
    }
}

#[test]
fn neither_groups_nor_memory_change_the_figures() {
    let dir = tempfile::tempdir().unwrap();
    let folder = package("rtn:2", dir.path());
    let whole = beside(&bert(), &open(&folder, &RunOptions::default()));
    let options = RunOptions {
        caching: false,
        chunk_tokens: 40,
        activation_bytes: Some(300_000),
        ..RunOptions::default()
    };
    let pair = [open(&fixture("golden/bert"), &options), open(&folder, &options)];
    let pooling = Pooling::default();
    let cut = in_groups([&pair[0], &pair[1]], &sentences(), 60, pooling, OPTIONS, &mut |_| {}).unwrap();
    let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * a.abs();
    assert!(close(whole.cosine_mean, cut.cosine_mean) && close(whole.cosine_min, cut.cosine_min));
    assert_eq!((whole.tokens, &whole.ids_blake3), (cut.tokens, &cut.ids_blake3));
    for (a, b) in [(&whole.maps, &cut.maps), (&whole.layers, &cut.layers)] {
        assert_eq!(a.rows.len(), b.rows.len());
        for (a, b) in a.rows.iter().zip(&b.rows) {
            assert_eq!((&a.name, a.figures.values), (&b.name, b.figures.values));
            assert!(close(a.figures.snr_db, b.figures.snr_db), "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_vector_without_a_direction_counts_as_nothing_kept() {
    let model = bert();
    // The norm behind the last layer makes every hidden state its bias, and that is zero.
    let last = "encoder.layer.2.output.LayerNorm";
    for tensor in ["weight", "bias"].map(|part| format!("{last}.{part}")) {
        let source = MemoryWeights::new().with_f32(&tensor, &[64], &[0.0; 64]).unwrap();
        model.replace(&tensor, source.open(0).unwrap().into());
    }
    let found = beside(&bert(), &model);
    assert_eq!((found.cosine_mean, found.cosine_min, found.broken_sentences), (0.0, 0.0, 30));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let run = |original: &ModelRunner, sentences: &[Vec<u32>]| {
        evaluate_embeddings(original, &bert(), sentences, Pooling::default(), OPTIONS, &mut |_| {})
            .unwrap_err()
    };
    assert!(matches!(run(&bert(), &[]), EvaluateError::NoSentences));
    assert!(matches!(run(&bert(), &[vec![1, 2], vec![]]), EvaluateError::EmptySentence(1)));
    let decoder = open(&fixture("golden/llama"), &RunOptions::default());
    assert!(matches!(run(&decoder, &sentences()), EvaluateError::Different(_)));
}

#[test]
fn groups_hold_whole_sentences() {
    assert_eq!(groups(&[3, 4, 3, 12, 1, 9, 1], 10), [0..3, 3..4, 4..6, 6..7]);
    assert!(groups(&[], 10).is_empty());
}
