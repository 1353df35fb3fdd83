//! Vectors of 512 bits, and comparisons that give bits.

use super::avx2::Avx2;
use crate::lanes::{LANES, Lanes, WORD, Work};
use pulp::cast;
use pulp::x86::V4;
use std::arch::x86_64::*;

/// There is one only where the processor has AVX-512 (F, BW, CD, DQ and VL) and what comes before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(V4);

impl Avx512 {
    /// The proof that this processor has what is needed.
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        V4::try_new().map(Avx512)
    }

    #[inline]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        self.0.vectorize(
            #[inline(always)]
            || work.run(self),
        )
    }
}

impl Lanes for Avx512 {
    type Vector = __m512;

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> __m512 {
        cast(*values)
    }

    #[inline(always)]
    fn integers(self, values: &[i16; LANES]) -> __m512 {
        self.0.avx512f._mm512_cvtepi32_ps(self.0.avx512f._mm512_cvtepi16_epi32(cast(*values)))
    }

    #[inline(always)]
    fn store(self, values: __m512) -> [f32; LANES] {
        cast(values)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        self.0.avx512f._mm512_set1_ps(value)
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_add_ps(a, b)
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_sub_ps(a, b)
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_mul_ps(a, b)
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_max_ps(a, b)
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        self.0.avx512f._mm512_min_ps(a, b)
    }

    #[inline(always)]
    fn magnitude(self, a: __m512) -> __m512 {
        self.0.avx512f._mm512_abs_ps(a)
    }

    #[inline(always)]
    fn kept_above(self, a: __m512, b: __m512) -> (__m512, u32) {
        let above = self.0.avx512f._mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b);
        (self.0.avx512f._mm512_maskz_mov_ps(above, a), above.count_ones())
    }

    #[inline(always)]
    fn above(self, values: &[f32; WORD], level: f32) -> u32 {
        let [a, b]: [__m512; 2] = cast(*values);
        let level = self.splat(level);
        let of = |x| u32::from(self.0.avx512f._mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, level));
        of(a) | of(b) << 16
    }

    #[inline(always)]
    fn at_least(self, keys: &[i16; WORD], least: i16) -> u32 {
        let least = self.0.avx512f._mm512_set1_epi16(least);
        self.0.avx512bw._mm512_cmpge_epi16_mask(cast(*keys), least)
    }

    #[inline(always)]
    fn lowest_bits(self, bytes: &[u8; WORD]) -> u32 {
        Avx2::from(*self.0).lowest_bits(bytes)
    }
}
