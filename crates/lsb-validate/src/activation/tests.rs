//! Figures by hand, and independence of how activations arrive.

use super::*;

#[test]
fn figures_by_hand() {
    let mut tally = SignalTally::default();
    tally.observe(&[3.0, 0.0], &[3.0, 1.0]);
    tally.observe(&[4.0], &[4.0]);
    let f = tally.figures();
    let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert_eq!((f.values, f.exact), (3, false));
    assert!(near(f.snr_db, 10.0 * 25f64.log10()) && near(f.relative_error, 0.2), "{f:?}");
    assert!(near(f.cosine.unwrap(), 25.0 / (25f64 * 26.0).sqrt()));
    // Centred: (2, -7, 5)/3 and (1, -5, 4)/3.
    assert!(near(f.correlation.unwrap(), 57.0 / (78f64 * 42.0).sqrt()), "{f:?}");
}

#[test]
fn equal_zero_and_broken_activations_have_no_nan() {
    let of = |a: &[f32], b: &[f32]| {
        let mut tally = SignalTally::default();
        tally.observe(a, b);
        tally.figures()
    };
    let same = of(&[1.0, 2.0], &[1.0, 2.0]);
    assert_eq!((same.exact, same.snr_db, same.relative_error), (true, f64::INFINITY, 0.0));
    assert_eq!((same.correlation, same.cosine), (Some(1.0), Some(1.0)));
    let lost = of(&[1.0, 2.0], &[0.0, 0.0]);
    assert_eq!((lost.snr_db, lost.cosine, lost.relative_error), (0.0, None, 1.0));
    let broken = of(&[1.0, 2.0], &[1.0, f32::NAN]);
    assert_eq!((broken.snr_db, broken.cosine), (f64::NEG_INFINITY, None));
    assert_eq!(broken.relative_error, f64::INFINITY);
    let json = serde_json::to_value(broken).unwrap();
    assert!(json["snr_db"].is_null() && json["relative_error"].is_null());
}

#[test]
fn threads_change_no_bit() {
    let x: Vec<f32> = (0..300_000).map(|i| ((i * 37) % 1001) as f32 - 500.0).collect();
    let y: Vec<f32> = x.iter().map(|x| x + (x * 0.7).sin()).collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut tally = SignalTally::default();
            tally.observe(&x, &y);
            tally
        })
    };
    assert_eq!(run(1), run(7));
}

#[test]
fn a_table_keeps_order_and_names_the_worst() {
    let mut table = SignalTable::default();
    table.observe("layer 1", &[1.0, 2.0, 3.0], &[1.0, 2.0, 3.5]);
    table.observe("layer 0", &[1.0, 2.0, 3.0], &[1.0, 2.0, 4.0]);
    table.observe("layer 1", &[0.0; 3], &[0.0; 3]);
    let report = table.report();
    let names: Vec<_> = report.rows.iter().map(|row| (row.name.as_str(), row.figures.values)).collect();
    assert_eq!(names, [("layer 1", 6), ("layer 0", 3)]);
    assert_eq!(report.worst.as_deref(), Some("layer 0"));
    assert!((report.worst_snr_db.unwrap() - 10.0 * 14f64.log10()).abs() < 1e-12);
    assert!(report.mean_correlation.unwrap() < 1.0);
    let mean = 10.0 * (14f64.log10() + 56f64.log10()) / 2.0;
    assert!((report.mean_snr_db.unwrap() - mean).abs() < 1e-12);
    assert!((report.snr_db.unwrap() - 10.0 * (28f64 / 1.25).log10()).abs() < 1e-12);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["rows"][1]["name"], "layer 0");
    assert_eq!(SignalTable::default().report().mean_correlation, None);
}

#[test]
fn the_mean_ratio_counts_outputs_that_have_one() {
    let mut table = SignalTable::default();
    table.observe("exact", &[1.0, 2.0], &[1.0, 2.0]);
    let report = table.report();
    assert_eq!((report.mean_snr_db, report.snr_db), (None, None));
    table.observe("close", &[10.0, 0.0], &[10.0, 1.0]);
    let report = table.report();
    let near = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-12;
    assert!(near(report.mean_snr_db, 20.0) && near(report.snr_db, 10.0 * 105f64.log10()), "{report:?}");
    table.observe("broken", &[1.0], &[f32::NAN]);
    let report = table.report();
    assert!(near(report.mean_snr_db, 20.0));
    assert_eq!(report.snr_db, None);
}
