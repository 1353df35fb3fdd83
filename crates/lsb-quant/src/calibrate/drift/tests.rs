//! The change of weights against loops that write down the order of every sum.

use super::kernel::LANES;
use super::*;
use crate::calibrate::tests::moments;
use proptest::prelude::*;

/// A row times `U^T U`.
fn plainly(row: &[f32], factor: &UpperFactor) -> Vec<f32> {
    let mut out = vec![0.0; row.len()];
    for j in 0..row.len() {
        let (row, u) = (&row[j..], &factor.row(j)[j..]);
        let whole = row.len() / LANES * LANES;
        let mut sums = [0.0f32; LANES];
        for i in 0..whole {
            sums[i % LANES] += row[i] * u[i];
        }
        let rest: f32 = row[whole..].iter().zip(&u[whole..]).map(|(a, b)| a * b).sum();
        let product = sums.iter().sum::<f32>() + rest;
        out[j..].iter_mut().zip(u).for_each(|(x, u)| *x += product * u);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn prop_kernels_match_plain_loops(seed in any::<u64>(), n in 1usize..120, rows in 1usize..20) {
        let (factor, _) = UpperFactor::new(&moments(seed, n, 2 * n), n, 0.01).unwrap();
        let drift = &moments(seed ^ 1, n.max(rows), n)[..rows * n];
        let wanted: Vec<u32> =
            drift.chunks(n).flat_map(|row| plainly(row, &factor)).map(f32::to_bits).collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let found: Vec<u32> =
                times_inverse(drift, &factor, isa).into_iter().map(f32::to_bits).collect();
            prop_assert!(found == wanted, "{}", isa.name());
        }
    }
}
