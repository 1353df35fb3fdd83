//! Bytes, with the table inside.
//!
//! Layout: `u8` kind. Kind 0: the symbols as they are. Kind 1: table, run of all symbols. Kind 2: symbol `e`
//! that stands for "escaped" (`u8`), table, table of the escaped symbols, their number (`u32`), length in
//! bytes of their run (`u32`), their run (one lane: there are few), run of all symbols with `e` in place of each escaped one.

use super::run::{SingleTable, decode_lanes, decode_run, encode_lanes, encode_run};
use super::table::{PRECISION, Table};
use crate::{Error, Result};

const STORED: u8 = 0;
const PLAIN: u8 = 1;
const ESCAPED: u8 = 2;

/// No coded form of `n` symbols is longer than this: the stored form.
pub fn symbols_len_bound(n: usize) -> usize {
    n + 1
}

/// Appends the coded form of `symbols`, whatever is shortest.
pub fn encode_symbols(symbols: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    if encode_tables(symbols, out).is_none() || out.len() - at > symbols.len() {
        out.truncate(at);
        out.push(STORED);
        out.extend_from_slice(symbols);
    }
}

/// `None` if there is nothing to code.
fn encode_tables(symbols: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let counts = count(symbols);
    if nearly_uniform(&counts, symbols.len() as u64) {
        return None;
    }
    match split_rare(&counts, symbols.len() as u64) {
        None => {
            let table = Table::from_counts(&counts)?;
            out.push(PLAIN);
            table.write(out);
            encode_run(symbols, &[&table], |_| 0, out).ok()
        }
        Some(Split { escape, main, rare }) => {
            let (table, rare_table) = (Table::from_counts(&main)?, Table::from_counts(&rare)?);
            let is_rare = |s: u8| rare[usize::from(s)] > 0;
            let escaped: Vec<u8> = symbols.iter().copied().filter(|&s| is_rare(s)).collect();
            let replaced: Vec<u8> = symbols.iter().map(|&s| if is_rare(s) { escape } else { s }).collect();
            out.extend_from_slice(&[ESCAPED, escape]);
            table.write(out);
            rare_table.write(out);
            let mut run = Vec::new();
            encode_lanes::<1>(&escaped, &[&rare_table], |_| 0, &mut run).ok()?;
            out.extend_from_slice(&(escaped.len() as u32).to_le_bytes());
            out.extend_from_slice(&(run.len() as u32).to_le_bytes());
            out.extend_from_slice(&run);
            encode_run(&replaced, &[&table], |_| 0, out).ok()
        }
    }
}

fn count(symbols: &[u8]) -> [u64; 256] {
    // Four histograms, so that runs of one symbol do not wait for their own counter.
    let mut parts = [[0u32; 256]; 4];
    let (chunks, rest) = symbols.as_chunks::<4>();
    for chunk in chunks {
        for (part, &s) in parts.iter_mut().zip(chunk) {
            part[usize::from(s)] += 1;
        }
    }
    for &s in rest {
        parts[0][usize::from(s)] += 1;
    }
    std::array::from_fn(|s| parts.iter().map(|p| u64::from(p[s])).sum())
}

/// True where coding could save no more than about a thousandth: the chance that two symbols are equal is
/// within 1 % of 1/256.
fn nearly_uniform(counts: &[u64; 256], n: u64) -> bool {
    let squares: u128 = counts.iter().map(|&c| u128::from(c) * u128::from(c)).sum();
    squares * 256 * 100 <= u128::from(n) * u128::from(n) * 101
}

struct Split {
    escape: u8,
    main: [u64; 256],
    rare: [u64; 256],
}

/// Separates the symbols whose share is below half a step of the table: kept there, each would take a whole
/// step away from the others. One alone is not worth a second table.
fn split_rare(counts: &[u64; 256], n: u64) -> Option<Split> {
    let is_rare = |c: u64| c > 0 && (c << (PRECISION + 1)) < n;
    let rare: [u64; 256] = counts.map(|c| if is_rare(c) { c } else { 0 });
    if rare.iter().filter(|&&c| c > 0).count() < 4 {
        return None;
    }
    let mut main: [u64; 256] = std::array::from_fn(|s| counts[s] - rare[s]);
    // Any rare symbol's own value is free in the main table.
    let escape = rare.iter().position(|&c| c > 0)?;
    main[escape] = rare.iter().sum();
    Some(Split { escape: escape as u8, main, rare })
}

/// Decodes `out.len()` symbols from all of `bytes`.
///
/// # Errors
/// If the bytes are not what [`encode_symbols`] writes for that many symbols.
pub fn decode_symbols(bytes: &[u8], out: &mut [u8]) -> Result<()> {
    let bad = |what: &str| Error::corruption("E3", format!("coded symbols: {what}"));
    let (&kind, rest) = bytes.split_first().ok_or_else(|| bad("empty"))?;
    match kind {
        STORED if rest.len() == out.len() => {
            out.copy_from_slice(rest);
            Ok(())
        }
        STORED => Err(bad("wrong length")),
        PLAIN => {
            let (table, used) = Table::read(rest)?;
            decode_run(&rest[used..], &[table.decoder()], &mut SingleTable, out)
        }
        ESCAPED => {
            let (&escape, rest) = rest.split_first().ok_or_else(|| bad("cut short"))?;
            let (table, used) = Table::read(rest)?;
            let rest = &rest[used..];
            let (rare_table, used) = Table::read(rest)?;
            let (n, rest) = take_u32(&rest[used..]).ok_or_else(|| bad("cut short"))?;
            let (len, rest) = take_u32(rest).ok_or_else(|| bad("cut short"))?;
            let (run, rest) = rest.split_at_checked(len as usize).ok_or_else(|| bad("cut short"))?;
            if n as usize > out.len() {
                return Err(bad("more escaped symbols than symbols"));
            }
            let mut escaped = vec![0; n as usize];
            decode_lanes::<1>(run, &[rare_table.decoder()], &mut SingleTable, &mut escaped)?;
            decode_run(rest, &[table.decoder()], &mut SingleTable, out)?;
            let mut next = escaped.into_iter();
            for s in out.iter_mut().filter(|s| **s == escape) {
                *s = next.next().ok_or_else(|| bad("too few escaped symbols"))?;
            }
            if next.next().is_some() {
                return Err(bad("too many escaped symbols"));
            }
            Ok(())
        }
        _ => Err(bad("unknown kind")),
    }
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*head), rest))
}
