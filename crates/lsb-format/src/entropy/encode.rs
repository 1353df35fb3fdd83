//! Symbols to a run: 32 lanes, tables chosen symbol by symbol.

use super::{LANES, LOW, PRECISION, Table};
use crate::{Error, Result};

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
        // quotient * 2^12 + state - quotient * freq + start, with one multiplication.
        state.wrapping_add(self.start).wrapping_add(quotient.wrapping_mul((1 << PRECISION) - self.freq))
    }
}

/// What the encoder needs to know of each symbol of a table.
pub(super) struct EncodeTable([Divisor; 256]);

impl EncodeTable {
    pub(super) fn new(table: &Table) -> Self {
        EncodeTable(std::array::from_fn(|s| Divisor::new(table.frequency(s as u8), table.start(s as u8))))
    }

    /// Codes `symbol` as if it were `other`.
    pub(super) fn alias(&mut self, symbol: u8, other: u8) {
        self.0[usize::from(symbol)] = self.0[usize::from(other)];
    }
}

/// Appends the coded form of `symbols` in 32 lanes, symbol `i` with table `tables[which(i)]`: the states of the
/// first `min(32, n)` lanes as `u32`, then the words as `u16`, little-endian.
///
/// `which` is asked from the last symbol to the first.
///
/// # Errors
/// If a symbol has frequency 0 in its table; what was appended is then taken back.
///
/// # Panics
/// If `which` names a table that is not there.
pub fn encode_run(
    symbols: &[u8],
    tables: &[&Table],
    which: impl Fn(usize) -> usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let tables: Vec<EncodeTable> = tables.iter().map(|t| EncodeTable::new(t)).collect();
    encode_lanes::<LANES>(symbols, &tables, which, out)
}

/// As [`encode_run`], in `N` lanes, a power of two.
pub(super) fn encode_lanes<const N: usize>(
    symbols: &[u8],
    tables: &[EncodeTable],
    which: impl Fn(usize) -> usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let mut states = [LOW; N];
    // The decoder reads words forward; encoding runs backward, so they are collected in reverse.
    let mut words: Vec<[u8; 2]> = Vec::with_capacity(symbols.len() / 4 + N);
    let mut uncodable = false;
    let (steps, rest) = symbols.as_chunks::<N>();

    let mut step = |base: usize, symbols: &[u8]| {
        // Words of the step are written whether they count or not: a branch here would be guessed wrong at
        // every fourth symbol or so.
        let (mut fresh, mut n) = ([[0; 2]; N], 0);
        for (lane, &symbol) in symbols.iter().enumerate().rev() {
            let divisor = &tables[which(base + lane)].0[usize::from(symbol)];
            uncodable |= divisor.freq == 0;
            let state = states[lane];
            // A state at or above freq << 19 would leave the interval.
            let full = state >> (31 - PRECISION) >= divisor.freq;
            fresh[n % N] = (state as u16).to_le_bytes();
            n += usize::from(full);
            states[lane] = divisor.push(if full { state >> 16 } else { state });
        }
        words.extend_from_slice(&fresh[..n]);
    };
    step(steps.len() * N, rest);
    for (i, symbols) in steps.iter().enumerate().rev() {
        step(i * N, symbols);
    }
    if uncodable {
        return Err(Error::argument("a symbol has frequency 0 in its table"));
    }
    let lanes = symbols.len().min(N);
    out.reserve(4 * lanes + 2 * words.len());
    states[..lanes].iter().for_each(|s| out.extend_from_slice(&s.to_le_bytes()));
    words.reverse();
    out.extend_from_slice(words.as_flattened());
    Ok(())
}
