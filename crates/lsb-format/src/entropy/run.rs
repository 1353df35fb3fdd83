//! Coding a run of symbols with tables chosen symbol by symbol.

use super::{DecodeTable, LANES, LOW, PRECISION, Table};
use crate::{Error, Result};

/// Chooses the table of each symbol, in decoding order.
pub trait Context {
    /// Which table codes symbol `i`.
    fn table(&self, i: usize) -> usize;

    /// Symbol `i` is known now.
    fn update(&mut self, i: usize, symbol: u8);
}

/// One table for all symbols.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleTable;

impl Context for SingleTable {
    #[inline(always)]
    fn table(&self, _i: usize) -> usize {
        0
    }

    #[inline(always)]
    fn update(&mut self, _i: usize, _symbol: u8) {}
}

/// Division by a fixed divisor as multiplication, exact for all 31-bit dividends.
#[derive(Clone, Copy, Default)]
struct Divisor {
    freq: u32,
    start: u32,
    multiplier: u64,
}

impl Divisor {
    fn new(freq: u32, start: u32) -> Self {
        // ceil(2^43 / f): with f <= 2^12 the error is below f * 2^31 / 2^43 <= 1, too small to reach the
        // next quotient (Granlund and Montgomery, 1994).
        Divisor { freq, start, multiplier: (1u64 << 43).div_ceil(u64::from(freq.max(1))) }
    }

    #[inline(always)]
    fn push(&self, state: u32) -> u32 {
        // The state is below freq << 19 here, so the product stays below 2^63.
        let quotient = ((u64::from(state) * self.multiplier) >> 43) as u32;
        (quotient << PRECISION) + (state - quotient * self.freq) + self.start
    }
}

/// Appends the coded form of `symbols` in 32 lanes, symbol `i` with table `tables[which(i)]`: the states of the first
/// `min(32, n)` lanes as `u32`, then the words as `u16`, little-endian.
///
/// # Errors
/// If a symbol has frequency 0 in its table.
pub fn encode_run(
    symbols: &[u8],
    tables: &[&Table],
    which: impl Fn(usize) -> usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    encode_lanes::<LANES>(symbols, tables, which, out)
}

/// As [`encode_run`], in `N` lanes.
pub(super) fn encode_lanes<const N: usize>(
    symbols: &[u8],
    tables: &[&Table],
    which: impl Fn(usize) -> usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let divisors: Vec<[Divisor; 256]> = tables
        .iter()
        .map(|t| std::array::from_fn(|s| Divisor::new(t.frequency(s as u8), t.start(s as u8))))
        .collect();
    let lanes = symbols.len().min(N);
    let mut states = [LOW; N];
    // The decoder reads words forward; encoding runs backward, so they are collected in reverse.
    let mut words: Vec<u16> = Vec::with_capacity(symbols.len() / 4);
    for (i, &symbol) in symbols.iter().enumerate().rev() {
        let divisor = &divisors[which(i)][usize::from(symbol)];
        if divisor.freq == 0 {
            return Err(Error::argument(format!("symbol {symbol} has frequency 0")));
        }
        let state = &mut states[i % N];
        // A state at or above freq << 19 would leave the interval.
        if *state >> (31 - PRECISION) >= divisor.freq {
            words.push(*state as u16);
            *state >>= 16;
        }
        *state = divisor.push(*state);
    }
    out.reserve(4 * lanes + 2 * words.len());
    states[..lanes].iter().for_each(|s| out.extend_from_slice(&s.to_le_bytes()));
    words.iter().rev().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
    Ok(())
}

/// Decodes `out.len()` symbols from all of `bytes`.
///
/// # Errors
/// If the bytes are too short or too long, a state is out of range, or a lane does not end where encoding
/// started.
///
/// # Panics
/// If `context` names a table that is not there.
pub fn decode_run(
    bytes: &[u8],
    tables: &[DecodeTable],
    context: &mut impl Context,
    out: &mut [u8],
) -> Result<()> {
    decode_lanes::<LANES>(bytes, tables, context, out)
}

/// As [`decode_run`], in `N` lanes.
pub(super) fn decode_lanes<const N: usize>(
    bytes: &[u8],
    tables: &[DecodeTable],
    context: &mut impl Context,
    out: &mut [u8],
) -> Result<()> {
    let bad = |what: &str| Error::corruption("E2", format!("entropy-coded run: {what}"));
    let lanes = out.len().min(N);
    let (head, words) = bytes.split_at_checked(4 * lanes).ok_or_else(|| bad("cut short"))?;
    let (words, rest) = words.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(bad("half a word at the end"));
    }
    let mut states = [LOW; N];
    for (state, bytes) in states.iter_mut().zip(head.as_chunks::<4>().0) {
        *state = u32::from_le_bytes(*bytes);
        if !(LOW..LOW << 16).contains(state) {
            return Err(bad("a state out of range"));
        }
    }
    let mut next = 0;
    for (i, symbol) in out.iter_mut().enumerate() {
        let state = &mut states[i % N];
        let (s, x) = tables[context.table(i)].step(*state);
        *symbol = s;
        context.update(i, s);
        *state = if x < LOW {
            let word = words.get(next).ok_or_else(|| bad("cut short"))?;
            next += 1;
            x << 16 | u32::from(u16::from_le_bytes(*word))
        } else {
            x
        };
    }
    if next != words.len() {
        return Err(bad("words left over"));
    }
    if states[..lanes].iter().any(|&s| s != LOW) {
        return Err(bad("a lane ends in the wrong state"));
    }
    Ok(())
}
