//! Every search against the scalar one, and the scalar one against all paths there are.

use super::*;
use crate::codec::trellis::machine::STATES;
use proptest::prelude::*;

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % n
    }

    /// In steps of an eighth, so that some costs are equal.
    fn sample(&mut self, reach: u32) -> f32 {
        (self.below(16 * reach + 1) as f32 - 8.0 * reach as f32) / 8.0
    }

    fn table(&mut self) -> RateTable {
        RateTable::new(|j| (j.unsigned_abs() / 2) as f32 * 0.125 + self.below(3) as f32 * 0.25)
    }
}

fn outcome<const N: usize>(
    search: impl Fn(&Samples<'_, N>, &mut Scratch, &mut [[i32; N]]),
    values: &[[f32; N]],
    classes: &[[u8; N]],
    tables: &[RateTable],
) -> Vec<[i32; N]> {
    let mut scratch = Scratch::default();
    let mut levels = vec![[7; N]; values.len()];
    // Memory that is left from another search must not matter.
    search(&Samples::new(values, classes, tables, values.len()), &mut scratch, &mut levels);
    search(&Samples::new(values, classes, tables, values.len()), &mut scratch, &mut levels);
    levels
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 400 }))]

    #[test]
    fn prop_searches_find_what_the_scalar_one_does(
        states in prop::sample::select(STATES.as_slice()),
        n in 0usize..300,
        n_classes in 1u32..34,
        reach in prop::sample::select([1u32, 8, 300, 100_000].as_slice()),
        seed in any::<u64>(),
    ) {
        let machine = Machine::new(states).unwrap();
        let mut random = Random(seed);
        let tables: Vec<RateTable> = (0..n_classes).map(|_| random.table()).collect();
        let mut values: Vec<[f32; LANES]> =
            (0..n).map(|_| std::array::from_fn(|_| random.sample(reach))).collect();
        if let Some(first) = values.first_mut() {
            first[..3].copy_from_slice(&[1e9, -1e30, f32::INFINITY]);
        }
        let classes: Vec<[u8; LANES]> =
            (0..n).map(|_| std::array::from_fn(|_| random.below(n_classes) as u8)).collect();
        let in_lanes = |isa| {
            outcome(|s, scratch, out| lanes(machine, isa, s, scratch, out), &values, &classes, &tables)
        };
        let first = |lane: usize| -> (Vec<[f32; 1]>, Vec<[u8; 1]>) {
            values.iter().zip(&classes).map(|(v, c)| ([v[lane]], [c[lane]])).unzip()
        };
        let in_a_column = |isa, lane: usize| {
            let (values, classes) = first(lane);
            outcome(|s, scratch, out| column(machine, isa, s, scratch, out), &values, &classes, &tables)
        };
        let expected = in_lanes(Isa::Scalar);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            prop_assert_eq!(&in_lanes(isa), &expected, "{} lanes", isa.name());
            for lane in [0, 1, 2, 31] {
                let levels: Vec<[i32; 1]> = expected.iter().map(|l| [l[lane]]).collect();
                prop_assert_eq!(&in_a_column(isa, lane), &levels, "{} column", isa.name());
            }
        }
    }

    #[test]
    fn prop_no_path_is_better(
        states in prop::sample::select(STATES.as_slice()),
        n in 1usize..7,
        seed in any::<u64>(),
    ) {
        let machine = Machine::new(states).unwrap();
        let mut random = Random(seed);
        let tables = [random.table(), random.table()];
        let values: Vec<[f32; 1]> = (0..n).map(|_| [random.sample(5)]).collect();
        let classes: Vec<[u8; 1]> = (0..n).map(|_| [random.below(2) as u8]).collect();
        let found = outcome(|s, scratch, out| scalar::search(machine, s, scratch, out), &values, &classes, &tables);
        // All numbers are multiples of 1/64: sums are exact.
        let cost = |t: usize, j: i32| {
            let e = values[t][0] - j as f32;
            e * e + tables[usize::from(classes[t][0])].rates[(j + super::super::REACH) as usize]
        };
        let mut best = vec![(0u8, 0.0f32)];
        for t in 0..n {
            best = best
                .iter()
                .flat_map(|&(state, sum)| {
                    [0, 1].map(|bit| {
                        let subset = 2 * i32::from(bit) + machine.set(state) as i32;
                        let of_subset = (-16..16).map(|k| cost(t, 4 * k + subset));
                        (machine.next(state, bit), sum + of_subset.fold(f32::INFINITY, f32::min))
                    })
                })
                .collect();
        }
        let least = best.iter().map(|b| b.1).fold(f32::INFINITY, f32::min);
        let (mut state, mut sum) = (0, 0.0);
        for (t, &[level]) in found.iter().enumerate() {
            prop_assert_eq!(level & 1, machine.set(state) as i32, "a level that the state allows");
            state = machine.next(state, (level >> 1 & 1) as u8);
            sum += cost(t, level);
        }
        prop_assert_eq!(sum, least);
    }
}
