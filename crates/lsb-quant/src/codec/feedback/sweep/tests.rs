//! Updates of columns against a loop that writes down the order of every sum.

use super::*;
use crate::codec::feedback::layers::gaussian;
use proptest::prelude::*;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn prop_kernels_match_plain_loops(
        seed in any::<u64>(), columns in 1usize..20 * COLUMNS, n in 1usize..=BLOCK, strips in 1usize..4,
    ) {
        let stride = strips * STRIP;
        let factors = gaussian(seed, columns * n);
        let errors = gaussian(seed ^ 1, n * stride);
        let before = gaussian(seed ^ 2, columns * stride);
        let mut wanted = before.clone();
        for (j, column) in wanted.chunks_mut(stride).enumerate() {
            for (r, x) in column.iter_mut().enumerate() {
                for k in 0..n {
                    *x -= factors[j * n + k] * errors[k * stride + r];
                }
            }
        }
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut found = before.clone();
            let fill = |columns: Range<usize>, to: &mut Factors| {
                for (j, column) in columns.enumerate() {
                    by_column(to, j, factors[column * n..][..n].iter().copied());
                }
            };
            vectorize(isa, Update { columns: &mut found, errors: &errors, stride, fill });
            prop_assert!(bits(&found) == bits(&wanted), "{}", isa.name());
            found.copy_from_slice(&before);
            for (column, factors) in found.chunks_mut(stride).zip(factors.chunks(n)) {
                vectorize(isa, UpdateOne { column, errors: &errors, factors });
            }
            prop_assert!(bits(&found) == bits(&wanted), "{}", isa.name());
        }
    }
}
