//! What the entropy coder promises: identity, size, and no harm from any bytes.

use super::*;
use crate::ErrorKind;
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

/// Decodes as a vector machine would: 32 slots at once, then one word for every lane that needs one, in lane order.
fn decode_by_steps(coded: &[u8], table: &Table, n: usize) -> Vec<u8> {
    let decoder = table.decoder();
    let word = |at: usize| u32::from(u16::from_le_bytes([coded[at], coded[at + 1]]));
    let mut states: Vec<u32> = (0..n.min(LANES)).map(|l| word(4 * l) | word(4 * l + 2) << 16).collect();
    let mut at = 4 * states.len();
    let mut out = Vec::new();
    while out.len() < n {
        let lanes = (n - out.len()).min(LANES);
        for state in &mut states[..lanes] {
            let (symbol, next) = decoder.step(*state);
            out.push(symbol);
            *state = next;
        }
        for state in states[..lanes].iter_mut().filter(|s| **s < LOW) {
            *state = *state << 16 | word(at);
            at += 2;
        }
    }
    assert_eq!(at, coded.len());
    out
}

#[test]
fn words_come_in_the_order_of_a_vector_decoder() {
    for n in [1, 31, 32, 33, 5000] {
        let symbols = draw(21, n, &[0.5, 0.2, 0.2, 0.05, 0.05]);
        let mut counts = [0; 256];
        symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
        let table = Table::from_counts(&counts).unwrap();
        let mut coded = Vec::new();
        encode_run(&symbols, &[&table], |_| 0, &mut coded).unwrap();
        assert!(decode_by_steps(&coded, &table, n) == symbols);
    }
}

/// The frequencies that [`Table::from_counts`] promises, by whole numbers only.
fn frequencies(counts: &[u64]) -> Vec<u32> {
    let sum: u64 = counts.iter().sum();
    let floor = |&c: &u64| if c == 0 { 0 } else { ((c << PRECISION) / sum).max(1) as u32 };
    let mut freq: Vec<u32> = counts.iter().map(floor).collect();
    let total = |freq: &[u32]| freq.iter().sum::<u32>();
    let used = |s: &usize| counts[*s] > 0;
    let product = |a: u64, b: u32| u128::from(a) * u128::from(b);
    while total(&freq) < 1 << PRECISION {
        let gains_more = |&a: &usize, &b: &usize| {
            product(counts[a], 2 * freq[b] + 1).cmp(&product(counts[b], 2 * freq[a] + 1)).then(b.cmp(&a))
        };
        let best = (0..counts.len()).filter(used).max_by(gains_more).unwrap();
        freq[best] += 1;
    }
    while total(&freq) > 1 << PRECISION {
        let loses_more = |&a: &usize, &b: &usize| {
            product(counts[a], 2 * freq[b] - 1).cmp(&product(counts[b], 2 * freq[a] - 1)).then(a.cmp(&b))
        };
        let best = (0..counts.len()).filter(|&s| freq[s] > 1).min_by(loses_more).unwrap();
        freq[best] -= 1;
    }
    freq
}

proptest! {
    #[test]
    fn prop_frequencies_are_those_of_whole_numbers(
        counts in prop::collection::vec(
            prop_oneof![Just(0u64), 1u64..3, 1u64..2000, (0u32..32).prop_map(|b| 1u64 << b), 1u64..1 << 32],
            1..=256,
        ),
        same in any::<bool>(),
    ) {
        let counts: Vec<u64> = counts.iter().map(|&c| if same { c.min(1) * 77 } else { c }).collect();
        let mut all = [0; 256];
        all[..counts.len()].copy_from_slice(&counts);
        match Table::from_counts(&all) {
            None => prop_assert!(counts.iter().all(|&c| c == 0)),
            Some(table) => {
                for (s, f) in frequencies(&counts).into_iter().enumerate() {
                    prop_assert_eq!(table.frequency(s as u8), f, "symbol {}", s);
                }
                let plain = table.decoder();
                for (at, &slot) in plain.slots().iter().enumerate() {
                    let symbol = (slot >> 24) as u8;
                    prop_assert_eq!((slot & 0xfff) + 1, table.frequency(symbol));
                    prop_assert_eq!(table.start(symbol) + (slot >> 12 & 0xfff), at as u32);
                }
                let mut alphabet = Alphabet::default();
                // What was there before leaves nothing behind.
                prop_assert!(alphabet.set((0..=u8::MAX).zip([1; 256])));
                let mut dirty = BucketTable::default();
                alphabet.buckets_into(&mut dirty);
                prop_assert!(alphabet.set((0..=u8::MAX).zip(counts.iter().copied())));
                alphabet.buckets_into(&mut dirty);
                prop_assert_eq!(&alphabet.table(), &table);
                for state in (0..1 << PRECISION).map(|slot| slot | 0x1234 << PRECISION) {
                    prop_assert_eq!(dirty.step(state, || &alphabet), plain.step(state), "{:#x}", state);
                }
            }
        }
    }
}

/// The bytes of version 1. A change here is a change of the format.
#[test]
fn v1_run() {
    let symbols: Vec<u8> = (0..40u32).map(|i| (i * i % 7 % 3) as u8).collect();
    let mut coded = Vec::new();
    encode_symbols(&symbols, &mut coded);
    assert_eq!(coded[0], 0, "too short to be worth a table");
    let counts = std::array::from_fn(|s| [20, 15, 5].get(s).copied().unwrap_or(0));
    let table = Table::from_counts(&counts).unwrap();
    let mut written = Vec::new();
    table.write(&mut written);
    assert_eq!(written, V1_TABLE);
    coded.clear();
    encode_run(&symbols, &[&table], |_| 0, &mut coded).unwrap();
    assert_eq!((coded.len(), crc32c::crc32c(&coded)), V1_RUN);
    let positions: Vec<u32> = (0..200).map(|i| i * i / 2 + i).collect();
    coded.clear();
    encode_positions(&positions, 30_000, &mut coded).unwrap();
    assert_eq!((coded.len(), crc32c::crc32c(&coded)), V1_POSITIONS);
}

const V1_TABLE: [u8; 6] = [0, 2, 128, 16, 128, 12];
const V1_RUN: (usize, u32) = (128, 1078348374);
const V1_POSITIONS: (usize, u32) = (312, 4173060353);

#[test]
fn symbols_a_table_does_not_hold_are_refused_and_nothing_is_appended() {
    let table = Table::from_counts(&std::array::from_fn(|s| u64::from(s == 7))).unwrap();
    let mut out = vec![1, 2];
    assert_eq!(
        encode_run(&[7, 7, 8], &[&table], |_| 0, &mut out).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(out, [1, 2]);
    encode_run(&[7; 100_000], &[&table], |_| 0, &mut out).unwrap();
    assert_eq!(out.len(), 2 + 4 * LANES, "a lone symbol costs nothing");
}

#[test]
fn damage_to_a_run_is_named() {
    let symbols = draw(5, 3000, &[0.6, 0.3, 0.1]);
    let table = Table::from_counts(&std::array::from_fn(|s| [6, 3, 1].get(s).copied().unwrap_or(0))).unwrap();
    let mut coded = Vec::new();
    encode_run(&symbols, &[&table], |_| 0, &mut coded).unwrap();
    let decode = |bytes: &[u8], n: usize| {
        let e = decode_run(bytes, &[table.decoder()], &mut SingleTable, &mut vec![0; n]).unwrap_err();
        assert_eq!((e.rule(), e.kind()), ("P51", ErrorKind::Corruption));
        e.message().to_owned()
    };
    assert!(decode(&coded[..60], 3000).contains("states of 32 lanes"));
    assert!(decode(&coded[..coded.len() - 1], 3000).contains("half a word"));
    assert!(decode(&coded[..coded.len() - 2], 3000).contains("no word left"));
    assert!(decode(&[&coded[..], &[0, 0]].concat(), 3000).contains("1 words left over"));
    assert!(decode(&coded, 3001).contains("no word left") || decode(&coded, 3001).contains("ends in state"));
    let mut zero = coded.clone();
    zero[4..8].fill(0);
    assert!(decode(&zero, 3000).contains("lane 1 starts in state 0x0"));
    let mut other = coded.clone();
    other[0] ^= 1;
    let message = decode(&other, 3000);
    assert!(["no word left", "left over", "ends in state"].iter().any(|m| message.contains(m)), "{message}");
}

#[test]
fn symbols_that_would_hardly_shrink_are_stored_where_that_was_asked_for() {
    // About 7.96 of 8 bits.
    let symbols = draw(9, 1 << 18, &(0..256).map(|s| 1.0 + 1.5 * f64::from(s) / 256.0).collect::<Vec<_>>());
    let coded = |thousandths| {
        let mut out = Vec::new();
        encode_symbols_saving(&symbols, thousandths, &mut out);
        let mut back = vec![0; symbols.len()];
        decode_symbols(&out, &mut back).unwrap();
        assert!(back == symbols);
        out.len()
    };
    assert!(coded(0) < symbols.len());
    assert_eq!(coded(20), symbols.len() + 1);
}

#[test]
fn every_change_of_a_byte_of_positions_is_survived() {
    let positions: Vec<u32> = (0..60).map(|i| i * 37 + i % 5).collect();
    for bound in [2500, 1 << 20] {
        let mut coded = Vec::new();
        encode_positions(&positions, bound, &mut coded).unwrap();
        let mut out = Vec::new();
        for at in 0..coded.len() {
            assert!(decode_positions(&coded[..at], bound, 60, &mut out).is_err());
            for change in 1..=255 {
                let mut damaged = coded.clone();
                damaged[at] ^= change;
                if decode_positions(&damaged, bound, 60, &mut out).is_ok() {
                    assert!(out.len() == 60 && out.windows(2).all(|w| w[0] < w[1]) && out[59] < bound);
                }
            }
        }
        for count in [0, 59, 61, usize::MAX] {
            assert!(decode_positions(&coded, bound, count, &mut out).is_err());
        }
    }
    assert!(encode_positions(&[3, 3], 9, &mut Vec::new()).is_err());
    assert!(encode_positions(&[3, 9], 9, &mut Vec::new()).is_err());
}

#[test]
fn clustered_and_dense_positions_cost_less_than_random_ones() {
    let cost = |positions: &[u32], bound| {
        let mut coded = Vec::new();
        encode_positions(positions, bound, &mut coded).unwrap();
        let mut back = Vec::new();
        decode_positions(&coded, bound, positions.len(), &mut back).unwrap();
        assert!(back == positions);
        coded.len()
    };
    let bound = 1 << 18;
    let all: Vec<u32> = (0..bound).collect();
    assert!(cost(&all, bound) < 500);
    let column: Vec<u32> = (0..bound).step_by(64).collect();
    assert!(cost(&column, bound) < 800, "{}", cost(&column, bound));
    let block: Vec<u32> = (1000..6000).collect();
    // One raw bit each: how many there are follows from the mean gap.
    assert!(cost(&block, bound) < 800);
    assert_eq!(cost(&[], bound), 0);
    assert!(cost(&[77], bound) <= 4);
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
    fn prop_sparse_tables_read_back(used in prop::collection::btree_map(any::<u8>(), 1u64..1000, 1..20)) {
        let table = Table::from_counts(&std::array::from_fn(|s| used.get(&(s as u8)).copied().unwrap_or(0))).unwrap();
        let mut written = Vec::new();
        table.write(&mut written);
        prop_assert!(written.len() <= 2 + 4 * used.len());
        prop_assert!(Table::read(&written).unwrap() == (table, written.len()));
        for len in 0..written.len() {
            prop_assert_eq!(Table::read(&written[..len]).unwrap_err().rule(), "P50");
        }
        // Any small change is refused or is another table in its one shortest form.
        for at in 0..written.len() {
            let mut damaged = written.clone();
            damaged[at] ^= 1 << (at % 8);
            if let Ok((other, n)) = Table::read(&damaged) {
                let mut again = Vec::new();
                other.write(&mut again);
                prop_assert_eq!(&again, &damaged[..n]);
            }
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
