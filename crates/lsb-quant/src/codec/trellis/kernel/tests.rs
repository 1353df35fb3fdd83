//! Every kernel against the scalar one.

use super::*;
use crate::codec::trellis::machine::STATES;
use lsb_format::entropy::{Table, encode_run};
use proptest::prelude::*;

/// Tables, symbols that they code, and the run of these.
fn coded(machine: Machine, map: &[[u8; LANES]], restart: usize, seed: u64) -> (Vec<DecodeTable>, Vec<u8>) {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u32
    };
    let classes = 1 + usize::from(map.as_flattened().iter().copied().max().unwrap_or(0));
    let tables: Vec<Table> = (0..2 * classes)
        .map(|t| {
            let mut counts = [0; 256];
            // A few levels, now and then escapes.
            counts[120..136].iter_mut().for_each(|c| *c = u64::from(random() % 1000));
            counts[0] = u64::from(random() % 7);
            counts[1] = u64::from(t % 3 == 0);
            counts[128] += 1;
            Table::from_counts(&counts).unwrap()
        })
        .collect();
    let (mut states, mut symbols, mut which) = ([0u8; LANES], Vec::new(), Vec::new());
    for (i, classes) in map.iter().enumerate() {
        if i % restart == 0 {
            states = [0; LANES];
        }
        for (&class, state) in classes.iter().zip(&mut states) {
            let table = 2 * usize::from(class) + machine.set(*state);
            let mut symbol = (random() % 256) as u8;
            while tables[table].frequency(symbol) == 0 {
                symbol = symbol.wrapping_add(1);
            }
            symbols.push(symbol);
            which.push(table);
            *state = machine.next(*state, symbol & 1);
        }
    }
    let mut bytes = Vec::new();
    encode_run(&symbols, &tables.iter().collect::<Vec<_>>(), |i| which[i], &mut bytes).unwrap();
    (tables.iter().map(Table::decoder).collect(), bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 24 } else { 200 }))]

    #[test]
    fn prop_kernels_equal_the_scalar_one(
        states in prop::sample::select(STATES.as_slice()),
        rows in 1usize..200,
        groups in 1usize..4,
        classes in 1u8..34,
        restarts in any::<bool>(),
        seed in any::<u64>(),
        damage in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let machine = Machine::new(states).unwrap();
        let class = |i: usize| ((i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u8 % classes;
        let map: Vec<[u8; LANES]> =
            (0..rows * groups).map(|s| std::array::from_fn(|l| class(s * LANES + l))).collect();
        let restart = if restarts { rows } else { usize::MAX };
        let (tables, mut bytes) = coded(machine, &map, restart, seed);
        if let Some(at) = damage {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << (seed % 8);
        }
        let code = Code { machine, map: &map, tables: &tables, restart };
        let outcome = |isa: Isa| {
            let (mut levels, mut escapes) = (vec![[0; LANES]; map.len()], Vec::new());
            let done = decode(&bytes, &code, isa, &mut levels, &mut escapes);
            done.map(|()| (levels, escapes)).map_err(|e| e.to_string())
        };
        let expected = outcome(Isa::Scalar);
        prop_assert!(damage.is_some() || expected.is_ok());
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            prop_assert_eq!(&outcome(isa), &expected, "{}", isa.name());
        }
    }
}
