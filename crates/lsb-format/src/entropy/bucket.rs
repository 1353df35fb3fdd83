//! Tables of many a decoder chooses among: small ones.

use super::share::{FEW, Shares};
use super::table::{PRECISION, TOTAL, Table};

/// The symbols of a table that can be coded and their frequencies, which sum to `2^12`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alphabet {
    /// In increasing order.
    symbols: Vec<u8>,
    /// Slots before those of each symbol, and the number of all.
    starts: Vec<u16>,
}

impl Alphabet {
    /// The alphabet of symbols that occur so often each, in increasing order, in the place of another; as it was, and false,
    /// if none does. Frequencies are those of [`Table::from_counts`].
    pub fn set(&mut self, counts: impl Iterator<Item = (u8, u64)> + Clone) -> bool {
        // Most are small, and made again and again.
        match Shares::<FEW>::of(counts.clone()) {
            Some(few) => self.put(few.iter()),
            None => Shares::<256>::of(counts).is_some_and(|all| self.put(all.iter())),
        }
    }

    fn put(&mut self, shares: impl ExactSizeIterator<Item = (u8, u16)>) -> bool {
        if shares.len() == 0 {
            return false;
        }
        self.symbols.clear();
        self.starts.clear();
        let mut start = 0;
        for (symbol, frequency) in shares {
            self.symbols.push(symbol);
            self.starts.push(start);
            start += frequency;
        }
        self.starts.push(start);
        true
    }

    /// The form encoders use.
    pub fn table(&self) -> Table {
        let mut freq = [0; 256];
        for (&symbol, ends) in self.symbols.iter().zip(self.starts.windows(2)) {
            freq[usize::from(symbol)] = u32::from(ends[1] - ends[0]);
        }
        Table::from_frequencies(&freq)
    }

    /// The form decoders use, in the place of a table that is no longer needed.
    pub fn buckets_into(&self, out: &mut BucketTable) {
        for (i, (&symbol, ends)) in self.symbols.iter().zip(self.starts.windows(2)).enumerate() {
            let (start, end) = (ends[0], ends[1]);
            let next = self.symbols.get(i + 1).copied().unwrap_or(0);
            let next_end = self.starts.get(i + 2).copied().unwrap_or(end);
            let bucket = Bucket { start, freqs: [end - start, next_end - end], symbols: [symbol, next] };
            let first = usize::from(start).div_ceil(BUCKET);
            let end = usize::from(end).div_ceil(BUCKET);
            let mut at = first;
            while at < end {
                // A whole chunk at a time: what lies beyond the end belongs to symbols that come next.
                match out.buckets[at..].first_chunk_mut::<CHUNK>() {
                    Some(chunk) => *chunk = [bucket; CHUNK],
                    None => out.buckets[at..].fill(bucket),
                }
                at += CHUNK;
            }
            // Of more than two symbols those two that have most of the bucket.
            if first < end && i + 2 < self.symbols.len() && usize::from(next_end) < end * BUCKET {
                out.buckets[end - 1] = self.best_pair(i, (end - 1) * BUCKET);
            }
        }
    }

    /// Two neighbours from symbol `i` on which have most of the bucket from slot `from` on.
    fn best_pair(&self, i: usize, from: usize) -> Bucket {
        let to = from + BUCKET;
        let slots = |ends: &[u16]| usize::from(ends[2]).min(to) - usize::from(ends[0]).clamp(from, to);
        let pairs = self.starts[i..].windows(3).zip(self.symbols[i..].windows(2));
        let best =
            pairs.take_while(|(ends, _)| usize::from(ends[0]) < to).max_by_key(|(ends, _)| slots(ends));
        best.map_or(Bucket::default(), |(ends, symbols)| Bucket {
            start: ends[0],
            freqs: [ends[1] - ends[0], ends[2] - ends[1]],
            symbols: [symbols[0], symbols[1]],
        })
    }

    /// The symbol of a slot below `2^12`, its frequency, and slots of it before that one.
    pub fn at(&self, slot: u16) -> (u8, u16, u16) {
        // All are looked at: several at once, where a search would be guessed wrong at every turn.
        let begun: u16 = self.starts.iter().map(|&start| u16::from(start <= slot)).sum();
        let i = usize::from(begun.saturating_sub(1));
        let (start, end) = (self.starts[i], self.starts[i + 1]);
        (self.symbols[i], end - start, slot - start)
    }
}

/// Buckets written together.
const CHUNK: usize = 8;

/// A bucket is `2^BUCKET_BITS` slots of a [`BucketTable`].
pub const BUCKET_BITS: u32 = 5;
const BUCKET: usize = 1 << BUCKET_BITS;

/// What the slots of a bucket hold: two neighbours among the symbols that are used, those that most slots belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Bucket {
    /// Slots before those of the first symbol.
    pub start: u16,
    /// Frequencies of both; 0 where there is no next one.
    pub freqs: [u16; 2],
    /// Both.
    pub symbols: [u8; 2],
}

/// As [`DecodeTable`](super::DecodeTable), but a look-up is of a bucket of 2^5 slots: 1 KB, a sixteenth of the other, so that the
/// first cache holds the tables of a dozen classes. Slots that belong to neither of the two symbols in their bucket are
/// rare, for those are the two that have most of it; the [`Alphabet`] knows what they are.
///
/// Tables of a slice lie one behind the other without anything between, so that one index reaches all of them.
#[derive(Clone, Debug)]
#[repr(transparent)]
pub struct BucketTable {
    buckets: [Bucket; TOTAL as usize / BUCKET],
}

const _: () = assert!(size_of::<BucketTable>() == 1 << 10, "no gaps");

impl Default for BucketTable {
    /// A table that decodes nothing, to be written over.
    fn default() -> Self {
        BucketTable { buckets: [Bucket::default(); TOTAL as usize / BUCKET] }
    }
}

impl BucketTable {
    /// As [`DecodeTable::step`](super::DecodeTable::step); `alphabet` tells what this was made of, where that is needed.
    #[inline(always)]
    pub fn step<'a>(&self, state: u32, alphabet: impl FnOnce() -> &'a Alphabet) -> (u8, u32) {
        let slot = (state & (TOTAL - 1)) as u16;
        let Bucket { start, freqs, symbols } = self.buckets[usize::from(slot) / BUCKET];
        let past = slot.wrapping_sub(start);
        let is_first = past < freqs[0];
        let mut symbol = if is_first { symbols[0] } else { symbols[1] };
        let mut freq = if is_first { freqs[0] } else { freqs[1] };
        let mut bias = if is_first { past } else { past.wrapping_sub(freqs[0]) };
        if bias >= freq {
            (symbol, freq, bias) = alphabet().at(slot);
        }
        // As for the other table.
        (symbol, u32::from(freq).wrapping_mul(state >> PRECISION).wrapping_add(bias.into()))
    }
}
