//! Vectors of 256 bits, two to sixteen lanes.

use crate::lanes::{LANES, Lanes, WORD, Work};
use pulp::cast;
use pulp::x86::V3;
use std::arch::x86_64::*;

/// There is one only where the processor has AVX2 and what comes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(V3);

impl From<V3> for Avx2 {
    #[inline(always)]
    fn from(simd: V3) -> Self {
        Avx2(simd)
    }
}

impl Avx2 {
    /// The proof that this processor has what is needed.
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        V3::try_new().map(Avx2)
    }

    #[inline]
    pub(super) fn run<W: Work>(self, work: W) -> W::Output {
        self.0.vectorize(
            #[inline(always)]
            || work.run(self),
        )
    }

    /// The same for both halves.
    #[inline(always)]
    fn both(self, a: [__m256; 2], b: [__m256; 2], of: impl Fn(__m256, __m256) -> __m256) -> [__m256; 2] {
        [of(a[0], b[0]), of(a[1], b[1])]
    }

    /// Bit `i` is set where lane `i` of `a` lies above that of `b`, and the comparison.
    #[inline(always)]
    fn compare(self, a: __m256, b: __m256) -> (u32, __m256) {
        let above = self.0.avx._mm256_cmp_ps::<_CMP_GT_OQ>(a, b);
        (self.0.avx._mm256_movemask_ps(above) as u32, above)
    }
}

impl Lanes for Avx2 {
    type Vector = [__m256; 2];

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> [__m256; 2] {
        cast(*values)
    }

    #[inline(always)]
    fn integers(self, values: &[i16; LANES]) -> [__m256; 2] {
        let halves: [__m128i; 2] = cast(*values);
        halves.map(|half| self.0.avx._mm256_cvtepi32_ps(self.0.avx2._mm256_cvtepi16_epi32(half)))
    }

    #[inline(always)]
    fn store(self, values: [__m256; 2]) -> [f32; LANES] {
        cast(values)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [__m256; 2] {
        [self.0.avx._mm256_set1_ps(value); 2]
    }

    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        self.both(a, b, |a, b| self.0.avx._mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        self.both(a, b, |a, b| self.0.avx._mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        self.both(a, b, |a, b| self.0.avx._mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        self.both(a, b, |a, b| self.0.avx._mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        self.both(a, b, |a, b| self.0.avx._mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn magnitude(self, a: [__m256; 2]) -> [__m256; 2] {
        self.both(self.splat(-0.0), a, |sign, a| self.0.avx._mm256_andnot_ps(sign, a))
    }

    #[inline(always)]
    fn kept_above(self, a: [__m256; 2], b: [__m256; 2]) -> ([__m256; 2], u32) {
        let [(low, low_above), (high, high_above)] = [self.compare(a[0], b[0]), self.compare(a[1], b[1])];
        let kept = self.both([low_above, high_above], a, |above, a| self.0.avx._mm256_and_ps(above, a));
        (kept, (low | high << 8).count_ones())
    }

    #[inline(always)]
    fn above(self, values: &[f32; WORD], level: f32) -> u32 {
        let eights: [__m256; WORD / 8] = cast(*values);
        let [level, _] = self.splat(level);
        let bits = eights.map(|eight| self.compare(eight, level).0);
        bits[0] | bits[1] << 8 | bits[2] << 16 | bits[3] << 24
    }

    #[inline(always)]
    fn at_least(self, keys: &[i16; WORD], least: i16) -> u32 {
        let [a, b]: [__m256i; 2] = cast(*keys);
        let least = self.0.avx._mm256_set1_epi16(least);
        let avx2 = self.0.avx2;
        // Halves of 128 bits are packed apart: the middle two quarters change places.
        let below =
            avx2._mm256_packs_epi16(avx2._mm256_cmpgt_epi16(least, a), avx2._mm256_cmpgt_epi16(least, b));
        !(avx2._mm256_movemask_epi8(avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(below)) as u32)
    }

    #[inline(always)]
    fn lowest_bits(self, bytes: &[u8; WORD]) -> u32 {
        // The lowest bit of each becomes its highest; what comes from a neighbour stays below.
        self.0.avx2._mm256_movemask_epi8(self.0.avx2._mm256_slli_epi16::<7>(cast(*bytes))) as u32
    }
}
