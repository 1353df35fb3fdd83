//! What the entropy coder promises: identity, size, and no harm from any bytes.

use super::*;
use proptest::prelude::*;

/// A reproducible sequence of 64-bit values.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// `n` symbols drawn with these weights.
fn draw(seed: u64, n: usize, weights: &[f64]) -> Vec<u8> {
    let mut next = random(seed);
    let sum: f64 = weights.iter().sum();
    (0..n)
        .map(|_| {
            let mut u = (next() >> 11) as f64 / (1u64 << 53) as f64 * sum;
            let mut last = 0;
            for (s, &w) in weights.iter().enumerate() {
                if w > 0.0 {
                    last = s;
                    if u < w {
                        break;
                    }
                    u -= w;
                }
            }
            last as u8
        })
        .collect()
}

fn entropy_bits(symbols: &[u8]) -> f64 {
    let mut counts = [0f64; 256];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1.0);
    let n = symbols.len() as f64;
    counts.iter().filter(|&&c| c > 0.0).map(|&c| c * (n / c).log2()).sum()
}

/// Bytes of tables inside the coded form.
fn table_bytes(coded: &[u8]) -> usize {
    match coded[0] {
        1 => 1 + Table::read(&coded[1..]).unwrap().1,
        2 => {
            let first = Table::read(&coded[2..]).unwrap().1;
            2 + first + Table::read(&coded[2 + first..]).unwrap().1
        }
        _ => 1,
    }
}

fn distributions() -> Vec<(&'static str, Vec<f64>)> {
    let gauss =
        |sigma: f64| (0..256).map(|s| (-((f64::from(s) - 128.0) / sigma).powi(2) / 2.0).exp()).collect();
    let mut rare = vec![1e-5; 200];
    rare.push(1.0);
    let mut uneven_rare: Vec<f64> = (0..100).map(|i| 1e-4 / f64::from(1 + i)).collect();
    uneven_rare.extend([0.7, 0.3]);
    vec![
        ("uniform", vec![1.0; 256]),
        ("sixteen", vec![1.0; 16]),
        ("geometric", (0..256).map(|s| 0.5f64.powi(s)).collect()),
        ("slow geometric", (0..256).map(|s| 0.98f64.powi(s)).collect()),
        ("bell", gauss(30.0)),
        ("narrow bell", gauss(1.2)),
        ("very skewed", vec![0.9999, 0.0001]),
        ("200 rare", rare),
        ("uneven rare", uneven_rare),
        ("two", vec![0.3, 0.7]),
        ("one", vec![1.0]),
    ]
}

#[test]
fn runs_take_at_most_their_entropy_times_1_003_and_160_bytes() {
    for (name, weights) in distributions() {
        for n in [0, 1, 31, 32, 33, 1000, 1 << 18] {
            let symbols = draw(7, n, &weights);
            let mut coded = Vec::new();
            encode_symbols(&symbols, &mut coded);
            let payload = coded.len() - table_bytes(&coded);
            let limit = entropy_bits(&symbols) / 8.0 * 1.003 + 160.0;
            assert!(payload as f64 <= limit, "{name}, {n} symbols: {payload} bytes, limit {limit}");
            let mut back = vec![0xaa; n];
            decode_symbols(&coded, &mut back).unwrap();
            assert!(back == symbols, "{name}, {n}");
        }
    }
}

#[test]
fn every_change_of_a_byte_is_an_error_or_other_symbols_but_never_a_panic() {
    let symbols = draw(3, 200, &[0.5, 0.2, 0.2, 0.05, 0.05]);
    let mut coded = Vec::new();
    encode_symbols(&symbols, &mut coded);
    for at in 0..coded.len() {
        for value in 0..=255 {
            let mut damaged = coded.clone();
            damaged[at] = value;
            let (mut a, mut b) = (vec![0; 200], vec![0xff; 200]);
            let (ra, rb) = (decode_symbols(&damaged, &mut a), decode_symbols(&damaged, &mut b));
            assert_eq!(ra.is_ok(), rb.is_ok());
            assert!(ra.is_err() || a == b);
        }
    }
    for len in 0..coded.len() {
        assert!(decode_symbols(&coded[..len], &mut [0; 200]).is_err());
    }
}

#[test]
fn random_positions_cost_their_entropy() {
    let bound = 1 << 18;
    for share in [0.001, 0.005, 0.02, 0.05, 0.1, 0.25] {
        let mut next = random(11);
        let positions: Vec<u32> =
            (0..bound).filter(|_| (next() >> 11) as f64 / (1u64 << 53) as f64 <= share).collect();
        let mut coded = Vec::new();
        encode_positions(&positions, bound, &mut coded).unwrap();
        let p = positions.len() as f64 / f64::from(bound);
        let bits = f64::from(bound) * -(p * p.log2() + (1.0 - p) * (1.0 - p).log2());
        let limit = bits / 8.0 * 1.01 + 140.0;
        assert!(coded.len() as f64 <= limit, "{share}: {} bytes, limit {limit}", coded.len());
        let mut back = Vec::new();
        decode_positions(&coded, bound, positions.len(), &mut back).unwrap();
        assert_eq!(back, positions);
    }
}

proptest! {
    #[test]
    fn prop_roundtrip_is_identity(symbols in prop::collection::vec(any::<u8>(), 0..600), few in 1u8..=255) {
        let symbols: Vec<u8> = symbols.iter().map(|s| s % few).collect();
        let mut coded = Vec::new();
        encode_symbols(&symbols, &mut coded);
        prop_assert!(coded.len() <= symbols_len_bound(symbols.len()));
        let mut back = vec![1; symbols.len()];
        decode_symbols(&coded, &mut back).unwrap();
        prop_assert_eq!(back, symbols);
    }

    #[test]
    fn prop_decode_never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400), n in 0usize..300, bound in 0u32..5000) {
        let (mut a, mut b) = (vec![0; n], vec![0xff; n]);
        let (ra, rb) = (decode_symbols(&bytes, &mut a), decode_symbols(&bytes, &mut b));
        prop_assert_eq!(ra.is_ok(), rb.is_ok());
        prop_assert!(ra.is_err() || a == b);
        let mut positions = Vec::new();
        if decode_positions(&bytes, bound, n, &mut positions).is_ok() {
            prop_assert_eq!(positions.len(), n);
            prop_assert!(positions.windows(2).all(|w| w[0] < w[1]) && positions.iter().all(|&p| p < bound));
        }
    }

    #[test]
    fn prop_tables_read_back_and_any_bytes_are_valid_or_refused(counts in prop::collection::vec(0u64..1 << 50, 256), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let counts: [u64; 256] = counts.try_into().unwrap();
        let table = Table::from_counts(&counts).unwrap();
        let sum: u32 = (0..=255).map(|s| table.frequency(s)).sum();
        prop_assert_eq!(sum, 4096);
        let mut written = Vec::new();
        table.write(&mut written);
        let (back, used) = Table::read(&written).unwrap();
        prop_assert!(back == table && used == written.len());
        if let Ok((table, used)) = Table::read(&bytes) {
            let mut again = Vec::new();
            table.write(&mut again);
            prop_assert_eq!(&again, &bytes[..used]);
        }
    }

    #[test]
    fn prop_positions_roundtrip(mut positions in prop::collection::btree_set(0u32..300_000, 0..400), extra in 1u32..1000) {
        let bound = positions.last().map_or(0, |p| p + extra);
        let list: Vec<u32> = std::mem::take(&mut positions).into_iter().collect();
        let mut coded = Vec::new();
        encode_positions(&list, bound, &mut coded).unwrap();
        let mut back = vec![5];
        decode_positions(&coded, bound, list.len(), &mut back).unwrap();
        prop_assert_eq!(back, list);
    }

    #[test]
    fn prop_tables_may_change_with_every_symbol(symbols in prop::collection::vec(0u8..4, 0..500)) {
        /// The table follows from the symbol before in the same lane, as with a trellis.
        struct Last([u8; LANES]);
        impl Context for Last {
            fn table(&self, i: usize) -> usize { usize::from(self.0[i % LANES] & 1) }
            fn update(&mut self, i: usize, symbol: u8) { self.0[i % LANES] = symbol; }
        }
        let counts = |a: [u64; 4]| std::array::from_fn(|s| a.get(s).copied().unwrap_or(0));
        let tables = [Table::from_counts(&counts([9, 3, 1, 1])).unwrap(), Table::from_counts(&counts([1, 1, 5, 9])).unwrap()];
        let which = |i: usize| if i < LANES { 0 } else { usize::from(symbols[i - LANES] & 1) };
        let mut coded = Vec::new();
        encode_run(&symbols, &[&tables[0], &tables[1]], which, &mut coded).unwrap();
        let mut back = vec![9; symbols.len()];
        decode_run(&coded, &[tables[0].decoder(), tables[1].decoder()], &mut Last([0; LANES]), &mut back).unwrap();
        prop_assert_eq!(back, symbols);
    }
}
