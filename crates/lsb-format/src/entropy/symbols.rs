//! Bytes, with the table inside.
//!
//! Layout: `u8` kind. Kind 0: the symbols as they are. Kind 1: table, run of all symbols. Kind 2: symbol `e`
//! that stands for "escaped" (`u8`), table, table of the escaped symbols, their number (`u32`), length in
//! bytes of their run (`u32`), their run (one lane: there are few), run of all symbols with `e` in place of each escaped one.

use super::LANES;
use super::decode::{RunDecoder, SingleTable, decode_lanes};
use super::encode::{EncodeTable, encode_lanes};
use super::table::{DecodeTable, PRECISION, Table};
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
    encode_symbols_saving(symbols, 2, out);
}

/// As [`encode_symbols`], but stores symbols from which coding would take less than `thousandths` of their
/// bytes: decoding them is then a copy. Where coding would take a little more, they may be stored too.
pub fn encode_symbols_saving(symbols: &[u8], thousandths: u32, out: &mut Vec<u8>) {
    let at = out.len();
    if encode_tables(symbols, thousandths, out).is_none() || out.len() - at > symbols.len() {
        out.truncate(at);
        out.push(STORED);
        out.extend_from_slice(symbols);
    }
}

/// `None` if there is nothing to code.
fn encode_tables(symbols: &[u8], thousandths: u32, out: &mut Vec<u8>) -> Option<()> {
    let counts = count_symbols(symbols);
    if saves_less(&counts, symbols.len() as u64, thousandths) {
        return None;
    }
    match split_rare(&counts, symbols.len() as u64) {
        None => {
            let table = Table::from_counts(&counts)?;
            out.push(PLAIN);
            table.write(out);
            encode_lanes::<LANES>(symbols, &[EncodeTable::new(&table)], |_| 0, out).ok()
        }
        Some(Split { escape, main, rare }) => {
            let (table, rare_table) = (Table::from_counts(&main)?, Table::from_counts(&rare)?);
            out.extend_from_slice(&[ESCAPED, escape]);
            table.write(out);
            rare_table.write(out);
            let escaped = select(symbols, &rare);
            let mut run = Vec::new();
            encode_lanes::<1>(&escaped, &[EncodeTable::new(&rare_table)], |_| 0, &mut run).ok()?;
            out.extend_from_slice(&(escaped.len() as u32).to_le_bytes());
            out.extend_from_slice(&(run.len() as u32).to_le_bytes());
            out.extend_from_slice(&run);
            let mut table = EncodeTable::new(&table);
            (0..=255u8).filter(|&s| rare[usize::from(s)] > 0).for_each(|s| table.alias(s, escape));
            encode_lanes::<LANES>(symbols, &[table], |_| 0, out).ok()
        }
    }
}

/// The rare ones among `symbols`, in order.
fn select(symbols: &[u8], rare: &[u64; 256]) -> Vec<u8> {
    let is_rare: [bool; 256] = std::array::from_fn(|s| rare[s] > 0);
    let mut out = Vec::with_capacity(rare.iter().sum::<u64>() as usize);
    let chunks = symbols.chunks(LANES);
    // Most chunks hold none: one test for all.
    for chunk in chunks.filter(|chunk| chunk.iter().fold(false, |any, &s| any | is_rare[usize::from(s)])) {
        out.extend(chunk.iter().filter(|&&s| is_rare[usize::from(s)]));
    }
    out
}

pub(super) fn count_symbols(symbols: &[u8]) -> [u64; 256] {
    // Eight histograms, so that runs of one symbol do not wait for their own counter.
    let mut parts = [[0u32; 256]; 8];
    let (chunks, rest) = symbols.as_chunks::<8>();
    for chunk in chunks {
        let mut bytes = u64::from_le_bytes(*chunk);
        for part in &mut parts {
            part[usize::from(bytes as u8)] += 1;
            bytes >>= 8;
        }
    }
    for &s in rest {
        parts[0][usize::from(s)] += 1;
    }
    std::array::from_fn(|s| parts.iter().map(|p| u64::from(p[s])).sum())
}

/// True where coding cannot save that share of the bytes: from the chance that two symbols are equal follows
/// the least entropy they can have (Rényi).
fn saves_less(counts: &[u64; 256], n: u64, thousandths: u32) -> bool {
    let squares: u128 = counts.iter().map(|&c| u128::from(c) * u128::from(c)).sum();
    // The entropy is at least -log2(squares / n²) bits. 8 bits less 8 t / 1000 is that of a chance of
    // 2^(8 t / 1000) / 256, and 2^x >= 1 + x ln 2.
    squares * 256 * 1_000_000 <= u128::from(n) * u128::from(n) * (1_000_000 + 5_545 * u128::from(thousandths))
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
    decode_symbols_with(bytes, out, |_, _, _| 0)
}

/// As [`decode_symbols`]. `head` may decode the first symbols of the run of all symbols, whole steps of [`LANES`], as
/// [`RunDecoder::decode`] would, and says how many it did.
///
/// # Errors
/// As [`decode_symbols`].
///
/// # Panics
/// If `head` says more than there are.
pub fn decode_symbols_with(
    bytes: &[u8],
    out: &mut [u8],
    head: impl FnOnce(&mut RunDecoder<'_>, &DecodeTable, &mut [u8]) -> usize,
) -> Result<()> {
    let decode_all = |bytes: &[u8], table: &Table, out: &mut [u8]| {
        let mut run = RunDecoder::new(bytes, out.len())?;
        let table = table.decoder();
        let done = head(&mut run, &table, out);
        run.decode(std::slice::from_ref(&table), &mut SingleTable, done, &mut out[done..])?;
        run.finish()
    };
    let bad = |what: &str| Error::corruption("P52", format!("coded symbols: {what}"));
    let (&kind, rest) = bytes.split_first().ok_or_else(|| bad("empty"))?;
    match kind {
        STORED if rest.len() == out.len() => {
            out.copy_from_slice(rest);
            Ok(())
        }
        STORED => Err(bad("wrong length")),
        PLAIN => {
            let (table, used) = Table::read(rest)?;
            decode_all(&rest[used..], &table, out)
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
            decode_all(rest, &table, out)?;
            let mut next = escaped.into_iter();
            // Most chunks hold none: one test for all.
            let chunks = out.chunks_mut(LANES);
            for chunk in chunks.filter(|c| c.iter().fold(false, |any, &s| any | (s == escape))) {
                for s in chunk.iter_mut().filter(|s| **s == escape) {
                    *s = next.next().ok_or_else(|| bad("too few escaped symbols"))?;
                }
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
