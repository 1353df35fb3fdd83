//! The numbers a user will read, by hand.

use super::*;

fn bf16() -> SourceFacts {
    SourceFacts::uniform(7_000_000_000, DType::BF16)
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

#[test]
fn shannon_by_hand() {
    assert!(near(bpw_for_snr_db(40.0), 6.6439, 1e-4));
    assert!(near(best_snr_db(16.0 / 5.63), 17.110, 1e-3));
    assert!(near(best_correlation(1.0), 0.75f64.sqrt(), 1e-15));
    assert!(near(bpw_for_correlation(0.99), 2.8256, 1e-4));
    assert!(near(best_correlation(bpw_for_correlation(0.97)), 0.97, 1e-12));
    assert_eq!(bpw_for_correlation(1.0), f64::INFINITY);
    assert_eq!((bpw_for_snr_db(-3.0), best_correlation(0.0)), (0.0, 0.0));
}

#[test]
fn forty_db_excludes_a_ratio_of_5_63_on_bf16() {
    let targets =
        QualityTargets { min_weight_snr_db: Some(40.0), min_ratio: Some(5.63), ..Default::default() };
    let f = feasibility(&targets, &bf16(), None);
    assert_eq!(f.conflicts.len(), 1);
    let c = &f.conflicts[0];
    assert_eq!(c.kind, ConflictKind::Impossible);
    assert_eq!(c.targets, ["weight_snr_db >= 40", "ratio >= 5.63"]);
    assert!(near(c.needed_bpw.unwrap(), 6.6439, 1e-4) && near(c.allowed_bpw.unwrap(), 2.8419, 1e-4));
    assert!(near(c.best.unwrap(), 17.110, 1e-3));
    for part in ["6.64 bits", "leaves 2.84", "17.1 dB", "ratio 2.41"] {
        assert!(c.explanation.contains(part), "{part}: {}", c.explanation);
    }
    assert!(f.notes[0].contains("17 dB") && f.notes[0].contains("-3 dB"), "{}", f.notes[0]);
}

#[test]
fn each_quality_target_meets_the_tightest_size_target() {
    let targets = QualityTargets {
        min_weight_snr_db: Some(10.0),
        min_correlation: Some(0.99),
        min_ratio: Some(2.0),
        max_bpw: Some(2.0),
        max_storage_gb: Some(4.0),
        max_relative_error_percent: None,
        ..Default::default()
    };
    let f = feasibility(&targets, &bf16(), None);
    assert_eq!(f.conflicts.len(), 1, "10 dB fit into 2 bits: {f:?}");
    assert_eq!(f.conflicts[0].targets, ["correlation >= 0.99", "bpw <= 2"]);
    assert!(near(f.conflicts[0].best.unwrap(), (1.0f64 - 1.0 / 16.0).sqrt(), 1e-12));
    assert!(f.notes.is_empty());
}

#[test]
fn exact_storage_ends_the_rule() {
    // 100 dB would be 16.6 bits on a continuous source; bf16 is exact at 10.6.
    let targets =
        QualityTargets { min_weight_snr_db: Some(100.0), max_bpw: Some(11.0), ..QualityTargets::none() };
    let f = feasibility(&targets, &bf16(), None);
    assert!(f.conflicts.is_empty(), "{f:?}");
    assert!(f.notes[0].contains("lossless"));
    let targets = QualityTargets { max_bpw: Some(10.0), ..targets };
    assert_eq!(feasibility(&targets, &bf16(), None).conflicts.len(), 1);
}

#[test]
fn a_plan_that_falls_short_is_told_as_the_codecs_own_limit() {
    let targets = QualityTargets {
        min_weight_snr_db: Some(12.0),
        min_correlation: Some(0.96),
        max_bpw: Some(3.0),
        min_ratio: Some(20.0),
        ..QualityTargets::none()
    };
    let source = SourceFacts::uniform(1_000_000, DType::BF16);
    let prediction = Prediction { codec: "outlier-binary".into(), bytes: 180_000, snr_db: 5.4 };
    let f = feasibility(&targets, &source, Some(&prediction));
    let impossible = f.conflicts.iter().filter(|c| c.kind == ConflictKind::Impossible).count();
    assert_eq!(impossible, 2, "20x leaves 0.8 bits: {f:?}");
    let own: Vec<&str> =
        f.conflicts.iter().filter(|c| c.kind == ConflictKind::Codec).map(|c| c.targets[0].as_str()).collect();
    assert_eq!(own, ["weight_snr_db >= 12", "correlation >= 0.96", "ratio >= 20"]);
    let c = f.conflicts.iter().find(|c| c.kind == ConflictKind::Codec).unwrap();
    assert!(
        c.explanation.contains("outlier-binary as planned is expected to give 5.40 dB at 1.44 bits"),
        "{c:?}"
    );
    let enough = Prediction { codec: "lossless".into(), bytes: 1_000, snr_db: f64::INFINITY };
    let f = feasibility(&QualityTargets { min_ratio: None, ..targets }, &source, Some(&enough));
    assert!(f.conflicts.iter().all(|c| c.kind == ConflictKind::Impossible), "{f:?}");
}

#[test]
fn nothing_to_store_and_nonsense_targets_are_no_conflict() {
    let targets = QualityTargets {
        min_weight_snr_db: Some(f64::NAN),
        max_bpw: Some(0.0),
        min_ratio: Some(-1.0),
        ..Default::default()
    };
    assert!(feasibility(&targets, &bf16(), None).conflicts.is_empty());
    assert_eq!(feasibility(&targets, &SourceFacts::uniform(0, DType::F32), None), Feasibility::default());
}

#[test]
fn a_plan_gives_the_source_and_the_prediction() {
    let tensor = |name: &str, codec: &str, weights: u64, snr_db: Option<f64>, same_as: Option<&str>| {
        serde_json::json!({
            "name": name, "layer": "layer 0", "dtype": "BF16", "shape": [weights], "codec": codec, "parameters": {},
            "weights": weights, "source_bytes": 2 * weights, "predicted_bytes": weights / 2,
            "predicted_snr_db": snr_db, "same_as": same_as, "reason": "",
        })
    };
    let plan: Plan = serde_json::from_value(serde_json::json!({
        "model": "m", "source_bytes": 4000, "weights": 1500, "predicted_bytes": 800, "predicted_ram_bytes": 0,
        "ram_limit_bytes": 0, "streamed_tensors": 0, "target": null, "warnings": [],
        "tensors": [
            tensor("a", "rtn", 750, Some(20.0), None),
            tensor("b", "rtn", 250, Some(10.0), None),
            tensor("norm", "raw", 500, None, None),
            tensor("head", "rtn", 500, Some(1.0), Some("a")),
        ],
    }))
    .unwrap();
    let source = SourceFacts::from(&plan);
    assert_eq!((source.weights, source.source_bytes), (1500, 4000));
    assert!(near(source.lossless_bpw, 10.6, 1e-9));
    let prediction = Prediction::from(&plan);
    assert_eq!((prediction.codec.as_str(), prediction.bytes), ("rtn", 800));
    // Noise 0.01 x 750 + 0.1 x 250 over 1000 lossy weights; the tied head and the exact norm do not count.
    assert!(near(prediction.snr_db, 10.0 * (1000.0f64 / 32.5).log10(), 1e-9));
}
