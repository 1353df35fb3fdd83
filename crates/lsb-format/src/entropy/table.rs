//! Frequency tables: from counts, to bytes, and into the form decoders look symbols up in.

use super::Alphabet;
use crate::{Error, Result};

/// Frequencies sum to `2^PRECISION`.
pub const PRECISION: u32 = 12;

pub(super) const TOTAL: u32 = 1 << PRECISION;

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
        let mut alphabet = Alphabet::default();
        alphabet.set((0..=u8::MAX).zip(counts.iter().copied())).then(|| alphabet.table())
    }

    pub(super) fn from_frequencies(freq: &[u32; 256]) -> Table {
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
        let mut out = DecodeTable { slots: [0; TOTAL as usize] };
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
        out
    }
}

/// Slots written together.
const CHUNK: usize = 16;

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
#[derive(Clone, Debug)]
pub struct DecodeTable {
    slots: [u32; TOTAL as usize],
}

const _: () = assert!(size_of::<[u32; TOTAL as usize]>() == 16 << 10, "one table fits half an L1 cache");

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
