//! Figures by hand, edge cases, and agreement with direct f64 computation.

use super::*;
use lsb_quant::Distortion;
use proptest::prelude::*;

fn figures(w: &[f32], q: &[f32]) -> WeightError {
    WeightError::from(&Distortion::measure(w, q))
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance
}

#[test]
fn golden_numbers_by_hand() {
    // e = (0.5, 0, 0, -0.5): sum w² = 30, sum e² = 0.5, mean |e| = 0.25, range 3.
    let f = figures(&[1.0, 2.0, 3.0, 4.0], &[0.5, 2.0, 3.0, 4.5]);
    assert!(near(f.weight_snr_db, 17.781_512_503_836_435, 1e-12), "{f:?}");
    assert!(near(f.relative_error_percent, 25.0 / 3.0, 1e-12));
    assert!(near(f.relative_mse, 1.0 / 60.0, 1e-15));
    assert_eq!((f.weights, f.exact, f.max_abs_error), (4, false, 0.5));
    // Centred: w (-1.5 -0.5 0.5 1.5), q (-2 -0.5 0.5 2): 6.5 / sqrt(5 * 8.5).
    assert!(near(f.correlation.unwrap(), 6.5 / 42.5f64.sqrt(), 1e-12));
}

#[test]
fn signs_alone_of_two_values_are_perfectly_correlated() {
    let f = figures(&[-3.0, 3.0, 3.0, -3.0], &[-1.0, 1.0, 1.0, -1.0]);
    assert_eq!(f.correlation, Some(1.0));
    assert!(near(f.weight_snr_db, 10.0 * (9.0f64 / 4.0).log10(), 1e-12));
    assert_eq!(figures(&[-1.0, 1.0], &[1.0, -1.0]).correlation, Some(-1.0));
}

#[test]
fn exact_empty_and_constant_tensors_have_no_nan() {
    for (w, q) in [(&[][..], &[][..]), (&[0.0; 3][..], &[0.0; 3][..]), (&[2.5; 40][..], &[2.5; 40][..])] {
        let f = figures(w, q);
        assert!(f.exact, "{f:?}");
        assert_eq!((f.weight_snr_db, f.relative_error_percent), (f64::INFINITY, 0.0));
        assert_eq!((f.correlation, f.relative_mse, f.max_abs_error), (Some(1.0), 0.0, 0.0));
    }
    let lost = figures(&[2.0; 40], &[1.0; 40]);
    assert_eq!((lost.relative_error_percent, lost.correlation), (f64::INFINITY, None));
    assert!(near(lost.weight_snr_db, 10.0 * 4f64.log10(), 1e-9));
    let from_zero = figures(&[0.0; 20], &[1.0; 20]);
    assert_eq!((from_zero.weight_snr_db, from_zero.relative_mse), (f64::NEG_INFINITY, f64::INFINITY));
    assert!(!from_zero.exact);
    // A row of means keeps nothing of what varied.
    assert_eq!(figures(&[1.0, 2.0, 3.0], &[2.0, 2.0, 2.0]).correlation, None);
}

#[test]
fn infinite_figures_are_null_in_json_and_the_flag_says_why() {
    let json = serde_json::to_value(figures(&[1.0, 2.0], &[1.0, 2.0])).unwrap();
    assert!(json["weight_snr_db"].is_null());
    assert_eq!((json["exact"].as_bool(), json["correlation"].as_f64()), (Some(true), Some(1.0)));
    let json = serde_json::to_value(figures(&[1.0, 1.0], &[1.0, 2.0])).unwrap();
    assert!(json["relative_error_percent"].is_null() && json["correlation"].is_null());
    assert_eq!(json["exact"].as_bool(), Some(false));
}

#[test]
fn a_wide_tensor_does_not_hide_the_error_of_a_narrow_one() {
    let narrow = Distortion::measure(&[0.0, 1.0], &[0.1, 1.1]);
    let wide = Distortion::measure(&[0.0, 1000.0], &[0.0, 1000.0]);
    let both = WeightError::over([&narrow, &wide]);
    assert!(near(both.relative_error_percent, 5.0, 1e-5), "{both:?}");
    assert_eq!(both.weights, 4);
    assert!(WeightError::over([]).exact);
}

#[test]
fn a_mean_far_above_the_spread_is_not_taken_for_correlation() {
    let w: Vec<f32> = (0..4096).map(|i| 1000.0 + (i % 7) as f32 * 1e-4).collect();
    let q: Vec<f32> = (0..4096).map(|i| 1000.0 + (i % 5) as f32 * 1e-4).collect();
    assert_eq!(figures(&w, &q).correlation, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prop_figures_from_sums_equal_direct_computation(
        pairs in prop::collection::vec((-2.0f32..2.0, -0.3f32..0.3), 2..1500),
        offset in -1.0f32..1.0,
    ) {
        let w: Vec<f32> = pairs.iter().map(|p| p.0 + offset).collect();
        let q: Vec<f32> = pairs.iter().map(|p| p.0 + offset + p.1).collect();
        let f = figures(&w, &q);
        let n = w.len() as f64;
        let pair = || w.iter().zip(&q).map(|(&w, &q)| (f64::from(w), f64::from(q)));
        let (signal, noise) = pair().fold((0.0, 0.0), |(s, e), (w, q)| (s + w * w, e + (w - q).powi(2)));
        prop_assume!(noise > 1e-9 && signal > 1e-3);
        prop_assert!(near(f.weight_snr_db, 10.0 * (signal / noise).log10(), 1e-4));
        let (mw, mq) = pair().fold((0.0, 0.0), |(a, b), (w, q)| (a + w / n, b + q / n));
        let (c, vw, vq) = pair().fold((0.0, 0.0, 0.0), |(c, a, b), (w, q)| {
            (c + (w - mw) * (q - mq), a + (w - mw).powi(2), b + (q - mq).powi(2))
        });
        if let Some(r) = f.correlation.filter(|_| vw > 1e-2 * n && vq > 1e-2 * n) {
            prop_assert!(near(r, c / (vw * vq).sqrt(), 1e-4), "{} {}", r, c / (vw * vq).sqrt());
        }
        let (lo, hi) = pair().fold((f64::MAX, f64::MIN), |(lo, hi), (w, _)| (lo.min(w), hi.max(w)));
        let percent = 100.0 * pair().map(|(w, q)| (w - q).abs()).sum::<f64>() / n / (hi - lo);
        prop_assert!(near(f.relative_error_percent, percent, 1e-4 * percent));
    }

    #[test]
    fn prop_no_figure_is_nan(w in prop::collection::vec(-1e30f32..1e30, 0..40), scale in -2.0f32..2.0) {
        let q: Vec<f32> = w.iter().map(|x| x * scale).collect();
        let f = figures(&w, &q);
        for x in [f.weight_snr_db, f.relative_error_percent, f.relative_mse, f.max_abs_error] {
            prop_assert!(!x.is_nan(), "{:?}", f);
        }
        prop_assert!(f.correlation.is_none_or(|r| (-1.0..=1.0).contains(&r)), "{:?}", f);
    }
}
