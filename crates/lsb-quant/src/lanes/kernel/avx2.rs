//! Vectors of 256 bits, two to sixteen lanes.

use crate::lanes::{LANES, Lanes, WORD, Work};
use std::arch::x86_64::*;

/// There is one only where the processor has AVX2, BMI and POPCNT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

/// Instructions of a method of [`Avx2`].
macro_rules! on_this_processor {
    ($instructions:expr) => {{
        // SAFETY: that there is a `self` says that the processor has the instructions.
        #[allow(unsafe_code)]
        unsafe {
            $instructions
        }
    }};
}

impl Avx2 {
    /// The proof that this processor has what is needed.
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        all.then_some(Avx2(()))
    }

    #[inline]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        on_this_processor!(run(self, work))
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn run<W: Work>(lanes: Avx2, work: W) -> W::Output {
    work.run(lanes)
}

impl Lanes for Avx2 {
    type Vector = [__m256; 2];

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> [__m256; 2] {
        // There are twice eight values.
        on_this_processor!([_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values[8..].as_ptr())])
    }

    #[inline(always)]
    fn store(self, values: [__m256; 2]) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        // There is room for twice eight values.
        on_this_processor!({
            _mm256_storeu_ps(out.as_mut_ptr(), values[0]);
            _mm256_storeu_ps(out[8..].as_mut_ptr(), values[1]);
        });
        out
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [__m256; 2] {
        on_this_processor!([_mm256_set1_ps(value); 2])
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        on_this_processor!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        on_this_processor!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        on_this_processor!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        on_this_processor!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn min(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        on_this_processor!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn magnitude(self, a: [__m256; 2]) -> [__m256; 2] {
        on_this_processor!({
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        })
    }

    #[inline(always)]
    fn kept_above(self, a: [__m256; 2], b: [__m256; 2]) -> ([__m256; 2], u32) {
        on_this_processor!({
            let above = [_mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0]), _mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1])];
            let bits = _mm256_movemask_ps(above[0]) | _mm256_movemask_ps(above[1]) << 8;
            ([_mm256_and_ps(above[0], a[0]), _mm256_and_ps(above[1], a[1])], bits.count_ones())
        })
    }

    #[inline(always)]
    fn above(self, values: &[f32; WORD], level: f32) -> u32 {
        let mut word = 0;
        for (k, eight) in values.as_chunks::<8>().0.iter().enumerate() {
            // There are eight values.
            let bits = on_this_processor!({
                let above =
                    _mm256_cmp_ps::<_CMP_GT_OQ>(_mm256_loadu_ps(eight.as_ptr()), _mm256_set1_ps(level));
                _mm256_movemask_ps(above)
            });
            word |= (bits as u32) << (8 * k);
        }
        word
    }

    #[inline(always)]
    fn at_least(self, keys: &[i16; WORD], least: i16) -> u32 {
        // There are twice 16 keys.
        on_this_processor!({
            let a = _mm256_loadu_si256(keys.as_ptr().cast());
            let b = _mm256_loadu_si256(keys[16..].as_ptr().cast());
            let least = _mm256_set1_epi16(least);
            // Halves of 128 bits are packed apart: the middle two quarters change places.
            let below = _mm256_packs_epi16(_mm256_cmpgt_epi16(least, a), _mm256_cmpgt_epi16(least, b));
            !(_mm256_movemask_epi8(_mm256_permute4x64_epi64::<0b11_01_10_00>(below)) as u32)
        })
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
