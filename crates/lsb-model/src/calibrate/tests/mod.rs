//! Calibration through the whole pipeline, and what it makes of odd inputs.

mod odd;

use super::gather::{Gather, Place};
use super::moments::InputMoments;
use super::original::Originals;
use super::stages::Stage;
use crate::spec::MapSpec;
use crate::{Error, ModelRunner, NoTap, RunOptions, TextCalibration};
use candle_core::{Device, Tensor};
use lsb_quant::Registry;
use lsb_quant::calibrate::Moments;
use lsb_stream::source::{Model, OpenOptions};
use lsb_stream::{ActivationStore, Budget, CompressConfig, CompressReport, LoopCompressor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) fn reflm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/reflm")
}

fn options(output: &Path, codec: &str) -> CompressConfig {
    let mut config = CompressConfig::default();
    config.output = Some(output.to_owned());
    config.codec = Some(codec.to_owned());
    (config.calib_tokens, config.seqlen) = (1024, 128);
    config
}

fn compressor(config: CompressConfig) -> LoopCompressor {
    let calibration = TextCalibration::from_config(&config).unwrap().unwrap();
    LoopCompressor::new(config).with_calibration(Arc::new(calibration))
}

fn compress(config: CompressConfig) -> CompressReport {
    compressor(config).compress_model(reflm(), None).unwrap()
}

/// A model of `fixtures/golden` in `dir`, with a tokenizer whose tokens are bytes.
pub(super) fn golden(name: &str, dir: &Path) -> PathBuf {
    let (from, to) = (reflm().join("../golden").join(name), dir.join(name));
    std::fs::create_dir(&to).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    // The alphabet of byte-level tokenizers: printable bytes stand for themselves, the others for what follows 255.
    let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(|b| !printable(b)).zip(256..);
    let mut letters: Vec<(u32, u32)> = (0..256).filter(printable).map(|b| (b, b)).chain(others).collect();
    letters.sort_unstable();
    let vocabulary: serde_json::Map<_, _> =
        letters.iter().map(|&(b, c)| (char::from_u32(c).unwrap().to_string(), b.into())).collect();
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
    });
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []
        }
    });
    std::fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    to
}

/// Options for such a model.
pub(super) fn tiny(output: &Path, codec: &str) -> CompressConfig {
    let mut config = options(output, codec);
    (config.calib_tokens, config.seqlen) = (256, 64);
    config
}

/// Changes the bytes of a tensor of a model.
pub(super) fn edit(model: &Path, tensor: &str, change: impl FnOnce(&mut [u8])) {
    let file = model.join("model.safetensors");
    let opened = Model::open(model, &OpenOptions::default()).unwrap();
    let t = opened.tensors().iter().find(|t| t.name == tensor).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    change(&mut bytes[t.offset as usize..(t.offset + t.bytes) as usize]);
    std::fs::write(&file, bytes).unwrap();
}

pub(super) fn files(package: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out: Vec<_> = std::fs::read_dir(package)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(p).unwrap()))
        .collect();
    out.sort();
    out
}

/// Mean negative log likelihood over a little held-out text.
fn nll(package: &Path) -> f64 {
    let budget = Budget::new(200_000_000);
    let model = ModelRunner::open(package, &Registry::standard(), &budget, &RunOptions::default()).unwrap();
    let text = std::fs::read_to_string(reflm().join("../text/eval.txt")).unwrap();
    let ids = crate::Tokenizer::open(&reflm()).unwrap().encode(&text, false).unwrap();
    let windows: Vec<Vec<u32>> = ids.chunks(256).take(8).map(<[u32]>::to_vec).collect();
    let mut batch = model.batch(&windows).unwrap();
    batch.run(&mut NoTap).unwrap();
    let head = model.head().unwrap();
    let (mut sum, mut count) = (0.0, 0.0);
    for (i, chunk) in batch.chunks().into_iter().enumerate() {
        let logits = head.logits(&batch.output(i).unwrap()).unwrap().to_vec2::<f32>().unwrap();
        for (at, row) in chunk.zip(logits).filter(|(at, _)| at % 256 != 255) {
            let largest = row.iter().copied().fold(f32::MIN, f32::max);
            let sum_exp: f64 = row.iter().map(|&y| f64::from(y - largest).exp()).sum();
            sum += sum_exp.ln() - f64::from(row[ids[at + 1] as usize] - largest);
            count += 1.0;
        }
    }
    sum / count
}

#[test]
fn a_calibrated_package_meets_its_size_and_answers_better() {
    let dir = tempfile::tempdir().unwrap();
    let calibrated = compress(options(&dir.path().join("a"), "trellis:bpw=2.2,states=8"));
    let mut config = options(&dir.path().join("b"), "trellis:bpw=2.2,states=8");
    config.calib = Some("none".into());
    assert!(TextCalibration::from_config(&config).unwrap().is_none());
    LoopCompressor::new(config).compress_model(reflm(), None).unwrap();
    assert!(calibrated.tensors.iter().any(|t| t.tau.is_some()));
    assert!(!calibrated.calibration.is_empty());
    let (with, without) = (nll(&dir.path().join("a")), nll(&dir.path().join("b")));
    assert!(with + 0.05 < without, "{with} {without}");

    let mut config = options(&dir.path().join("c"), "trellis:states=8");
    config.target = Some(lsb_stream::Target::Bpw(2.5));
    let report = compress(config);
    let bpw = 8.0 * report.package_bytes as f64 / report.weights as f64;
    assert!((bpw / 2.5 - 1.0).abs() < 0.005, "{bpw}");
}

#[test]
fn packages_are_the_same_on_any_number_of_threads_and_after_any_interruption() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = options(&dir.path().join("one"), "trellis:bpw=2.2,states=4");
    config.calib_tokens = 512;
    config.threads = 1;
    compress(config.clone());
    config.threads = 3;
    config.output = Some(dir.path().join("three"));
    compress(config);
    assert!(files(&dir.path().join("three")) == files(&dir.path().join("one")), "three threads");

    // Stopped after some tensors, then taken up again: of a model that takes no time.
    let model = golden("llama", dir.path());
    let mut config = tiny(&dir.path().join("undisturbed"), "trellis:bpw=2.2,states=8");
    compressor(config.clone()).compress_model(&model, None).unwrap();
    let expected = files(&dir.path().join("undisturbed"));
    struct StopAfter(AtomicUsize, Arc<AtomicBool>);
    impl lsb_stream::Observer for StopAfter {
        fn tensor_finished(&mut self, _: &lsb_stream::TensorReport) {
            if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.1.store(true, Ordering::Relaxed);
            }
        }
    }
    config.output = Some(dir.path().join("stopped"));
    for tensors in [1, 5, 11] {
        let stop = Arc::new(AtomicBool::new(false));
        let observer = StopAfter(AtomicUsize::new(tensors), Arc::clone(&stop));
        let result = compressor(config.clone())
            .with_observer(Box::new(observer))
            .with_interrupt(stop)
            .compress_model(&model, None);
        assert!(matches!(result, Err(lsb_stream::Error::Interrupted)), "after {tensors} tensors");
    }
    let report = compressor(config).compress_model(&model, None).unwrap();
    assert!(report.resumed_tensors > 0);
    assert!(files(&dir.path().join("stopped")) == expected, "resumed");
}

#[test]
fn what_was_calibrated_on_decides_whether_work_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let config = options(&dir.path().join("a"), "rtn:4");
    // No codec wants it: the text makes no difference.
    assert!(compress(config.clone()).calibration.is_empty());
    let mut other = config.clone();
    other.calib_tokens = 77;
    assert!(compress(other).already_done);
    let wanted = options(&dir.path().join("b"), "gptq:bits=3");
    compress(wanted.clone());
    let mut other = wanted.clone();
    other.seed = 1;
    assert!(compressor(other).compress_model(reflm(), None).is_err(), "another package is in the way");
    assert!(compress(wanted).already_done);
}

fn place(budget: u64) -> Place {
    Place {
        budget: Budget::new(budget),
        spill: None,
        factor_bytes: 1 << 20,
        chunks: vec![40, 24],
        originals: None,
        last: Arc::default(),
    }
}

fn map(tensor: &str, inputs: usize) -> MapSpec {
    MapSpec { tensor: tensor.into(), bias: None, inputs, outputs: 3, inputs_first: false }
}

fn tensor(tokens: usize, width: usize, seed: usize) -> Tensor {
    let values = (0..tokens * width).map(|i| ((i * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0);
    Tensor::from_vec(values.collect(), (tokens, width), &Device::Cpu).unwrap()
}

fn moments(budget: u64) -> Arc<InputMoments> {
    let (place, map) = (place(budget), map("w", 48));
    let shared = self::map("v", 48);
    let mut gather = Gather::new(&place, &[Stage::alone(vec![&map, &shared])]);
    for (i, tokens) in [40, 24].into_iter().enumerate() {
        let x = tensor(tokens, 48, i);
        gather.take(&map, &x).unwrap();
        // A map that shares the input adds nothing.
        gather.take(&shared, &x).unwrap();
        gather.take(&self::map("u", 48), &x).unwrap();
    }
    let mut seen = gather.finish().unwrap();
    let (w, v) = (seen.remove("w").unwrap(), seen.remove("v").unwrap());
    assert!(Arc::ptr_eq(&w, &v));
    w
}

#[test]
fn moments_are_the_same_from_sums_and_from_a_file() {
    let (sums, file) = (moments(1 << 24), moments(0));
    let columns = [3, 1, 40, 17];
    let (a, b) = (sums.block(&columns).unwrap(), file.block(&columns).unwrap());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
    assert_eq!(sums.diagonal(), file.diagonal());
    for rows in [0..48, 5..6, 40..48, 7..7] {
        let (a, b) = (sums.upper(rows.clone()).unwrap(), file.upper(rows.clone()).unwrap());
        assert_eq!(a.len(), rows.clone().map(|i| 48 - i).sum::<usize>());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
        let first = sums.block(&(0..48).collect::<Vec<_>>()).unwrap();
        let expected = rows.flat_map(|i| &first[i * 48 + i..(i + 1) * 48]);
        assert!(a.iter().eq(expected));
    }
    // Against their definition.
    let rows: Vec<Vec<f32>> =
        [(40, 0), (24, 1)].iter().flat_map(|&(n, s)| tensor(n, 48, s).to_vec2::<f32>().unwrap()).collect();
    let mean = rows.iter().map(|x| f64::from(x[3] * x[40])).sum::<f64>() / 64.0;
    assert!((f64::from(a[2]) - mean).abs() < 1e-5);
    assert!(
        (f64::from(sums.diagonal()[5]) - rows.iter().map(|x| f64::from(x[5] * x[5])).sum::<f64>() / 64.0)
            .abs()
            < 1e-5
    );
}

#[test]
fn drift_is_the_same_from_sums_and_from_a_file() {
    let drift = |budget: u64| {
        let store = ActivationStore::new(&Budget::new(0), vec![40 * 48, 24 * 48], None).unwrap();
        for (i, tokens) in [40, 24].into_iter().enumerate() {
            let x = tensor(tokens, 48, 7 + i).flatten_all().unwrap().to_vec1::<f32>().unwrap();
            store.put(i, &x).unwrap();
        }
        let mut place = place(budget);
        place.originals = Some((Originals::for_tests("w", store), 0.5));
        let map = map("w", 48);
        let mut gather = Gather::new(&place, &[Stage::alone(vec![&map])]);
        for (i, tokens) in [40, 24].into_iter().enumerate() {
            let x = tensor(tokens, 48, i);
            gather.take(&map, &x).unwrap();
        }
        let w = gather.finish().unwrap().remove("w").unwrap();
        w.drift(&[3, 1, 40]).unwrap().unwrap()
    };
    let (sums, file) = (drift(1 << 24), drift(0));
    assert!(sums.iter().zip(&file).all(|(a, b)| (a - b).abs() < 1e-6));
    // Against its definition: half of it, as far as 64 tokens tell of 3 inputs.
    let rows = |seed: usize| -> Vec<Vec<f32>> {
        let chunks = [(40, seed), (24, seed + 1)];
        chunks.iter().flat_map(|&(n, s)| tensor(n, 48, s).to_vec2::<f32>().unwrap()).collect()
    };
    let (seen, original) = (rows(0), rows(7));
    let products = seen.iter().zip(&original).map(|(x, o)| f64::from((o[3] - x[3]) * x[40]));
    let expected = 0.5 * (64.0 / (64.0 + 16.0 * 3.0)) * products.sum::<f64>() / 64.0;
    assert!((f64::from(sums[2]) - expected).abs() < 1e-6, "{} is not {expected}", sums[2]);
    assert!(moments(0).drift(&[1]).unwrap().is_none());
}

#[test]
fn targets_that_follow_the_original_answer_better() {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str, drift: f64| {
        let mut config = options(&dir.path().join(name), "trellis:bpw=1.6,states=8");
        (config.calib_tokens, config.drift) = (4096, drift);
        let notes = compress(config).calibration.join(" ");
        assert_eq!(notes.contains("drift"), drift > 0.0, "{notes}");
        nll(&dir.path().join(name))
    };
    let (with, without) = (made("a", 1.0), made("b", 0.0));
    assert!(with + 0.03 < without, "{with} {without}");
}

#[test]
fn a_text_is_cut_into_evenly_spaced_windows() {
    let config = options(Path::new("x"), "trellis");
    let mut calibration = TextCalibration::from_config(&config).unwrap().unwrap();
    let held_out = calibration.split_held_out();
    assert!(held_out.len() > 30_000);
    let mut config = config;
    config.calib = Some("/no/such/file".into());
    assert!(matches!(TextCalibration::from_config(&config), Err(Error::Input(_))));
    config.calib = None;
    config.calib_tokens = 0;
    assert!(TextCalibration::from_config(&config).is_err());
}

#[test]
fn inputs_of_experts_share_slots_of_a_file() {
    let maps = ["e0", "e1", "e2"].map(|name| map(name, 48));
    let stage = Stage { maps: maps.iter().map(|m| vec![m]).collect(), per_token: Some(2) };
    let seen = |budget: u64| {
        let place = place(budget);
        let mut gather = Gather::new(&place, std::slice::from_ref(&stage));
        // Every token goes to two of the three.
        for (chunk, counts) in [[40, 30, 10], [24, 0, 24]].into_iter().enumerate() {
            for (k, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let x = tensor(count, 48, 3 * chunk + k);
                gather.take(&maps[k], &x).unwrap();
            }
        }
        gather.finish().unwrap()
    };
    // In memory; in slots of several inputs; in slots of one.
    let [memory, several, single] = [1 << 24, 60_000, 0].map(seen);
    for (name, tokens) in [("e0", 64), ("e1", 30), ("e2", 34)] {
        let upper = memory[name].upper(0..48).unwrap();
        for other in [&several, &single] {
            assert_eq!((other[name].tokens(), other[name].diagonal()), (tokens, memory[name].diagonal()));
            let other = other[name].upper(0..48).unwrap();
            assert!(upper.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-5), "{name}");
        }
    }
}
