//! Slopes against finite differences, and a package whose scales are tuned.

use super::*;
use crate::{RunOptions, TextCalibration, Tokenizer};
use lsb_quant::Registry;
use lsb_stream::package::Package;
use lsb_stream::retouch::{Retouch, retouch};
use lsb_stream::source::OpenOptions;
use lsb_stream::store::RealStore;
use lsb_stream::{Budget, CompressConfig, LoopCompressor, open_weights};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn open(path: &Path) -> ModelRunner {
    let budget = Budget::new(100_000_000);
    ModelRunner::open(path, &Registry::standard(), &budget, &RunOptions::default()).unwrap()
}

/// Mean divergence and its slopes where factors are those of `logs`.
fn slopes(
    model: &ModelRunner,
    original: &Teacher<'_>,
    windows: &[Vec<u32>],
    c: &Corrections,
) -> (f64, Vec<f64>) {
    c.apply(model);
    let (numbers, go_on) = ((0..windows.len()).collect::<Vec<_>>(), AtomicBool::new(false));
    let mut objective = Distill::new(original, windows, &numbers, &go_on);
    let mut slopes = Slopes::new(model, c);
    backward(model, windows, &mut objective, &mut NoTap, &mut slopes).unwrap();
    (objective.mean(), slopes.sums)
}

#[test]
fn slopes_along_scales_are_those_of_small_steps() {
    let windows: Vec<Vec<u32>> = vec![(3..12).collect(), vec![7, 1, 30, 2, 2, 9]];
    // Not a mixture of experts: which of them are chosen jumps as scales move.
    for name in ["llama", "gpt2", "gemma2", "phi3"] {
        let (teacher, student) = (open(&fixture("golden").join(name)), open(&fixture("golden").join(name)));
        let go_on = AtomicBool::new(false);
        let original = Teacher::new(&teacher, &windows, &go_on).unwrap();
        let names: Vec<String> = student.source().tensors().iter().map(|t| t.name.clone()).collect();
        let mut c = Corrections::new(&student, &names).unwrap();
        let noise = |seed: u64| {
            let mut random = Random::new(seed);
            (0..c.logs.len()).map(|_| random.unit() - 0.5).collect::<Vec<f64>>()
        };
        let (start, direction) = (noise(1), noise(2));
        let at = |t: f64| start.iter().zip(&direction).map(|(s, d)| 0.3 * s + t * d).collect::<Vec<f64>>();
        c.logs = at(0.0);
        let (mean, sums) = slopes(&student, &original, &windows, &c);
        let slope: f64 = sums.iter().zip(&direction).map(|(s, d)| s * d).sum();
        let mut value = |t: f64| {
            c.logs = at(t);
            c.apply(&student);
            divergence(&student, &original, &windows, &[0, 1], &go_on).unwrap()
        };
        assert!((value(0.0) - mean).abs() < 1e-5 * mean.max(1e-3), "{name}: {mean}");
        let step = 0.01;
        let measured = (value(step) - value(-step)) / (2.0 * step);
        assert!((slope - measured).abs() < 0.02 * measured.abs().max(0.01), "{name}: {slope} {measured}");
    }
}

#[test]
fn tuned_packages_predict_more_like_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("coarse");
    let mut config = CompressConfig::default();
    (config.output, config.codec) = (Some(package.clone()), Some("trellis:tau=0.0002,states=4".into()));
    (config.calib_tokens, config.seqlen) = (2048, 128);
    let calibration = TextCalibration::from_config(&config).unwrap().unwrap();
    let reflm = fixture("reflm");
    let tokenizer = Tokenizer::open(&reflm).unwrap();
    let windows = calibration.windows(&tokenizer, Some(128)).unwrap();
    let mut compressor = LoopCompressor::new(config).with_calibration(Arc::new(calibration));
    compressor.compress_model(&reflm, None).unwrap();

    let coded = Package::open(&package).unwrap();
    let names = tunable(&coded).unwrap();
    assert!(names.len() > 20, "{names:?}");
    let run = |threads: usize, steps: usize| {
        let options = TuneOptions { steps, check_every: steps, rate: 4e-3, ..TuneOptions::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (teacher, student) = (open(&reflm), open(&package));
        let go_on = AtomicBool::new(false);
        pool.install(|| tune(&student, &teacher, &names, &windows[..10], &options, &go_on, &mut |_| {}))
            .unwrap()
    };
    let tuned = run(2, 4);
    assert!(tuned.after < 0.98 * tuned.before, "{} {}", tuned.before, tuned.after);
    assert_eq!(run(1, 1), run(2, 1));

    // Interrupted in the middle of a step, and taken up again.
    let options = TuneOptions {
        steps: 4,
        check_every: 4,
        rate: 4e-3,
        checkpoint: Some(dir.path().join("tuned.training")),
        ..TuneOptions::default()
    };
    let (teacher, student) = (open(&reflm), open(&package));
    let stop = AtomicBool::new(false);
    let at_two = |p: TuneProgress| stop.store(p.step == 2, Ordering::Relaxed);
    let stopped = tune(&student, &teacher, &names, &windows[..10], &options, &stop, &mut { at_two });
    assert!(stopped.unwrap_err().to_string().contains("interrupted"));
    let (teacher, student) = (open(&reflm), open(&package));
    let mut steps = Vec::new();
    let mut tell = |p: TuneProgress| steps.push(p.step);
    let go_on = AtomicBool::new(false);
    let resumed = tune(&student, &teacher, &names, &windows[..10], &options, &go_on, &mut tell).unwrap();
    assert_eq!((steps, resumed), (vec![0, 2, 3, 4], tuned.clone()));

    // Written with fine scales the package is what was trained.
    let wanted = Retouch {
        output: dir.path().join("tuned"),
        sides: scaled_sides(&coded, &tuned, 8).unwrap(),
        note: "Tuned.".into(),
        overwrite: false,
        restart: false,
        shard_bytes: 1 << 20,
    };
    let stop = AtomicBool::new(true);
    assert!(retouch(&coded, Arc::new(RealStore), &wanted, &stop).is_err());
    assert!(!wanted.output.exists());
    stop.store(false, Ordering::Relaxed);
    let made = retouch(&coded, Arc::new(RealStore), &wanted, &stop).unwrap();
    assert!(made.package_bytes > compressor_bytes(&package) && !made.already_done);
    assert!(retouch(&coded, Arc::new(RealStore), &wanted, &stop).unwrap().already_done);
    assert!(std::fs::read_to_string(wanted.output.join("README.md")).unwrap().contains("Tuned."));
    open_weights(&wanted.output, &Registry::standard(), &OpenOptions::default()).unwrap();
    let (teacher, student) = (open(&reflm), open(&wanted.output));
    let original = Teacher::new(&teacher, &windows[..10], &stop).unwrap();
    let found = divergence(&student, &original, &windows[7..8], &[7], &stop).unwrap();
    let before = divergence(&open(&package), &original, &windows[7..8], &[7], &stop).unwrap();
    assert!(found < before, "{found} {before}");
}

fn compressor_bytes(package: &Path) -> u64 {
    let names = ["lsb.json", "weights-00001.lsb"];
    names.iter().map(|n| std::fs::metadata(package.join(n)).unwrap().len()).sum()
}

#[test]
fn one_window_in_eight_is_held_out() {
    assert_eq!(split(3), (vec![0, 1], vec![2]));
    let (training, held) = split(17);
    assert_eq!((training.len(), held), (15, vec![7, 15]));
}
