//! No more than every processor of the target has.

use crate::lanes::{LANES, Lanes, WORD};

#[derive(Clone, Copy, Debug)]
pub(super) struct Scalar;

impl Lanes for Scalar {
    type Vector = [f32; LANES];

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> [f32; LANES] {
        *values
    }

    #[inline(always)]
    fn integers(self, values: &[i16; LANES]) -> [f32; LANES] {
        values.map(f32::from)
    }

    #[inline(always)]
    fn store(self, values: [f32; LANES]) -> [f32; LANES] {
        values
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn add(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        both(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        both(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        both(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn max(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        both(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        both(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn magnitude(self, a: [f32; LANES]) -> [f32; LANES] {
        both(a, a, |a, _| a.abs())
    }

    #[inline(always)]
    fn kept_above(self, a: [f32; LANES], b: [f32; LANES]) -> ([f32; LANES], u32) {
        let mut n = 0;
        for (a, b) in a.iter().zip(b) {
            n += u32::from(*a > b);
        }
        (both(a, b, |a, b| if a > b { a } else { 0.0 }), n)
    }

    #[inline(always)]
    fn above(self, values: &[f32; WORD], level: f32) -> u32 {
        gather(values, |x| x > level)
    }

    #[inline(always)]
    fn at_least(self, keys: &[i16; WORD], least: i16) -> u32 {
        gather(keys, |k| k >= least)
    }

    #[inline(always)]
    fn lowest_bits(self, bytes: &[u8; WORD]) -> u32 {
        gather(bytes, |b| b & 1 == 1)
    }
}

#[inline(always)]
fn both(a: [f32; LANES], b: [f32; LANES], of: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut out = a;
    for (out, b) in out.iter_mut().zip(b) {
        *out = of(*out, b);
    }
    out
}

/// Bit `i` of the result is set where value `i` is what is asked for.
#[inline(always)]
fn gather<T: Copy>(values: &[T; WORD], is: impl Fn(T) -> bool) -> u32 {
    let mut word = 0;
    for (k, eight) in values.as_chunks::<8>().0.iter().enumerate() {
        let mut flags = [0u8; 8];
        for (flag, &x) in flags.iter_mut().zip(eight) {
            *flag = u8::from(is(x));
        }
        // Each byte's lowest bit is moved to its own place in the top byte; no two meet elsewhere.
        let top = u64::from_le_bytes(flags).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= (top as u32) << (8 * k);
    }
    word
}
