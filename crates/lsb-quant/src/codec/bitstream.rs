//! Bits, least significant first, and Rice codes.

use lsb_format::bits::{self, WINDOW_BITS, window};
use lsb_format::{Error, Result};

/// Appends bits to bytes.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    pending: u64,
    /// Bits in `pending`; fewer than 32 between calls.
    n_pending: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        BitWriter { bytes, pending: 0, n_pending: 0 }
    }

    /// Appends the `n` low bits of `value`, which has no others; `n` is at most 32.
    #[inline(always)]
    pub(crate) fn push(&mut self, value: u32, n: u32) {
        debug_assert!(n <= 32 && u64::from(value) >> n == 0);
        self.pending |= u64::from(value) << self.n_pending;
        self.n_pending += n;
        if self.n_pending >= 32 {
            self.bytes.extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.n_pending -= 32;
        }
    }

    /// Appends `value` in a Rice code: its high part in unary, its `low_bits` low bits as they are.
    #[inline(always)]
    pub(crate) fn push_rice(&mut self, value: u32, low_bits: u32) {
        let mut high = value >> low_bits;
        if high + low_bits < 32 {
            let low = u64::from(value & low_mask(low_bits));
            self.push((1 << high | low << (high + 1)) as u32, high + 1 + low_bits);
            return;
        }
        while high >= 31 {
            self.push(0, 31);
            high -= 31;
        }
        self.push(1 << high, high + 1);
        self.push(value & low_mask(low_bits), low_bits);
    }

    /// Appends the last bits, with zeros up to a whole byte.
    pub(crate) fn finish(self) {
        let n = self.n_pending.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.pending.to_le_bytes()[..n]);
    }
}

/// Reads bits from bytes; beyond the end all bits are zero.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0 }
    }

    /// Reads one Rice code of a value up to `max`; `low_bits` is at most 31.
    ///
    /// # Errors
    /// If the value is larger, or the bytes end first.
    #[inline]
    pub(crate) fn rice(&mut self, low_bits: u32, max: u32) -> Result<u32> {
        // Nearly every code lies in one window.
        let window = window(self.bytes, self.at);
        let zeros = window.trailing_zeros();
        let length = zeros + 1 + low_bits;
        if length <= WINDOW_BITS {
            let low = (window >> (zeros + 1)) as u32 & low_mask(low_bits);
            let (value, end) = (u64::from(zeros) << low_bits | u64::from(low), self.at + length as usize);
            if value <= u64::from(max) && end <= self.bytes.len() * 8 {
                self.at = end;
                return Ok(value as u32);
            }
        }
        self.long_rice(low_bits, max)
    }

    /// Reads `count` Rice codes as [`BitReader::rice`] does, calling `each` with one value after the other.
    ///
    /// # Errors
    /// As [`BitReader::rice`].
    #[inline(always)]
    pub(crate) fn rices(
        &mut self,
        low_bits: u32,
        max: u32,
        count: usize,
        mut each: impl FnMut(u32),
    ) -> Result<()> {
        // So many are short enough for one window nearly always: the next one is not waited for after every code.
        const TOGETHER: usize = 4;
        for _ in 0..count / TOGETHER {
            let (mut rest, mut length) = (window(self.bytes, self.at), 0);
            let mut values = [0; TOGETHER];
            for value in &mut values {
                let zeros = rest.trailing_zeros();
                let behind = rest >> (zeros % u64::BITS) >> 1;
                *value = u64::from(zeros) << low_bits | behind & u64::from(low_mask(low_bits));
                rest = behind >> low_bits;
                length += zeros + 1 + low_bits;
            }
            let end = self.at + length as usize;
            let largest = values.iter().fold(0, |largest, &value| value.max(largest));
            if length <= WINDOW_BITS && end <= self.bytes.len() * 8 && largest <= u64::from(max) {
                self.at = end;
                values.iter().for_each(|&value| each(value as u32));
            } else {
                for _ in 0..TOGETHER {
                    each(self.rice(low_bits, max)?);
                }
            }
        }
        for _ in 0..count % TOGETHER {
            each(self.rice(low_bits, max)?);
        }
        Ok(())
    }

    /// As [`BitReader::rice`], whatever the code.
    #[cold]
    fn long_rice(&mut self, low_bits: u32, max: u32) -> Result<u32> {
        let mut high = 0u32;
        loop {
            let zeros = window(self.bytes, self.at).trailing_zeros().min(32);
            self.at += zeros as usize;
            high += zeros;
            if zeros < 32 {
                break;
            }
            if high > max >> low_bits || self.at > self.bytes.len() * 8 {
                break;
            }
        }
        self.at += 1;
        let value =
            u64::from(high) << low_bits | u64::from(window(self.bytes, self.at) as u32 & low_mask(low_bits));
        self.at += low_bits as usize;
        if value > u64::from(max) || self.at > self.bytes.len() * 8 {
            let message =
                format!("a code of {value} where at most {max} is possible, in {} bytes", self.bytes.len());
            return Err(Error::corruption("P34", message));
        }
        Ok(value as u32)
    }

    /// Reads `n` bits, at most 32; beyond the end they are zero.
    pub(crate) fn bits(&mut self, n: u32) -> u32 {
        let value = window(self.bytes, self.at) as u32 & low_mask(n);
        self.at += n as usize;
        value
    }

    /// Ends reading.
    ///
    /// # Errors
    /// If whole bytes are left, or a spare bit is set.
    pub(crate) fn finish(self) -> Result<()> {
        let read = self.at.div_ceil(8);
        if read != self.bytes.len() {
            let message = format!("codes end after {read} of {} bytes", self.bytes.len());
            return Err(Error::corruption("P30", message));
        }
        bits::check_len(self.bytes, 1, self.at)
    }
}

#[inline(always)]
fn low_mask(bits: u32) -> u32 {
    ((1u64 << bits) - 1) as u32
}

/// The number of low bits that makes the Rice codes of `values` shortest, and their length in bits.
#[inline(always)]
pub(crate) fn best_rice(values: &[u32]) -> (u32, u64) {
    let cost = |low: u32| values.iter().map(|&v| u64::from(v >> low) + 1 + u64::from(low)).sum::<u64>();
    let max = values.iter().copied().max().unwrap_or(0);
    (0..=32 - max.leading_zeros()).map(|low| (low, cost(low))).min_by_key(|&(_, c)| c).unwrap_or((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_rice_codes_round_trip(values in prop::collection::vec(0u32..1 << 18, 0..200), narrow in 0u32..18, low in prop::option::of(5u32..20)) {
            let values: Vec<u32> = values.iter().map(|v| v >> narrow).collect();
            let (best, bits) = best_rice(&values);
            let low = low.unwrap_or(best);
            let mut bytes = Vec::new();
            let mut w = BitWriter::new(&mut bytes);
            values.iter().for_each(|&v| w.push_rice(v, low));
            w.finish();
            prop_assert!(low != best || bytes.len() as u64 == bits.div_ceil(8));
            let mut r = BitReader::new(&bytes);
            for &v in &values {
                prop_assert_eq!(r.rice(low, 1 << 18), Ok(v));
            }
            prop_assert_eq!(r.finish(), Ok(()));
            let (mut r, mut back) = (BitReader::new(&bytes), Vec::new());
            prop_assert_eq!(r.rices(low, 1 << 18, values.len(), |v| back.push(v)), Ok(()));
            prop_assert_eq!(r.finish(), Ok(()));
            prop_assert_eq!(back, values);
        }

        #[test]
        fn prop_any_bytes_end_in_a_value_or_an_error(bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..40), low in 0u32..32, max in any::<u32>()) {
            let mut r = BitReader::new(&bytes);
            let mut values = Vec::new();
            let error = loop {
                match r.rice(low, max) {
                    Ok(value) => values.push(value),
                    Err(error) => break error,
                }
            };
            prop_assert!(values.len() <= bytes.len() * 8);
            // Several at once are the same, and so is the error.
            let mut together = Vec::new();
            let count = values.len() + 9;
            prop_assert_eq!(BitReader::new(&bytes).rices(low, max, count, |v| together.push(v)), Err(error));
            prop_assert_eq!(together, values);
        }
    }
}
