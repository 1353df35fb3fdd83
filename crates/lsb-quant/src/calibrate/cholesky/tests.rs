//! Factor and inverse against loops that write down the order of every sum.

use super::*;
use proptest::prelude::*;

/// The lower factor, element by element in blocks of columns.
fn factor_plainly(a: &mut [f64], n: usize) -> bool {
    for first in (0..n).step_by(BLOCK) {
        let below = (first + BLOCK).min(n);
        if !factor_block(a, n, first, below - first) {
            return false;
        }
        for i in below..n {
            for j in first..below {
                let mut sum = a[i * n + j];
                for k in first..j {
                    sum -= a[i * n + k] * a[j * n + k];
                }
                a[i * n + j] = sum / a[j * n + j];
            }
        }
        for i in below..n {
            for j in below..=i {
                let mut sums = [0.0; 8];
                for k in 0..BLOCK {
                    sums[k % 8] += a[i * n + first + k] * a[j * n + first + k];
                }
                let [a0, b, c, d, e, f, g, h] = sums;
                a[i * n + j] -= ((a0 + b) + (c + d)) + ((e + f) + (g + h));
            }
        }
    }
    true
}

/// The inverse of a lower triangle, row by row.
fn invert_plainly(l: &[f64], n: usize) -> Vec<f64> {
    let mut x = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let mut sum = if i == j { 1.0 } else { 0.0 };
            for k in j / BLOCK * BLOCK..i {
                sum -= l[i * n + k] * x[k * n + j];
            }
            x[i * n + j] = sum / l[i * n + i];
        }
    }
    x
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// A matrix whose triangle is that of a positive one.
fn positive(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    let mut a: Vec<f64> = (0..n * n).map(|_| random()).collect();
    a.iter_mut().step_by(n + 1).for_each(|d| *d += 0.5 * n as f64 + 1.0);
    a
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn prop_kernels_match_plain_loops(seed in any::<u64>(), n in 0usize..310) {
        let a = positive(seed, n);
        let mut wanted = a.clone();
        prop_assert!(factor_plainly(&mut wanted, n));
        let inverse = invert_plainly(&wanted, n);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut found = a.clone();
            prop_assert!(factor(&mut found, n, isa));
            prop_assert!(bits(&found) == bits(&wanted), "{}", isa.name());
            let rows = std::sync::Mutex::new(vec![0.0; n * n]);
            invert(&found, n, isa, |i, first, values| {
                let width = values.len().min(i + 1 - first);
                rows.lock().unwrap()[i * n + first..][..width].copy_from_slice(&values[..width]);
            });
            prop_assert!(bits(&rows.into_inner().unwrap()) == bits(&inverse), "{}", isa.name());
        }
    }
}

#[test]
fn what_has_no_factor_is_refused_by_all() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let mut a = positive(1, 200);
        a[150 * 200 + 150] = -1.0;
        assert!(!factor(&mut a, 200, isa), "{}", isa.name());
    }
}
