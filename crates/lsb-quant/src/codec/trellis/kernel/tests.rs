//! Every kernel against the scalar one.

use super::*;
use crate::codec::trellis::machine::{Machine, STATES};
use crate::codec::trellis::shape::{NULL_SYMBOL, set_to_null};
use lsb_format::entropy::{Table, encode_run};
use proptest::prelude::*;

/// A coded tile: what each row and column adds to classes, tables, and the run.
struct Coded {
    rows: Vec<i16>,
    cols: Vec<[i16; LANES]>,
    tables: Vec<BucketTable>,
    alphabets: Vec<Alphabet>,
    bytes: Vec<u8>,
}

/// A tile of random symbols whose last `missing` columns are missing.
fn coded(machine: Machine, [rows, groups, classes, missing]: [usize; 4], restarts: bool, seed: u64) -> Coded {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u32
    };
    let mut alphabets: Vec<Alphabet> = (0..2 * classes)
        .map(|t| {
            let mut counts = [0; 256];
            // A few levels, now and then escapes.
            counts[120..136].iter_mut().for_each(|c| *c = u64::from(random() % 1000));
            counts[0] = u64::from(random() % 7);
            counts[1] = u64::from(t % 3 == 0);
            counts[128] += 1;
            let mut alphabet = Alphabet::default();
            assert!(alphabet.set((0..=u8::MAX).zip(counts)));
            alphabet
        })
        .collect();
    alphabets.resize_with(2 * classes + 2, || {
        let mut null = Alphabet::default();
        set_to_null(&mut null);
        null
    });
    let tables: Vec<Table> = alphabets.iter().map(Alphabet::table).collect();
    // Sums below 0 and above the last class too.
    let mut term = || (random() % (classes as u32 + 3)) as i16 - 2;
    let row_terms: Vec<i16> = (0..rows).map(|_| term()).collect();
    let mut cols: Vec<[i16; LANES]> = (0..groups).map(|_| std::array::from_fn(|_| term())).collect();
    cols.as_flattened_mut().iter_mut().rev().take(missing).for_each(|c| *c = MISSING);
    let (mut states, mut symbols, mut which) = ([0u8; LANES], Vec::new(), Vec::new());
    for cols in &cols {
        if restarts {
            states = [0; LANES];
        }
        for row in &row_terms {
            for (&col, state) in cols.iter().zip(&mut states) {
                let there = col != MISSING;
                let class = if there { (row + col).clamp(0, classes as i16 - 1) as usize } else { classes };
                let table = 2 * class + machine.set(*state);
                let mut symbol = if there { (random() % 256) as u8 } else { NULL_SYMBOL };
                while tables[table].frequency(symbol) == 0 {
                    symbol = symbol.wrapping_add(1);
                }
                symbols.push(symbol);
                which.push(table);
                *state = machine.next(*state, symbol & 1);
            }
        }
    }
    let mut bytes = Vec::new();
    encode_run(&symbols, &tables.iter().collect::<Vec<_>>(), |i| which[i], &mut bytes).unwrap();
    let mut buckets = vec![BucketTable::default(); alphabets.len()];
    alphabets.iter().zip(&mut buckets).for_each(|(alphabet, out)| alphabet.buckets_into(out));
    Coded { rows: row_terms, cols, tables: buckets, alphabets, bytes }
}

type Outcome = std::result::Result<(Vec<[i16; LANES]>, Vec<Escape>), String>;

/// All levels of a few tiles, decoded together as far as that goes.
fn outcome(tiles: &[Coded], machine: Machine, restarts: bool, isa: Isa) -> Vec<Outcome> {
    let mut buffers: Vec<(Vec<[i16; LANES]>, Vec<Escape>)> =
        tiles.iter().map(|_| Default::default()).collect();
    let streams = tiles.iter().zip(&mut buffers).map(|(tile, (levels, escapes))| {
        let code = Code {
            taps: machine.taps(),
            rows: &tile.rows,
            cols: &tile.cols,
            tables: &tile.tables,
            alphabets: &tile.alphabets,
            restarts,
        };
        Stream::new(&tile.bytes, code, levels, escapes)
    });
    let text = |e: lsb_format::Error| e.to_string();
    let mut streams: Vec<Stream<'_>> = match streams.collect::<Result<_>>() {
        Ok(streams) => streams,
        Err(e) => return vec![Err(text(e))],
    };
    let mut levels = vec![Vec::new(); tiles.len()];
    if let [a, b] = &mut *streams {
        while a.left().min(b.left()) > 0 {
            if let Err(e) = next_groups(a, b, isa) {
                return vec![Err(text(e))];
            }
            levels[0].extend_from_slice(a.levels);
            levels[1].extend_from_slice(b.levels);
        }
    }
    let rest = streams.into_iter().zip(levels).map(|(mut stream, mut levels)| {
        while stream.left() > 0 {
            next_group(&mut stream, isa).map_err(text)?;
            levels.extend_from_slice(stream.levels);
        }
        Ok((levels, stream.finish().map_err(text)?.to_vec()))
    });
    rest.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 24 } else { 200 }))]

    #[test]
    fn prop_kernels_equal_the_scalar_one(
        states in prop::sample::select(STATES.as_slice()),
        rows in 1usize..200,
        groups in prop::array::uniform2(1usize..4),
        pair in any::<bool>(),
        classes in 1usize..33,
        missing in 0usize..32,
        restarts in any::<bool>(),
        seed in any::<u64>(),
        damage in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let machine = Machine::new(states).unwrap();
        let tile = |i: usize| coded(machine, [rows, groups[i], classes, missing], restarts, seed ^ i as u64);
        let mut tiles: Vec<Coded> = (0..1 + usize::from(pair)).map(tile).collect();
        if let Some(at) = damage {
            let bytes = &mut tiles[usize::from(pair)].bytes;
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << (seed % 8);
        }
        let expected = outcome(&tiles, machine, restarts, Isa::Scalar);
        prop_assert!(damage.is_some() || expected.iter().all(|o| o.is_ok()));
        if pair {
            // Together is as alone, as far as both are whole.
            let alone = outcome(&tiles[..1], machine, restarts, Isa::Scalar);
            prop_assert!(expected.len() < 2 || expected[0] == alone[0]);
        }
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            prop_assert_eq!(&outcome(&tiles, machine, restarts, isa), &expected, "{}", isa.name());
        }
    }
}
