//! Frequency tables: from counts, to bytes, and into the form decoders look symbols up in.

use crate::{Error, Result};

/// Frequencies sum to `2^PRECISION`.
pub const PRECISION: u32 = 12;

const TOTAL: u32 = 1 << PRECISION;

/// Integer frequencies of up to 256 symbols, summing to `2^12`. A symbol of frequency 0 cannot be coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    freq: [u16; 256],
    start: [u16; 256],
}

impl Table {
    /// The table for symbols that occur `counts[s]` times each, or `None` if all counts are zero.
    ///
    /// Integers only, so that every machine makes the same table: floors first, every used symbol at least
    /// 1; then what is left over goes, one by one, where it saves the most bits.
    pub fn from_counts(counts: &[u64; 256]) -> Option<Table> {
        // Counts are scaled below 2^32, so that the products below fit 64 bits.
        let largest = counts.iter().copied().max().unwrap_or(0);
        let shift = (64 - largest.leading_zeros()).saturating_sub(32);
        let scale = |c: u64| if c == 0 { 0 } else { (c >> shift).max(1) };
        let counts: Vec<u64> = counts.iter().map(|&c| scale(c)).collect();
        let sum: u64 = counts.iter().sum();
        if sum == 0 {
            return None;
        }
        let mut freq = [0u32; 256];
        for (f, &c) in freq.iter_mut().zip(&counts) {
            if c > 0 {
                *f = ((u128::from(c) * u128::from(TOTAL) / u128::from(sum)) as u32).max(1);
            }
        }
        let mut assigned: u32 = freq.iter().sum();
        // One more for the symbol whose cost falls most: the gain of f -> f+1 is about c / (f + 1/2).
        while assigned < TOTAL {
            let best = best_by(&counts, &freq, |c, f| (2 * c, 2 * f + 1), |_| true)?;
            freq[best] += 1;
            assigned += 1;
        }
        // One less for the symbol whose cost rises least: the loss of f -> f-1 is about c / (f - 1/2).
        while assigned > TOTAL {
            let best = worst_by(&counts, &freq)?;
            freq[best] -= 1;
            assigned -= 1;
        }
        Some(Self::from_frequencies(&freq))
    }

    fn from_frequencies(freq: &[u32; 256]) -> Table {
        let mut table = Table { freq: [0; 256], start: [0; 256] };
        let mut start = 0;
        for s in 0..256 {
            table.freq[s] = freq[s] as u16;
            table.start[s] = start;
            start += freq[s] as u16;
        }
        table
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
    /// frequencies but the last as LEB128. The last follows from the sum.
    pub fn write(&self, out: &mut Vec<u8>) {
        let used = |s: &usize| self.freq[*s] > 0;
        let first = (0..256).find(used).unwrap_or(0);
        let last = (0..256).rev().find(used).unwrap_or(0);
        out.push(first as u8);
        out.push((last - first) as u8);
        for s in first..last {
            let f = self.freq[s];
            if f < 128 {
                out.push(f as u8);
            } else {
                out.push((f & 127) as u8 | 128);
                out.push((f >> 7) as u8);
            }
        }
    }

    /// Reads what [`Table::write`] wrote; returns the table and the bytes it took.
    ///
    /// # Errors
    /// If the bytes end early, or the frequencies are not what `write` makes: shortest form, sum `2^12`,
    /// first and last symbol used.
    pub fn read(bytes: &[u8]) -> Result<(Table, usize)> {
        let bad = |what: &str| Error::corruption("E1", format!("frequency table: {what}"));
        let [first, span, ..] = *bytes else { return Err(bad("cut short")) };
        let (first, last) = (usize::from(first), usize::from(first) + usize::from(span));
        if last > 255 {
            return Err(bad("symbols above 255"));
        }
        let mut freq = [0u32; 256];
        let (mut at, mut sum) = (2, 0u32);
        for f in &mut freq[first..last] {
            let low = *bytes.get(at).ok_or_else(|| bad("cut short"))?;
            at += 1;
            *f = u32::from(low & 127);
            if low & 128 != 0 {
                let high = *bytes.get(at).ok_or_else(|| bad("cut short"))?;
                at += 1;
                if high == 0 || high > 31 {
                    return Err(bad("a frequency out of range"));
                }
                *f |= u32::from(high) << 7;
            }
            sum += *f;
        }
        if sum >= TOTAL || (first < last && freq[first] == 0) {
            return Err(bad("frequencies do not sum to 4096"));
        }
        freq[last] = TOTAL - sum;
        Ok((Self::from_frequencies(&freq), at))
    }

    /// The form decoders use.
    pub fn decoder(&self) -> DecodeTable {
        let mut slots = Box::new([0u32; TOTAL as usize]);
        for s in 0..256usize {
            let (f, start) = (u32::from(self.freq[s]), u32::from(self.start[s]));
            for bias in 0..f {
                slots[(start + bias) as usize] = (f - 1) | bias << 12 | (s as u32) << 24;
            }
        }
        DecodeTable { slots }
    }
}

/// Index of the used symbol with the largest ratio `value(count, freq)`; the first of equals.
fn best_by(
    counts: &[u64],
    freq: &[u32; 256],
    value: impl Fn(u64, u64) -> (u64, u64),
    allowed: impl Fn(u32) -> bool,
) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for s in 0..256 {
        if counts[s] == 0 || !allowed(freq[s]) {
            continue;
        }
        let (n, d) = value(counts[s], u64::from(freq[s]));
        if best.is_none_or(|(_, bn, bd)| u128::from(n) * u128::from(bd) > u128::from(bn) * u128::from(d)) {
            best = Some((s, n, d));
        }
    }
    best.map(|(s, ..)| s)
}

/// Index of the symbol of frequency above 1 with the smallest ratio `count / (freq - 1/2)`.
fn worst_by(counts: &[u64], freq: &[u32; 256]) -> Option<usize> {
    // The smallest ratio is the largest inverse.
    best_by(counts, freq, |c, f| (2 * f - 1, 2 * c), |f| f > 1)
}

/// For each of the 4096 slots: frequency minus 1 (12 bits), slot minus the symbol's first slot (12 bits),
/// symbol (8 bits).
#[derive(Clone, Debug)]
pub struct DecodeTable {
    slots: Box<[u32; TOTAL as usize]>,
}

const _: () = assert!(size_of::<[u32; TOTAL as usize]>() == 16 << 10, "one table fits half an L1 cache");

impl DecodeTable {
    /// Takes a symbol off `state`. The new state may be below [`super::LOW`]: refill it.
    #[inline(always)]
    pub fn step(&self, state: u32) -> (u8, u32) {
        let entry = self.slots[(state & (TOTAL - 1)) as usize];
        let (freq, bias) = ((entry & 0xfff) + 1, entry >> 12 & 0xfff);
        ((entry >> 24) as u8, freq * (state >> PRECISION) + bias)
    }
}
