//! Symbols to a run: 32 lanes, tables chosen symbol by symbol.

use super::{LANES, LOW, PRECISION, Table};
use crate::{Error, Result};

/// What a symbol does to a state: division by its frequency as multiplication, exact for all 31-bit dividends.
#[derive(Clone, Copy, Default)]
struct Divisor {
    multiplier: u64,
    /// A state at or above this would leave the interval; 0 for a symbol that cannot be coded.
    limit: u32,
    start: u16,
    /// What the frequency lacks of all slots.
    complement: u16,
}

/// The complement of frequency 0: a bit that no other has.
const UNCODABLE: u16 = 1 << PRECISION;

impl Divisor {
    fn new(freq: u32, start: u32) -> Self {
        Divisor {
            // ceil(2^43 / f): with f <= 2^12 the error is below f * 2^31 / 2^43 <= 1, too small to reach the
            // next quotient (Granlund and Montgomery, 1994).
            multiplier: (1u64 << 43).div_ceil(u64::from(freq.max(1))),
            limit: freq << (31 - PRECISION),
            start: start as u16,
            complement: ((1 << PRECISION) - freq) as u16,
        }
    }

    #[inline(always)]
    fn push(&self, state: u32) -> u32 {
        // The state is below freq << 19 here, so the product stays below 2^63.
        let quotient = ((u64::from(state) * self.multiplier) >> 43) as u32;
        // quotient * 2^12 + state - quotient * freq + start, with one multiplication.
        let moved = quotient.wrapping_mul(self.complement.into());
        state.wrapping_add(self.start.into()).wrapping_add(moved)
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
    let mut coder = Coder::<N>::new(symbols.len());
    let (steps, rest) = symbols.as_chunks::<N>();
    let divisor = |i: usize, symbol: u8| &tables[which(i)].0[usize::from(symbol)];
    coder.step(rest, |lane, symbol| divisor(steps.len() * N + lane, symbol));
    for (i, symbols) in steps.iter().enumerate().rev() {
        coder.step(symbols, |lane, symbol| divisor(i * N + lane, symbol));
    }
    if coder.complements & UNCODABLE != 0 {
        return Err(Error::argument("a symbol has frequency 0 in its table"));
    }
    let states = &coder.states[..symbols.len().min(N)];
    let words = coder.words[coder.first..].as_flattened();
    out.reserve(size_of_val(states) + words.len());
    states.iter().for_each(|s| out.extend_from_slice(&s.to_le_bytes()));
    out.extend_from_slice(words);
    Ok(())
}

/// A run from its end on.
struct Coder<const N: usize> {
    states: [u32; N],
    /// Filled from the end: decoders read words in the other order.
    words: Vec<[u8; 2]>,
    /// Of the words that count.
    first: usize,
    /// All complements that there were, one over the other.
    complements: u16,
}

impl<const N: usize> Coder<N> {
    fn new(symbols: usize) -> Self {
        // A symbol gives a word at most. A step writes as many as it has lanes before it knows which of them count.
        let words = vec![[0; 2]; symbols + N];
        Coder { states: [LOW; N], first: words.len(), words, complements: 0 }
    }

    /// Codes symbols of the first lanes, the last one first.
    #[inline(always)]
    fn step<'t>(&mut self, symbols: &[u8], mut divisor: impl FnMut(usize, u8) -> &'t Divisor) {
        let Some(fresh) = self.words[..self.first].last_chunk_mut::<N>() else { return };
        let (mut left, mut complements) = (N, 0);
        for (lane, &symbol) in symbols.iter().enumerate().rev() {
            let divisor = divisor(lane, symbol);
            complements |= divisor.complement;
            let state = self.states[lane];
            // The word is written whether it counts or not: a branch here would be guessed wrong at every fourth symbol or so.
            fresh[left.wrapping_sub(1) % N] = (state as u16).to_le_bytes();
            let full = state >= divisor.limit;
            left -= usize::from(full);
            self.states[lane] = divisor.push(if full { state >> 16 } else { state });
        }
        self.first -= N - left;
        self.complements |= complements;
    }
}
