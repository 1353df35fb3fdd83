//! Factors of second moments against direct computation.

use super::*;
use proptest::prelude::*;

/// Second moments of random inputs, some of them strongly related.
pub(super) fn moments(seed: u64, n: usize, samples: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    let mut h = vec![0.0f64; n * n];
    for _ in 0..samples {
        let common = random();
        let x: Vec<f64> = (0..n).map(|i| random() + common * (i % 5) as f64).collect();
        for i in 0..n {
            for j in 0..n {
                h[i * n + j] += x[i] * x[j] / samples as f64;
            }
        }
    }
    h.iter().map(|&x| x as f32).collect()
}

/// The largest entry of `(H + damping) U^T U - I`.
fn residue(h: &[f32], u: &UpperFactor, damping: f64) -> f64 {
    let n = u.len();
    let mean = (0..n).map(|i| f64::from(h[i * n + i])).sum::<f64>() / n as f64;
    let mut largest = 0.0f64;
    for i in 0..n {
        // Row i of H U^T, then times U.
        let damped = |j: usize| f64::from(h[i * n + j]) + if i == j { damping * mean } else { 0.0 };
        let hut: Vec<f64> =
            (0..n).map(|k| (0..n).map(|j| damped(j) * f64::from(u.row(k)[j])).sum()).collect();
        for j in 0..n {
            let x: f64 = (0..n).map(|k| hut[k] * f64::from(u.row(k)[j])).sum();
            largest = largest.max((x - if i == j { 1.0 } else { 0.0 }).abs());
        }
    }
    largest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn prop_the_factor_inverts_the_moments(seed in any::<u64>(), n in 1usize..150) {
        let h = moments(seed, n, 2 * n + 8);
        let (u, report) = UpperFactor::new(&h, n, 0.01).unwrap();
        prop_assert_eq!(report, FactorReport { damping: 0.01, dead: 0, blocks: 1 });
        prop_assert!(residue(&h, &u, 0.01) < 1e-4);
        for i in 0..n {
            prop_assert!(u.diagonal(i) > 0.0 && u.row(i)[..i].iter().all(|&x| x == 0.0));
        }
    }
}

#[test]
fn the_factor_does_not_depend_on_threads() {
    let h = moments(3, 300, 200);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| UpperFactor::new(&h, 300, 0.01).unwrap())
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn few_samples_climb_the_ladder_and_dead_inputs_are_counted() {
    // Rank 3 of 40, no damping asked for, one input always zero.
    let mut h = moments(9, 40, 3);
    for i in 0..40 {
        h[7 * 40 + i] = 0.0;
        h[i * 40 + 7] = 0.0;
    }
    let (u, report) = UpperFactor::new(&h, 40, 0.0).unwrap();
    assert!(report.damping > 0.0 && report.dead == 1, "{report:?}");
    let largest = (0..40).map(|i| u.diagonal(i)).fold(0.0, f32::max);
    assert_eq!(u.diagonal(7), largest, "a dead input has the coarsest step");
}

#[test]
fn what_is_not_a_matrix_of_moments_is_refused() {
    let refused = |h: &[f32]| UpperFactor::new(h, 2, 0.01).unwrap_err().to_string();
    assert!(refused(&[1.0, f32::NAN, 0.0, 1.0]).contains("finite"));
    assert!(refused(&[0.0; 4]).contains("zero"));
    assert!(refused(&[-1.0, 0.0, 0.0, 3.0]).contains("negative"));
    assert!(refused(&[1.0, 1e20, 1e20, 1.0]).contains("not those of any inputs"));
    assert!(UpperFactor::new(&[], 0, 0.01).unwrap().0.is_empty());
}

#[test]
fn inputs_that_were_all_zero_count_the_same() {
    let factor = InputFactor::new(&DenseMoments::new(vec![0.0; 9], 3), 0.01, ColumnOrder::Falling).unwrap();
    assert_eq!((factor.report().dead, factor.blocks().count()), (3, 3));
    assert!((0..3).all(|i| factor.diagonal(i) == 1.0));
}

#[test]
fn power_is_the_mean_square_of_an_output() {
    let n = 40;
    let h = moments(3, n, 200);
    let row: Vec<f32> = (0..n).map(|i| ((i * 37 % 17) as f32 - 8.0) / 5.0).collect();
    let factor = InputFactor::new(&DenseMoments::new(h.clone(), n), 0.0, ColumnOrder::Falling).unwrap();
    let product = |i: usize| (0..n).map(|j| f64::from(h[i * n + j]) * f64::from(row[j])).sum::<f64>();
    let wanted: f64 = (0..n).map(|i| f64::from(row[i]) * product(i)).sum();
    assert!((factor.power(&row) / wanted - 1.0).abs() < 1e-3, "{} {wanted}", factor.power(&row));
}
