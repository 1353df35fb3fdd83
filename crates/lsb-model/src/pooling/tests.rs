//! Pooling by hand, and a real sentence encoder where it was fetched.

use super::*;
use candle_core::Device;
use lsb_quant::Registry;
use lsb_stream::{Budget, CompressConfig, LoopCompressor};

#[test]
fn the_folder_says_how() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Pooling::open(dir.path()).unwrap(), Pooling::default());
    std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    let config = dir.path().join("1_Pooling/config.json");
    std::fs::write(&config, r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#)
        .unwrap();
    std::fs::write(dir.path().join("modules.json"), r#"[{"type": "sentence_transformers.models.Pooling"}]"#)
        .unwrap();
    let expected = Pooling { kind: PoolingKind::First, normalize: false };
    assert_eq!(Pooling::open(dir.path()).unwrap(), expected);
    for bad in ["{", r#"{"pooling_mode_max_tokens": true}"#, r#"{"pooling_mode_mean_tokens": 3}"#] {
        std::fs::write(&config, bad).unwrap();
        assert!(Pooling::open(dir.path()).unwrap_err().to_string().contains("1_Pooling"), "{bad}");
    }
}

#[test]
fn vectors_by_hand() {
    let x = Tensor::from_vec(vec![3f32, 0.0, 3.0, 8.0], (2, 2), &Device::Cpu).unwrap();
    let mean = Pooling { normalize: false, ..Pooling::default() };
    assert_eq!(mean.apply(&x).unwrap(), [3.0, 4.0]);
    assert_eq!(Pooling::default().apply(&x).unwrap(), [0.6, 0.8]);
    let first = Pooling { kind: PoolingKind::First, normalize: false };
    assert_eq!(first.apply(&x).unwrap(), [3.0, 0.0]);
}

#[test]
fn every_text_is_pooled_whole() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden");
    let options = crate::RunOptions { chunk_tokens: 4, ..crate::RunOptions::default() };
    let open = |name: &str| {
        let (registry, budget) = (Registry::standard(), Budget::new(64 << 20));
        ModelRunner::open(&golden.join(name), &registry, &budget, &options).unwrap()
    };
    let texts = [vec![5, 6], (1..10).collect(), vec![7, 8, 9]];
    let encoder = open("bert");
    let vectors = encoder.embeddings(&texts, Pooling::default()).unwrap();
    for (text, vector) in texts.iter().zip(&vectors) {
        let alone = encoder.embeddings(std::slice::from_ref(text), Pooling::default()).unwrap();
        let difference = vector.iter().zip(&alone[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-5, "{text:?}: {difference}");
    }
    let empty = encoder.embeddings(&[vec![1], vec![]], Pooling::default()).unwrap_err().to_string();
    assert!(empty.contains("text 1 has no tokens"), "{empty}");
    let cut = open("llama").embeddings(&texts, Pooling::default()).unwrap_err().to_string();
    assert!(cut.contains("9 tokens was cut"), "{cut}");
}

/// all-MiniLM-L6-v2 against embeddings computed by an independent implementation.
#[test]
fn a_real_sentence_encoder() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data = std::env::var_os("LSB_DATA").map_or_else(|| root.join("data"), Into::into);
    let folder = data.join("all-MiniLM-L6-v2");
    if !folder.join("model.safetensors").is_file() {
        println!("skipped: {} is not there; `cargo xtask minilm` fetches it", folder.display());
        return;
    }
    let golden = std::fs::read(root.join("fixtures/golden/minilm.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let items = golden["items"].as_array().unwrap();
    let of = |item: &serde_json::Value, key: &str| item[key].clone();
    let ids: Vec<Vec<u32>> =
        items.iter().map(|i| serde_json::from_value(of(i, "input_ids")).unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("package");
    let mut config = CompressConfig::default();
    config.codec = Some("lossless".to_owned());
    config.output = Some(package.clone());
    LoopCompressor::new(config).compress_model(&folder, None).unwrap();
    for folder in [folder, package] {
        let budget = Budget::new(400 << 20);
        let options = crate::RunOptions::default();
        let model = ModelRunner::open(&folder, &Registry::standard(), &budget, &options).unwrap();
        let tokenizer = crate::Tokenizer::open(&folder).unwrap();
        for (item, ids) in items.iter().zip(&ids) {
            assert_eq!(tokenizer.encode(item["text"].as_str().unwrap(), true).unwrap(), *ids);
        }
        let vectors = model.embeddings(&ids, Pooling::open(&folder).unwrap()).unwrap();
        assert_eq!(vectors.len(), 24);
        for (item, vector) in items.iter().zip(vectors) {
            let expected: Vec<f32> = serde_json::from_value(of(item, "embedding")).unwrap();
            let difference = vector.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-3, "{}: {difference}", item["text"]);
        }
    }
}
