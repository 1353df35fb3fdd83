//! Frequency tables: from counts, to bytes, and into the form decoders look symbols up in.

use crate::{Error, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Frequencies sum to `2^PRECISION`.
pub const PRECISION: u32 = 12;

const TOTAL: u32 = 1 << PRECISION;

/// The symbols that occur. Numbers are whole, and kept in f64 because compilers handle several of those at once: all of them,
/// and all products below, are under `2^53`.
struct Used {
    n: usize,
    symbols: [u8; 256],
    counts: [f64; 256],
    frequencies: [f64; 256],
}

impl Used {
    /// `None` if all counts are zero.
    fn new(counts: &[u64; 256]) -> Option<Used> {
        let mut out = Used { n: 0, symbols: [0; 256], counts: [0.0; 256], frequencies: [0.0; 256] };
        // Counts are scaled below 2^32.
        let largest = counts.iter().fold(0, |all, c| all | c);
        let shift = (64 - largest.leading_zeros()).saturating_sub(32);
        for (symbol, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            out.symbols[out.n] = symbol as u8;
            out.counts[out.n] = f64::from(((count >> shift) as u32).max(1));
            out.n += 1;
        }
        (out.n > 0).then_some(out)
    }

    /// Counts and frequencies.
    fn split(&mut self) -> (&[f64], &mut [f64]) {
        (&self.counts[..self.n], &mut self.frequencies[..self.n])
    }
}

/// Integer frequencies of up to 256 symbols, summing to `2^12`. A symbol of frequency 0 cannot be coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    freq: [u16; 256],
    start: [u16; 256],
}

impl Table {
    /// The table for symbols that occur `counts[s]` times each, or `None` if all counts are zero.
    ///
    /// The same table on every machine: floors first, every used symbol at least 1; then what is left over goes, one by one,
    /// where it saves the most bits, or is taken where it costs the fewest; of equals, the smaller symbol first.
    pub fn from_counts(counts: &[u64; 256]) -> Option<Table> {
        let mut used = Used::new(counts)?;
        let (counts, frequencies) = used.split();
        let sum: f64 = counts.iter().sum();
        for (f, &c) in frequencies.iter_mut().zip(counts) {
            let floor = floor_share(c, sum);
            *f = if floor < 1.0 { 1.0 } else { floor };
        }
        let missing = f64::from(TOTAL) - frequencies.iter().sum::<f64>();
        if missing > 0.0 {
            // The gain of f -> f + 1 is about c / (f + 1/2).
            settle(counts, frequencies, missing, |c, f| c / (2.0 * f + 1.0));
        } else {
            // The loss of f -> f - 1 is about c / (f - 1/2); the smallest loss has the largest inverse.
            settle(counts, frequencies, missing, |c, f| if f > 1.0 { (2.0 * f - 1.0) / c } else { 0.0 });
        }
        let mut freq = [0; 256];
        for (&symbol, &f) in used.symbols[..used.n].iter().zip(&used.frequencies) {
            freq[usize::from(symbol)] = f as u32;
        }
        Some(Self::from_frequencies(&freq))
    }

    fn from_frequencies(freq: &[u32; 256]) -> Table {
        let mut table = Table { freq: [0; 256], start: [0; 256] };
        let mut start = 0;
        for (s, &f) in freq.iter().enumerate() {
            table.freq[s] = f as u16;
            table.start[s] = start;
            start += f as u16;
        }
        table
    }

    /// About how many bits a run of symbols occurring `counts[s]` times each takes with this table, or `None`
    /// if one of them has frequency 0. Integers only: every machine gets the same.
    pub fn cost_bits(&self, counts: &[u64; 256]) -> Option<u64> {
        let mut cost = 0u64;
        for (&c, &f) in counts.iter().zip(&self.freq).filter(|&(&c, _)| c > 0) {
            let bits = (f > 0).then(|| u64::from(LOG[TOTAL as usize] - LOG[usize::from(f)]))?;
            cost = cost.saturating_add(c.saturating_mul(bits));
        }
        Some(cost / 256)
    }

    /// Frequency of a symbol, out of `2^12`.
    pub fn frequency(&self, symbol: u8) -> u32 {
        u32::from(self.freq[usize::from(symbol)])
    }

    /// Sum of the frequencies of all smaller symbols.
    pub fn start(&self, symbol: u8) -> u32 {
        u32::from(self.start[usize::from(symbol)])
    }

    /// Appends the table: first used symbol, number of symbols up to the last used one minus 1, then their
    /// frequencies but the last as LEB128; after a frequency of 0, how many more zeros follow (`u8`). The last
    /// follows from the sum.
    pub fn write(&self, out: &mut Vec<u8>) {
        let used = |s: &usize| self.freq[*s] > 0;
        let first = (0..256).find(used).unwrap_or(0);
        let last = (0..256).rev().find(used).unwrap_or(0);
        out.extend_from_slice(&[first as u8, (last - first) as u8]);
        let mut s = first;
        while s < last {
            let f = self.freq[s];
            s += 1;
            if f == 0 {
                let more = self.freq[s..last].iter().take_while(|&&f| f == 0).count();
                out.extend_from_slice(&[0, more as u8]);
                s += more;
            } else if f < 128 {
                out.push(f as u8);
            } else {
                out.extend_from_slice(&[(f & 127) as u8 | 128, (f >> 7) as u8]);
            }
        }
    }

    /// Reads what [`Table::write`] wrote; returns the table and the bytes it took.
    ///
    /// # Errors
    /// If the bytes end early, or are not what `write` makes: shortest form, sum `2^12`, first and last
    /// symbol used.
    pub fn read(bytes: &[u8]) -> Result<(Table, usize)> {
        let bad = |what: &str| Error::corruption("P50", format!("frequency table: {what}"));
        let mut next = bytes.iter();
        let mut byte = || next.next().map(|&b| u32::from(b)).ok_or_else(|| bad("cut short"));
        let (first, span) = (byte()? as usize, byte()? as usize);
        let last = first + span;
        if last > 255 {
            return Err(bad("symbols above 255"));
        }
        let mut freq = [0u32; 256];
        let (mut s, mut sum, mut after_zero) = (first, 0u32, true);
        while s < last {
            let low = byte()?;
            if low == 0 {
                s += 1 + byte()? as usize;
                if after_zero || s > last {
                    return Err(bad("zeros where a symbol must be used"));
                }
                after_zero = true;
                continue;
            }
            let high = if low & 128 != 0 { byte()? } else { 0 };
            if low & 128 != 0 && !(1..32).contains(&high) {
                return Err(bad("a frequency out of range"));
            }
            freq[s] = low & 127 | high << 7;
            sum += freq[s];
            s += 1;
            after_zero = false;
        }
        if sum >= TOTAL {
            return Err(bad("frequencies sum to more than 4096"));
        }
        freq[last] = TOTAL - sum;
        Ok((Self::from_frequencies(&freq), bytes.len() - next.len()))
    }

    /// The form decoders use.
    pub fn decoder(&self) -> DecodeTable {
        let mut out = DecodeTable::default();
        self.decoder_into(&mut out);
        out
    }

    /// As [`Table::decoder`], in the place of a table that is no longer needed.
    pub fn decoder_into(&self, out: &mut DecodeTable) {
        let mut start = 0;
        for (symbol, &f) in self.freq.iter().enumerate().filter(|&(_, &f)| f > 0) {
            let (first, end) = ((u32::from(f) - 1) | (symbol as u32) << 24, start + usize::from(f));
            let mut bias = 0;
            while start < end {
                // A whole chunk at a time: what lies beyond the end belongs to symbols that come next.
                match out.slots[start..].first_chunk_mut::<CHUNK>() {
                    Some(chunk) => {
                        for (slot, i) in chunk.iter_mut().zip(0..) {
                            *slot = first | (bias + i) << 12;
                        }
                    }
                    None => {
                        for (slot, i) in out.slots[start..].iter_mut().zip(0..) {
                            *slot = first | (bias + i) << 12;
                        }
                    }
                }
                start += CHUNK;
                bias += CHUNK as u32;
            }
            start = end;
        }
    }
}

/// Slots written together.
const CHUNK: usize = 16;

/// The whole number nearest to one between 0 and `2^51`.
#[inline(always)]
fn round(x: f64) -> f64 {
    const ROUNDER: f64 = (1u64 << 52) as f64;
    x + ROUNDER - ROUNDER
}

/// `2^12 c / sum`, rounded down.
#[inline(always)]
fn floor_share(c: f64, sum: f64) -> f64 {
    let product = f64::from(TOTAL) * c;
    let near = round(product / sum);
    if near * sum > product { near - 1.0 } else { near }
}

/// Adds `missing`, one by one, to the frequencies whose priority is largest at that time, the first of equals; takes one by one
/// where it is below zero.
///
/// Priorities are quotients of a number below `2^32` and one below `2^14`, or the other way round. Two that differ do so by a
/// share of more than `2^-47`, and rounding to 53 bits neither swaps nor joins them. None is negative, so that their bits order as
/// they do.
fn settle(counts: &[f64], frequencies: &mut [f64], missing: f64, priority: impl Fn(f64, f64) -> f64) {
    let entry = |i: u8, c: f64, f: f64| (priority(c, f).to_bits(), Reverse(i));
    let numbered = (0..=u8::MAX).zip(counts.iter().zip(&*frequencies));
    let mut heap: BinaryHeap<_> = numbered.map(|(i, (&c, &f))| entry(i, c, f)).collect();
    for _ in 0..missing.abs() as u32 {
        let Some(mut largest) = heap.peek_mut() else { return };
        let Reverse(first) = largest.1;
        let (c, f) = (counts[usize::from(first)], &mut frequencies[usize::from(first)]);
        *f += missing.signum();
        *largest = entry(first, c, *f);
    }
}

/// `LOG[f]`: base-two logarithm of `f` in units of 1/256, rounded down; 0 for 0.
static LOG: [u16; TOTAL as usize + 1] = {
    let mut log = [0; TOTAL as usize + 1];
    let mut f = 1;
    while f <= TOTAL {
        let whole = 31 - f.leading_zeros();
        // f = 2^whole * x with x in 1..2, in units of 2^-31; each squaring yields a bit of its logarithm.
        let mut x = (f as u64) << (31 - whole);
        let (mut bits, mut i) = (whole as u16, 0);
        while i < 8 {
            x = (x * x) >> 31;
            bits <<= 1;
            if x >> 32 != 0 {
                x >>= 1;
                bits |= 1;
            }
            i += 1;
        }
        log[f as usize] = bits;
        f += 1;
    }
    log
};

/// For each of the 4096 slots: frequency minus 1 (12 bits), slot minus the symbol's first slot (12 bits),
/// symbol (8 bits).
///
/// Tables of a slice lie one behind the other without anything between, so that one index reaches all of them.
#[derive(Clone, Debug)]
#[repr(transparent)]
pub struct DecodeTable {
    slots: [u32; TOTAL as usize],
}

const _: () = assert!(size_of::<[u32; TOTAL as usize]>() == 16 << 10, "one table fits half an L1 cache");

impl Default for DecodeTable {
    /// A table that decodes nothing, to be written over.
    fn default() -> Self {
        DecodeTable { slots: [0; TOTAL as usize] }
    }
}

impl DecodeTable {
    /// The slots: frequency minus 1 in bits 0 to 11, slot minus the symbol's first slot in bits 12 to 23, symbol above.
    pub fn slots(&self) -> &[u32; TOTAL as usize] {
        &self.slots
    }

    /// Takes a symbol off `state`. The new state may be below [`super::LOW`]: refill it.
    #[inline(always)]
    pub fn step(&self, state: u32) -> (u8, u32) {
        let entry = self.slots[(state & (TOTAL - 1)) as usize];
        let (freq, bias) = ((entry & 0xfff).wrapping_add(1), entry >> 12 & 0xfff);
        // At most 2^12 * (2^19 - 1) + 2^12 - 1 for states below 2^31: the overflow checks are not needed.
        ((entry >> 24) as u8, freq.wrapping_mul(state >> PRECISION).wrapping_add(bias))
    }
}
