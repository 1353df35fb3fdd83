//! Models and texts that calibration learns little from, or nothing.

use super::{compressor, edit, files, golden, tiny};
use crate::{ModelRunner, NoTap, RunOptions, SaveOptions, TextCalibration, save_statistics};
use lsb_quant::Registry;
use lsb_stream::source::{Model, OpenOptions};
use lsb_stream::store::RealStore;
use lsb_stream::{Budget, CompressConfig, CompressReport, Observer, TensorReport};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const CODEC: &str = "trellis:bpw=3,states=8";

fn compress(model: &Path, config: CompressConfig) -> lsb_stream::Result<CompressReport> {
    compressor(config).compress_model(model, None)
}

/// Hidden states of a package are numbers.
fn runs(package: &Path) {
    let budget = Budget::new(120_000_000);
    let model = ModelRunner::open(package, &Registry::standard(), &budget, &RunOptions::default()).unwrap();
    let mut batch = model.batch(&[vec![3, 97, 5, 200, 97]]).unwrap();
    batch.run(&mut NoTap).unwrap();
    let values = batch.output(0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(values.iter().all(|x| x.is_finite()));
}

#[test]
fn experts_that_see_little_or_nothing_are_pooled_with_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden("mixtral", dir.path());
    // Every expert scores the same in one layer: the first two get all tokens.
    edit(&model, "model.layers.1.block_sparse_moe.gate.weight", |bytes| bytes.fill(0));
    let mut config = tiny(&dir.path().join("p"), CODEC);
    (config.calib_tokens, config.seqlen) = (96, 48);
    let report = compress(&model, config.clone()).unwrap();
    let notes = report.calibration.join("\n");
    assert!(notes.contains("experts of layer 1") && notes.contains("pooled"), "{notes}");
    assert!(notes.contains("without gradients"), "{notes}");
    let experts = |t: &&TensorReport| t.name.contains("layers.1.block_sparse_moe.experts");
    let taus: Vec<f64> = report.tensors.iter().filter(experts).filter_map(|t| t.tau).collect();
    assert_eq!(taus.len(), report.tensors.iter().filter(experts).count());
    // Experts that nothing is known of take about as many bits as their peers.
    let bytes: Vec<u64> = report.tensors.iter().filter(experts).map(|t| t.bytes).collect();
    let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
    assert!(most < &(2 * least), "{bytes:?}");
    runs(&dir.path().join("p"));

    // Without a survey nobody counts.
    let mut plain = tiny(&dir.path().join("g"), "gptq:bits=3");
    (plain.calib_tokens, plain.seqlen) = (96, 48);
    let notes = compress(&model, plain).unwrap().calibration.join("\n");
    assert!(notes.contains("a quarter of their inputs"), "{notes}");
    runs(&dir.path().join("g"));

    // The same package on other threads and after interruptions.
    let expected = files(&dir.path().join("p"));
    config.threads = 3;
    config.output = Some(dir.path().join("q"));
    for tensors in [4, 9, 14, 20] {
        let stop = Arc::new(AtomicBool::new(false));
        let observer = StopAfter(AtomicUsize::new(tensors), Arc::clone(&stop));
        let mut stopped = compressor(config.clone()).with_observer(Box::new(observer)).with_interrupt(stop);
        assert!(stopped.compress_model(&model, None).is_err());
    }
    compress(&model, config).unwrap();
    for (a, b) in files(&dir.path().join("q")).iter().zip(&expected) {
        assert!(a == b, "{}\n{}\n{}", a.0, String::from_utf8_lossy(&a.1), String::from_utf8_lossy(&b.1));
    }
}

struct StopAfter(AtomicUsize, Arc<AtomicBool>);

impl Observer for StopAfter {
    fn tensor_finished(&mut self, _: &TensorReport) {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_text_of_one_letter_and_columns_without_input_are_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "a".repeat(2000)).unwrap();
    let model = golden("llama", dir.path());
    // Moments of rank one.
    let mut config = tiny(&dir.path().join("constant"), CODEC);
    config.calib = Some(text.display().to_string());
    compress(&model, config.clone()).unwrap();
    runs(&dir.path().join("constant"));
    // An input that is always zero, and a map all of whose outputs are.
    edit(&model, "model.layers.0.input_layernorm.weight", |bytes| bytes[6..8].fill(0));
    edit(&model, "model.layers.1.self_attn.o_proj.weight", |bytes| bytes.fill(0));
    for codec in [CODEC, "gptq:bits=3"] {
        let mut config = tiny(&dir.path().join("dead"), codec);
        config.overwrite = true;
        let report = compress(&model, config).unwrap();
        assert!(!report.calibration.is_empty());
        runs(&dir.path().join("dead"));
    }
}

#[test]
fn matrices_that_are_stored_inputs_first_are_compressed_without_calibration() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden("gpt2", dir.path());
    let report = compress(&model, tiny(&dir.path().join("p"), CODEC)).unwrap();
    let find = |part: &str| report.tensors.iter().find(|t| t.name.contains(part)).unwrap();
    assert!(find("c_attn.weight").tau.is_none() && find("c_proj.weight").tau.is_none());
    assert!(find("wte.weight").tau.is_some());
    runs(&dir.path().join("p"));
}

#[test]
fn activations_that_are_not_finite_are_errors_that_name_a_tensor() {
    let nan = |bytes: &mut [u8]| bytes[..2].copy_from_slice(&[0xc0, 0x7f]);
    // The largest numbers of bfloat16.
    let large = |bytes: &mut [u8]| bytes.as_chunks_mut().0.iter_mut().for_each(|b| *b = [0x7f, 0x7f]);
    let cases = [
        ("model.layers.1.mlp.up_proj.weight", &nan as &dyn Fn(&mut [u8]), "layers.1.mlp.up_proj"),
        ("model.layers.1.input_layernorm.weight", &large, "layers.1.self_attn"),
        ("model.layers.0.mlp.down_proj.weight", &large, "layers."),
        ("model.norm.weight", &nan, "lm_head"),
    ];
    for (tensor, change, named) in cases {
        let dir = tempfile::tempdir().unwrap();
        let model = golden("llama", dir.path());
        edit(&model, tensor, change);
        let config = tiny(&dir.path().join("p"), CODEC);
        let text = TextCalibration::from_config(&config).unwrap().unwrap();
        let error = compress(&model, config).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("--calib none"), "{tensor}: {error}");
        let options = SaveOptions {
            output: dir.path().join("statistics"),
            overwrite: false,
            budget: Budget::new(120_000_000),
            store: Arc::new(RealStore),
            interrupt: Arc::default(),
        };
        let opened = Model::open(&model, &OpenOptions::default()).unwrap();
        let error = save_statistics(&opened, &text, &options, &mut |_, _, _| {}).unwrap_err().to_string();
        assert!(error.contains(named), "{tensor}: {error}");
        let left = ["statistics", "statistics.partial"].map(|name| dir.path().join(name).exists());
        assert_eq!(left, [false; 2], "{tensor}");
    }
}

/// An encoder is calibrated on sequences as long as the texts that it will be shown; a decoder's tokenizer may carry the
/// limit of some training run, which says nothing.
#[test]
fn an_encoder_sees_sequences_that_its_tokenizer_lets_through() {
    let dir = tempfile::tempdir().unwrap();
    for (name, asked, longest) in [("bert", 0, 48), ("bert", 96, 96), ("llama", 0, 128)] {
        let dir = dir.path().join(format!("{name}-{asked}"));
        std::fs::create_dir(&dir).unwrap();
        let model = golden(name, &dir);
        let file = model.join("tokenizer.json");
        let limit =
            r#""truncation":{"max_length":48,"strategy":"LongestFirst","stride":0,"direction":"Right"}"#;
        let text = std::fs::read_to_string(&file).unwrap().replace(r#""truncation":null"#, limit);
        std::fs::write(&file, text).unwrap();
        let mut config = tiny(&dir.join("p"), CODEC);
        config.seqlen = asked;
        let report = compress(&model, config).unwrap();
        let note = format!("sequences of up to {longest},");
        assert!(report.calibration[0].contains(&note), "{name}: {:?}", report.calibration);
    }
}
