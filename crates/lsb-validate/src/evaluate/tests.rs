//! The trained model over held-out text, against an independent implementation.

use super::*;
use lsb_model::{RunOptions, Tokenizer};
use lsb_quant::Registry;
use lsb_stream::{Budget, CompressConfig, LoopCompressor};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn open(path: &Path, budget: u64, options: &RunOptions) -> ModelRunner {
    ModelRunner::open(path, &Registry::standard(), &Budget::new(budget), options).unwrap()
}

fn run(
    model: &ModelRunner,
    original: Option<&ModelRunner>,
    protocol: &Protocol,
) -> Result<Evaluation, EvaluateError> {
    let text = std::fs::read(fixture("text/eval.txt")).unwrap();
    let tokenizer = Tokenizer::open(&fixture("reflm")).unwrap();
    let ids = tokenizer.encode(std::str::from_utf8(&text).unwrap(), false).unwrap();
    let text = TokenizedText { bytes: &text, ids: &ids };
    evaluate(model, original, text, protocol, EvaluateOptions { map_tokens: 512 }, &mut |_| {})
}

#[test]
fn perplexity_is_that_of_the_reference() {
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("reflm/golden.json")).unwrap()).unwrap();
    let model = open(&fixture("reflm"), 400_000_000, &RunOptions::default());
    let found = run(&model, None, &Protocol::for_context(512)).unwrap();
    let expected = golden["perplexity"]["window_512"].as_f64().unwrap();
    let difference = (found.perplexity.perplexity / expected - 1.0).abs();
    assert!(difference < 2e-4, "{} and not {expected}", found.perplexity.perplexity);
    assert_eq!(found.perplexity.tokens, 248 * 512);
    assert_eq!(found.protocol.text_tokens as u64, golden["eval_tokens"].as_u64().unwrap());
}

/// Few tokens, for what does not depend on their number.
fn short() -> Protocol {
    Protocol { max_tokens: Some(1024), ..Protocol::for_context(256) }
}

fn package(codec: &str, dir: &Path) -> PathBuf {
    let output = dir.join("package");
    let mut config = CompressConfig::default();
    config.codec = Some(codec.to_owned());
    config.output = Some(output.clone());
    LoopCompressor::new(config).compress_model(fixture("reflm"), None).unwrap();
    output
}

#[test]
fn a_lossless_package_is_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let original = open(&fixture("reflm"), 400_000_000, &RunOptions::default());
    let copy = open(&package("lossless", dir.path()), 400_000_000, &RunOptions::default());
    let found = run(&copy, Some(&original), &short()).unwrap();
    let against = found.against.unwrap();
    assert_eq!((against.logits.ln_ratio, against.logits.kl_mean, against.logits.top1), (0.0, 0.0, 1.0));
    assert!(against.layers.rows.iter().chain(&against.maps.rows).all(|l| l.figures.exact));
    assert_eq!((against.layers.rows.len(), against.maps.rows.len()), (4, 4 * 7));
}

#[test]
fn a_saved_reference_stands_for_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let original = open(&fixture("reflm"), 400_000_000, &RunOptions::default());
    let model = open(&package("rtn:4", dir.path()), 400_000_000, &RunOptions::default());
    let beside = run(&model, Some(&original), &short()).unwrap().against.unwrap().logits;
    let text = std::fs::read(fixture("text/eval.txt")).unwrap();
    let tokenizer = Tokenizer::open(&fixture("reflm")).unwrap();
    let ids = tokenizer.encode(std::str::from_utf8(&text).unwrap(), false).unwrap();
    let text = TokenizedText { bytes: &text, ids: &ids };
    let path = dir.path().join("reference");
    save_reference(&original, "reflm", text, &short(), 64, &path, &mut |_| {}).unwrap();
    let reference = crate::logits::Reference::open(&path).unwrap();
    let found = evaluate_against_reference(&model, &reference, text, &short(), &mut |_| {}).unwrap();
    let found = found.against.unwrap().logits;
    assert!((found.ln_ratio - beside.ln_ratio).abs() < 1e-9);
    assert_eq!((found.top1, found.kl_top), (beside.top1, Some(64)));
    assert!(found.kl_mean <= beside.kl_mean && found.kl_mean > 0.7 * beside.kl_mean);
    let other = Protocol { max_tokens: Some(512), ..short() };
    let refused = evaluate_against_reference(&model, &reference, text, &other, &mut |_| {});
    assert!(matches!(refused, Err(EvaluateError::Different(_))));
}

#[test]
fn a_small_budget_changes_nothing_but_time() {
    let dir = tempfile::tempdir().unwrap();
    let folder = package("outlier-binary", dir.path());
    let large = [
        open(&fixture("reflm"), 400_000_000, &RunOptions::default()),
        open(&folder, 400_000_000, &RunOptions::default()),
    ];
    let options = RunOptions {
        caching: false,
        chunk_tokens: 100,
        activation_bytes: Some(3_000_000),
        ..RunOptions::default()
    };
    let small = [open(&fixture("reflm"), 22_000_000, &options), open(&folder, 22_000_000, &options)];
    let [a, b] = [large, small]
        .map(|[original, model]| run(&model, Some(&original), &short()).unwrap().against.unwrap());
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-4 * a.abs().max(1e-3);
    assert!(a.logits.kl_mean > 1.0, "one bit a weight is far from the original: {}", a.logits.kl_mean);
    assert!(close(a.logits.kl_mean, b.logits.kl_mean), "{} {}", a.logits.kl_mean, b.logits.kl_mean);
    assert!(close(a.logits.ln_ratio, b.logits.ln_ratio), "{} {}", a.logits.ln_ratio, b.logits.ln_ratio);
    let rows = a.maps.rows.iter().zip(&b.maps.rows).chain(a.layers.rows.iter().zip(&b.layers.rows));
    for (a, b) in rows.map(|(a, b)| (a.figures, b.figures)) {
        assert!(close(a.snr_db, b.snr_db), "{a:?} {b:?}");
        assert!(a.correlation.is_some_and(|c| (0.5..1.0).contains(&c)), "{a:?}");
    }
}
