//! Vectors of 512 bits, and comparisons that give bits.

use crate::lanes::{LANES, Lanes, WORD, Work};
use std::arch::x86_64::*;

/// There is one only where the processor has AVX-512 (F, BW, DQ and VL), BMI and POPCNT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

/// Instructions of a method of [`Avx512`].
macro_rules! on_this_processor {
    ($instructions:expr) => {{
        // SAFETY: that there is a `self` says that the processor has the instructions.
        #[allow(unsafe_code)]
        unsafe {
            $instructions
        }
    }};
}

impl Avx512 {
    /// The proof that this processor has what is needed.
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        all.then_some(Avx512(()))
    }

    #[inline]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        on_this_processor!(run(self, work))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
fn run<W: Work>(lanes: Avx512, work: W) -> W::Output {
    work.run(lanes)
}

impl Lanes for Avx512 {
    type Vector = __m512;

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> __m512 {
        // There are 16 values.
        on_this_processor!(_mm512_loadu_ps(values.as_ptr()))
    }

    #[inline(always)]
    fn store(self, values: __m512) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        // There is room for 16 values.
        on_this_processor!(_mm512_storeu_ps(out.as_mut_ptr(), values));
        out
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        on_this_processor!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        on_this_processor!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        on_this_processor!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        on_this_processor!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        on_this_processor!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        on_this_processor!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn magnitude(self, a: __m512) -> __m512 {
        on_this_processor!(_mm512_abs_ps(a))
    }

    #[inline(always)]
    fn kept_above(self, a: __m512, b: __m512) -> (__m512, u32) {
        on_this_processor!({
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b);
            (_mm512_maskz_mov_ps(above, a), above.count_ones())
        })
    }

    #[inline(always)]
    fn above(self, values: &[f32; WORD], level: f32) -> u32 {
        // There are twice 16 values.
        on_this_processor!({
            let (a, b) = (_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values[16..].as_ptr()));
            let level = _mm512_set1_ps(level);
            let (a, b) =
                (_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, level), _mm512_cmp_ps_mask::<_CMP_GT_OQ>(b, level));
            u32::from(a) | u32::from(b) << 16
        })
    }

    #[inline(always)]
    fn at_least(self, keys: &[i16; WORD], least: i16) -> u32 {
        // There are 32 keys.
        on_this_processor!(_mm512_cmpge_epi16_mask(
            _mm512_loadu_si512(keys.as_ptr().cast()),
            _mm512_set1_epi16(least)
        ))
    }

    #[inline(always)]
    fn lowest_bits(self, bytes: &[u8; WORD]) -> u32 {
        // There are 32 bytes. The lowest bit of each becomes its highest; what comes from a neighbour stays below.
        on_this_processor!({
            let bytes = _mm256_loadu_si256(bytes.as_ptr().cast());
            _mm256_movemask_epi8(_mm256_slli_epi16::<7>(bytes)) as u32
        })
    }
}
