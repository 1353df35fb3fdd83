//! Greedy continuations of the trained model, against an independent implementation.

use super::*;
use crate::RunOptions;
use lsb_quant::Registry;
use lsb_stream::Budget;
use std::path::{Path, PathBuf};

fn reflm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/reflm")
}

fn golden() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(reflm().join("golden.json")).unwrap()).unwrap()
}

fn open(budget: u64, options: &RunOptions) -> ModelRunner {
    ModelRunner::open(&reflm(), &Registry::standard(), &Budget::new(budget), options).unwrap()
}

#[test]
fn greedy_continuations_are_those_of_the_reference() {
    let tokenizer = Tokenizer::open(&reflm()).unwrap();
    let dense = open(400_000_000, &RunOptions::default());
    // Weights are decoded band by band and read again for each token.
    let streamed = open(32_000_000, &RunOptions { caching: false, ..RunOptions::default() });
    for item in golden()["generation"].as_array().unwrap() {
        let ids = |key: &str| serde_json::from_value::<Vec<u32>>(item[key].clone()).unwrap();
        let prompt = tokenizer.encode(item["prompt"].as_str().unwrap(), true).unwrap();
        assert_eq!(prompt, ids("prompt_ids"));
        let expected = ids("greedy_ids");
        let options =
            GenerateOptions { max_new_tokens: expected.len(), end_tokens: false, ..Default::default() };
        for model in [&dense, &streamed] {
            let mut session = model.session(prompt.len(), CacheType::F32).unwrap();
            let logits = session.feed(&prompt, false).unwrap();
            let known: Vec<f32> = serde_json::from_value(item["last_logits_first_16"].clone()).unwrap();
            for (got, expected) in logits.iter().zip(known) {
                assert!((got - expected).abs() < 1e-3, "{got} {expected}");
            }
            let mut generator =
                Generator::new(model, &tokenizer, prompt.len() + expected.len(), CacheType::F32).unwrap();
            let mut shown = String::new();
            let generated = generator
                .generate(&prompt, &options, &AtomicBool::new(false), |piece| shown.push_str(piece))
                .unwrap();
            assert_eq!(generated.token_ids, expected);
            assert_eq!(generated.text, tokenizer.decode(&expected, true).unwrap());
            assert_eq!((shown, generated.finish), (generated.text, Finish::Length));
            // The same prompt again: what it has in common is not computed twice, and nothing changes.
            let again = generator.generate(&prompt, &options, &AtomicBool::new(false), |_| {}).unwrap();
            assert_eq!(again.token_ids, expected);
        }
    }
}

#[test]
fn each_byte_is_read_once_per_token() {
    let tokenizer = Tokenizer::open(&reflm()).unwrap();
    let prompt = tokenizer.encode("It was", true).unwrap();
    let options = GenerateOptions { max_new_tokens: 4, end_tokens: false, ..Default::default() };
    let mut figures = Vec::new();
    for prefetch in [true, false] {
        let run = RunOptions { caching: false, prefetch, ..RunOptions::default() };
        let model = open(32_000_000, &run);
        let mut generator = Generator::new(&model, &tokenizer, 16, CacheType::F16).unwrap();
        let generated = generator.generate(&prompt, &options, &AtomicBool::new(false), |_| {}).unwrap();
        // Every map in bf16, and a row of the embedding.
        let maps: u64 = model.spec().every_map().map(|m| 2 * (m.inputs * m.outputs) as u64).sum();
        figures.push(generated.bytes_read_per_token.unwrap() as f64 / maps as f64);
    }
    let [ahead, exact] = figures[..] else { panic!("two figures") };
    assert!((1.0..1.01).contains(&exact), "{exact}");
    // What is read ahead when the count begins and ends is up to the threads: at most the model once more or less, over
    // the three tokens that are counted.
    assert!((0.66..1.34).contains(&ahead), "{ahead}");
}

#[test]
fn generation_ends_where_it_should() {
    let tokenizer = Tokenizer::open(&reflm()).unwrap();
    let model = open(400_000_000, &RunOptions::default());
    let prompt = tokenizer.encode("It was a dark and stormy night, and", true).unwrap();
    let free = GenerateOptions { max_new_tokens: 40, end_tokens: false, ..Default::default() };
    let mut generator = Generator::new(&model, &tokenizer, 64, CacheType::F16).unwrap();
    let whole = generator.generate(&prompt, &free, &AtomicBool::new(false), |_| {}).unwrap();
    let stop: String = whole.text.chars().skip(20).take(6).collect();
    let options = GenerateOptions { stop: vec![stop.clone()], ..free.clone() };
    let cut = generator.generate(&prompt, &options, &AtomicBool::new(false), |_| {}).unwrap();
    assert_eq!(cut.finish, Finish::StopString);
    assert_eq!(Some(cut.text.as_str()), whole.text.split(&stop).next());
    let none = generator.generate(&prompt, &free, &AtomicBool::new(true), |_| {}).unwrap();
    assert_eq!((none.finish, none.token_ids.len()), (Finish::Interrupted, 0));
    assert!(generator.generate(&[], &free, &AtomicBool::new(false), |_| {}).is_err());
    assert!(generator.generate(&[9999], &free, &AtomicBool::new(false), |_| {}).is_err());
}
