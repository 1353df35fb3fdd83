//! The entropy coder: tables, runs of symbols, positions.

use super::{Seeds, Target, class, magnitude, nothing};
use anyhow::Result;
use lsb_format::entropy::{
    SingleTable, Table, decode_positions, decode_run, decode_symbols, encode_positions, encode_run,
    encode_symbols,
};

/// 1 byte kind (0: symbols with their table inside, otherwise a table and a bare run), 2 bytes count, coded bytes.
pub(super) const RANS_TILE: Target =
    Target { name: "rans_tile", run: rans_tile, seeds: rans_seeds, repair: nothing };

fn rans_tile(data: &[u8]) -> String {
    let Some((&[kind, n0, n1], bytes)) = data.split_first_chunk::<3>() else { return "short".to_owned() };
    let mut out = vec![0; usize::from(u16::from_le_bytes([n0, n1]))];
    if kind == 0 {
        return match decode_symbols(bytes, &mut out) {
            Err(e) => class(&e),
            Ok(()) => {
                // Whatever decodes can be encoded, and comes back.
                let mut coded = Vec::new();
                encode_symbols(&out, &mut coded);
                let mut again = vec![0; out.len()];
                assert!(decode_symbols(&coded, &mut again).is_ok() && again == out);
                format!("ok symbols {} {}", bytes[0], magnitude(out.len()))
            }
        };
    }
    let (table, used) = match Table::read(bytes) {
        Err(e) => return class(&e),
        Ok(found) => found,
    };
    let mut again = Vec::new();
    table.write(&mut again);
    assert!(again == bytes[..used], "a table is not in its one form");
    match decode_run(&bytes[used..], &[table.decoder()], &mut SingleTable, &mut out) {
        Err(e) => class(&e),
        Ok(()) => {
            let mut coded = Vec::new();
            assert!(encode_run(&out, &[&table], |_| 0, &mut coded).is_ok());
            assert!(coded == bytes[used..], "a run has two forms");
            format!("ok run {}", magnitude(out.len()))
        }
    }
}

/// Symbols that look like exponents: a few common ones, rare large ones.
fn symbols(n: usize) -> Vec<u8> {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    (0..n).map(|_| (120 + (next() & 255).count_ones() as u8 * 2) ^ u8::from(next() % 97 == 0) << 7).collect()
}

fn rans_seeds() -> Result<Seeds> {
    let mut seeds = Seeds::new();
    for n in [0usize, 1, 31, 100, 1000] {
        let symbols = symbols(n);
        let mut bytes = vec![0];
        bytes.extend((n as u16).to_le_bytes());
        encode_symbols(&symbols, &mut bytes);
        seeds.push((format!("symbols-{n}"), bytes));
        let mut counts = [0u64; 256];
        symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
        if let Some(table) = Table::from_counts(&counts) {
            let mut bytes = vec![1];
            bytes.extend((n as u16).to_le_bytes());
            table.write(&mut bytes);
            encode_run(&symbols, &[&table], |_| 0, &mut bytes)?;
            seeds.push((format!("run-{n}"), bytes));
        }
    }
    Ok(seeds)
}

/// 4 bytes bound, 2 bytes count, coded bytes.
pub(super) const POSITIONS: Target =
    Target { name: "positions", run: positions, seeds: position_seeds, repair: nothing };

fn positions(data: &[u8]) -> String {
    let Some((&[b0, b1, b2, b3, n0, n1], bytes)) = data.split_first_chunk::<6>() else {
        return "short".to_owned();
    };
    let bound = u32::from_le_bytes([b0, b1, b2, b3]);
    let count = usize::from(u16::from_le_bytes([n0, n1]));
    let mut out = Vec::new();
    match decode_positions(bytes, bound, count, &mut out) {
        Err(e) => class(&e),
        Ok(()) => {
            assert_eq!(out.len(), count);
            assert!(out.windows(2).all(|w| w[0] < w[1]) && out.last().is_none_or(|&p| p < bound));
            let mut coded = Vec::new();
            assert!(encode_positions(&out, bound, &mut coded).is_ok());
            let mut again = Vec::new();
            assert!(decode_positions(&coded, bound, count, &mut again).is_ok() && again == out);
            format!("ok {}", magnitude(count))
        }
    }
}

fn position_seeds() -> Result<Seeds> {
    let mut seeds = Seeds::new();
    for (bound, count) in [(10u32, 0u32), (10, 10), (262_144, 300), (262_144, 2000), (u32::MAX, 3)] {
        let positions: Vec<u32> = (0..count)
            .map(|i| (u64::from(i) * u64::from(bound) / u64::from(count)) as u32 + i % 7 % (bound / count))
            .collect();
        let mut bytes = bound.to_le_bytes().to_vec();
        bytes.extend((count as u16).to_le_bytes());
        encode_positions(&positions, bound, &mut bytes)?;
        seeds.push((format!("{count}-of-{bound}"), bytes));
    }
    Ok(seeds)
}
