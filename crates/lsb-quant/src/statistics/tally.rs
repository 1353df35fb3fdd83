//! Counting magnitudes by their leading bits, as fast as the bytes arrive.

use crate::to_f32_into;
use lsb_format::DType;

/// Bins of one histogram: 15 bits of magnitude.
pub(super) const BINS: usize = 1 << 15;

type Bins = [u32; BINS];

/// Equal values often follow one another. Four histograms take turns, so that an increment need not wait
/// for the one before it to leave the store buffer.
const TURNS: usize = 4;

/// Elements converted to f32 at a time where the source has no 16-bit form.
const BLOCK: usize = 4096;

/// The order in which magnitudes of an element type are counted.
///
/// A key is the leading 15 bits of a magnitude: for 16-bit types the whole of it in the type's own bits,
/// for all others the leading bits of the value as f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyOrder {
    dtype: DType,
}

impl KeyOrder {
    pub(super) fn of(dtype: DType) -> Self {
        KeyOrder { dtype }
    }

    /// The first key that is not a finite value.
    pub(super) fn first_nonfinite(self) -> usize {
        if self.dtype == DType::F16 { 0x7c00 } else { 0x7f80 }
    }

    /// True where two different magnitudes never share a key.
    pub(super) fn is_complete(self) -> bool {
        matches!(self.dtype, DType::BF16 | DType::F16 | DType::F8_E4M3 | DType::F8_E5M2)
    }

    /// Bits of the f32 magnitude that a complete key stands for, or of the smallest one of an incomplete key.
    pub(super) fn magnitude(self, key: usize) -> u32 {
        match self.dtype {
            DType::F16 => half::f16::from_bits(key as u16).to_f32().to_bits(),
            _ => (key as u32) << 16,
        }
    }
}

/// Counts of keys, filled by one thread.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    turns: Vec<Bins>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Tally { turns: vec![[0; BINS]; TURNS] }
    }

    /// Counts the elements of `bytes`.
    pub(super) fn add(&mut self, order: KeyOrder, bytes: &[u8]) {
        match order.dtype {
            DType::BF16 | DType::F16 => self.add_16(bytes),
            DType::F32 => self.add_keys(bytes.as_chunks().0, |x| (u32::from_le_bytes(x) >> 16) as u16),
            dtype => {
                let width = (dtype.bits() / 8) as usize;
                let mut values = [0.0f32; BLOCK];
                for block in bytes.chunks(BLOCK * width) {
                    let values = &mut values[..block.len() / width];
                    to_f32_into(dtype, block, values);
                    self.add_keys(values, |x: f32| (x.to_bits() >> 16) as u16);
                }
            }
        }
    }

    fn add_16(&mut self, bytes: &[u8]) {
        let [a, b, c, d] = &mut self.turns[..] else { return };
        let bin = |x: u64| (x & 0x7fff) as usize;
        let (fours, rest) = bytes.as_chunks::<8>();
        for four in fours {
            let x = u64::from_le_bytes(*four);
            a[bin(x)] += 1;
            b[bin(x >> 16)] += 1;
            c[bin(x >> 32)] += 1;
            d[bin(x >> 48)] += 1;
        }
        for &two in rest.as_chunks().0 {
            a[bin(u64::from(u16::from_le_bytes(two)))] += 1;
        }
    }

    fn add_keys<T: Copy>(&mut self, values: &[T], key: impl Fn(T) -> u16) {
        let [a, b, c, d] = &mut self.turns[..] else { return };
        let bin = |x: T| usize::from(key(x) & 0x7fff);
        let (fours, rest) = values.as_chunks::<4>();
        for four in fours {
            a[bin(four[0])] += 1;
            b[bin(four[1])] += 1;
            c[bin(four[2])] += 1;
            d[bin(four[3])] += 1;
        }
        for &x in rest {
            a[bin(x)] += 1;
        }
    }

    /// How often `key` was counted.
    pub(super) fn count(&self, key: usize) -> u32 {
        self.turns.iter().map(|t| t[key]).sum()
    }

    /// Moves the counts into wider ones.
    pub(super) fn drain_into(&mut self, totals: &mut [u64]) {
        for turn in &mut self.turns {
            for (total, n) in totals.iter_mut().zip(turn) {
                *total += u64::from(std::mem::take(n));
            }
        }
    }
}

/// Calls `each` with runs of magnitudes, as f32 bits, of the elements of `bytes`.
pub(super) fn for_each_magnitude_run(dtype: DType, bytes: &[u8], mut each: impl FnMut(&[u32])) {
    let width = (dtype.bits() / 8) as usize;
    let (mut values, mut magnitudes) = ([0.0f32; BLOCK], [0u32; BLOCK]);
    for block in bytes.chunks(BLOCK * width) {
        let n = block.len() / width;
        to_f32_into(dtype, block, &mut values[..n]);
        for (m, x) in magnitudes.iter_mut().zip(&values[..n]) {
            *m = x.to_bits() & 0x7fff_ffff;
        }
        each(&magnitudes[..n]);
    }
}

/// How many elements of `bytes` have exactly this magnitude, given as f32 bits.
pub(super) fn count_equal(dtype: DType, bytes: &[u8], magnitude: u32) -> u64 {
    if dtype == DType::BF16 {
        return count_equal_16(bytes, (magnitude >> 16) as u16);
    }
    let mut n = 0;
    for_each_magnitude_run(dtype, bytes, |run| {
        n += u64::from(run.iter().map(|&m| u32::from(m == magnitude)).sum::<u32>());
    });
    n
}

fn count_equal_16(bytes: &[u8], key: u16) -> u64 {
    const LANES: usize = 32;
    let mut n = 0;
    // Each lane of 16 bits may count up to 65535 before it is emptied.
    for block in bytes.chunks(2 * LANES * 0x8000) {
        let mut lanes = [0u16; LANES];
        let (chunks, rest) = block.as_chunks::<{ 2 * LANES }>();
        for chunk in chunks {
            for (lane, &two) in lanes.iter_mut().zip(chunk.as_chunks::<2>().0) {
                *lane += u16::from(u16::from_le_bytes(two) & 0x7fff == key);
            }
        }
        n += lanes.iter().map(|&x| u64::from(x)).sum::<u64>();
        let rest = rest.as_chunks::<2>().0;
        n += rest.iter().filter(|&&two| u16::from_le_bytes(two) & 0x7fff == key).count() as u64;
    }
    n
}
