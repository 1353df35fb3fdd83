//! Agreement with sacreBLEU and rouge-score on pairs they scored once, and cases by hand.

use super::words::{alphanumeric, thirteen_a};
use super::*;
use serde::Deserialize;

const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Golden {
    pairs: Vec<Pair>,
    corpora: Vec<Corpus>,
}

#[derive(Deserialize)]
struct Pair {
    hypothesis: String,
    reference: String,
    bleu: f64,
    rouge1: f64,
    rouge2: f64,
    #[serde(rename = "rougeL")]
    rouge_l: f64,
}

#[derive(Deserialize)]
struct Corpus {
    first: usize,
    pairs: usize,
    bleu: f64,
    brevity_penalty: f64,
    hypothesis_tokens: usize,
    reference_tokens: usize,
    precisions: Vec<f64>,
}

fn golden() -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/text-metrics/golden.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * b.abs().max(1.0)
}

#[test]
fn sentences_score_as_the_reference_packages_do() {
    let golden = golden();
    assert_eq!(golden.pairs.len(), 200);
    for (i, pair) in golden.pairs.iter().enumerate() {
        let bleu = sentence_bleu(&pair.hypothesis, &pair.reference);
        assert!(near(bleu.score, pair.bleu), "pair {i}: {bleu:?}, sacreBLEU {}", pair.bleu);
        let found = rouge(&pair.hypothesis, &pair.reference);
        for (ours, theirs) in
            [(found.rouge1, pair.rouge1), (found.rouge2, pair.rouge2), (found.rouge_l, pair.rouge_l)]
        {
            assert!(near(ours, theirs), "pair {i}: {found:?}, rouge-score {theirs}");
        }
    }
}

#[test]
fn corpora_score_as_sacrebleu_does() {
    let golden = golden();
    for corpus in &golden.corpora {
        let pairs = &golden.pairs[corpus.first..corpus.first + corpus.pairs];
        let bleu = corpus_bleu(pairs.iter().map(|p| (p.hypothesis.as_str(), p.reference.as_str())));
        assert!(near(bleu.score, corpus.bleu), "{bleu:?}, sacreBLEU {}", corpus.bleu);
        assert!(near(bleu.brevity_penalty, corpus.brevity_penalty));
        assert_eq!(bleu.hypothesis_words, corpus.hypothesis_tokens);
        assert_eq!(bleu.reference_words, corpus.reference_tokens);
        for (ours, theirs) in bleu.precisions.iter().zip(&corpus.precisions) {
            assert!(near(*ours, *theirs), "{bleu:?}");
        }
    }
}

#[test]
fn words_by_hand() {
    assert_eq!(
        thirteen_a("It's 1,000.5 (or 3-4)... "),
        ["It's", "1,000.5", "(", "or", "3", "-", "4", ")", ".", ".", "."]
    );
    assert_eq!(thirteen_a("well-\nknown &amp;lt; x\u{1c}y"), ["wellknown", "<", "x", "y"]);
    assert_eq!(alphanumeric("It's NAÏVE, 3.14"), ["it", "s", "na", "ve", "3", "14"]);
}

#[test]
fn corpus_rouge_is_the_mean_over_pairs() {
    let mean = corpus_rouge([("a b", "a b"), ("a c", "a b")]);
    assert_eq!((mean.rouge1, mean.rouge2, mean.rouge_l), (0.75, 0.5, 0.75));
    assert_eq!(corpus_rouge([]), Rouge::default());
    assert_eq!(corpus_bleu([]).score, 0.0);
}

#[test]
fn divergence_by_hand() {
    let pairs: [(&[u32], &[u32]); 4] =
        [(&[1, 2, 3], &[1, 2, 3]), (&[1, 2, 3], &[1, 9, 3]), (&[1], &[2]), (&[4, 5], &[4, 5, 6])];
    let found = Divergence::of(pairs).unwrap();
    let expected = Divergence { pairs: 4, mean_tokens: 1.5, median_tokens: 1.5, identical: 0.25 };
    assert_eq!(found, expected);
    assert_eq!(Divergence::of([]), None);
    assert_eq!(Divergence::of([(&[1, 2][..], &[1, 2][..])]).unwrap().identical, 1.0);
}
