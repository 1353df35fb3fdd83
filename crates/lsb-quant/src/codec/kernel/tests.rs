//! Kernels against the specification.

use super::*;
use lsb_format::entropy::{SingleTable, Table, decode_run, encode_run};
use proptest::prelude::*;

proptest! {
    #[test]
    fn prop_kernels_equal_the_specification(
        length in 0usize..3000,
        spread in 1u32..200,
        cut in prop::option::of(0usize..4000),
        seed in any::<u64>(),
    ) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        let symbols: Vec<u8> = (0..length).map(|_| (next() % spread).min(next() % spread) as u8).collect();
        let mut counts = [0; 256];
        symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
        let Some(table) = Table::from_counts(&counts) else { return Ok(()) };
        let mut coded = Vec::new();
        encode_run(&symbols, &[&table], |_| 0, &mut coded).unwrap();
        // Cut short, a run ends in the same error.
        coded.truncate(cut.unwrap_or(usize::MAX));
        let table = table.decoder();
        let mut expected = vec![0; length];
        let result = decode_run(&coded, std::slice::from_ref(&table), &mut SingleTable, &mut expected);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let Ok(mut run) = RunDecoder::new(&coded, length) else {
                prop_assert!(result.is_err());
                return Ok(());
            };
            let mut found = vec![0; length];
            let done = decode(isa, &mut run, &table, &mut found);
            let rest = run.decode(std::slice::from_ref(&table), &mut SingleTable, done, &mut found[done..]);
            let found_result = rest.and_then(|()| run.finish());
            prop_assert_eq!(found_result.is_ok(), result.is_ok(), "{}", isa.name());
            if result.is_ok() {
                prop_assert_eq!(&found, &expected, "{}", isa.name());
            }
        }
    }
}

#[test]
fn vectors_do_most_of_a_run() {
    let symbols: Vec<u8> = (0..10_000_u32).map(|i| (i * i % 7) as u8).collect();
    let mut counts = [0; 256];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    let table = Table::from_counts(&counts).unwrap();
    let mut coded = Vec::new();
    encode_run(&symbols, &[&table], |_| 0, &mut coded).unwrap();
    for isa in [Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| isa.is_available()) {
        let mut run = RunDecoder::new(&coded, symbols.len()).unwrap();
        let done = decode(isa, &mut run, &table.decoder(), &mut vec![0; symbols.len()]);
        assert!(done > 9_500, "{}: {done}", isa.name());
    }
}
