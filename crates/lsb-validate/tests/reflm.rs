//! The judge on a real trained model.

use lsb_quant::Registry;
use lsb_stream::source::Model;
use lsb_stream::{Budget, CompressConfig, LoopCompressor, ModelWeights, WeightSource, open_weights};
use lsb_validate::{
    Compare, DiffState, Outcome, QualityTargets, QualityValidator, Validator, diff, summarize,
};
use std::path::{Path, PathBuf};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/reflm")
}

fn reflm() -> ModelWeights {
    ModelWeights::new(Model::open(&path(), &Default::default()).expect("the fixture is a model"))
}

#[test]
fn a_lossless_package_has_the_bits_of_its_source_and_fewer_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = CompressConfig::default();
    config.output = Some(dir.path().join("out"));
    config.codec = Some("lossless".into());
    let report = LoopCompressor::new(config).compress_model(path(), None).unwrap();
    let package = open_weights(&report.package, &Registry::standard(), &Default::default()).unwrap();
    let budget = Budget::new(16_000_000);
    let tensors = diff(&reflm(), &*package, &budget).unwrap();
    for t in &tensors {
        assert_eq!(t.state, DiffState::Identical, "{t:?}");
    }
    let summary = summarize(&tensors);
    assert!(summary.bytes_b < summary.bytes_a, "{summary:?}");
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_model_is_identical_to_itself_and_passes_any_quality_target() {
    let (a, b) = (reflm(), reflm());
    let (mut quality, budget) = (QualityValidator::new(), Budget::new(8_000_000));
    let comparison = Compare::new(&a, &b, &budget).validator(&mut quality).run().unwrap();
    assert_eq!(comparison.tensors.len(), a.tensors().len());
    assert!(comparison.tensors.iter().all(|t| matches!(t.outcome, Outcome::Identical { .. })));
    let report = quality.report();
    assert!(report.model.exact && report.lossy.is_none());
    assert!(report.layers.iter().any(|l| l.layer == "layer 0"), "{:?}", report.layers);
    let targets = QualityTargets {
        min_weight_snr_db: Some(1000.0),
        min_correlation: Some(1.0),
        max_relative_error_percent: Some(0.0),
        ..Default::default()
    };
    let mut measurements = comparison.measurements();
    measurements.extend(quality.finish());
    let verdict = targets.judge(&measurements);
    assert!(verdict.passed, "{verdict:?}");
    assert_eq!(budget.used(), 0);
    let summary = summarize(&diff(&a, &b, &budget).unwrap());
    assert_eq!((summary.identical, summary.different), (a.tensors().len(), 0));
}
