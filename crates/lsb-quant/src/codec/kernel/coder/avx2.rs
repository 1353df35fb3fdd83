//! 32 lanes in four vectors of 8.

use lsb_format::entropy::{LOW, PRECISION};
use std::arch::x86_64::*;

/// Lanes of a vector.
pub(in super::super) const PART: usize = 8;

/// For each set of lanes that take a word: which of the next words each takes, a byte for each lane.
static EXPAND: [u64; 256] = {
    let mut table = [0; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < PART {
            table[mask] |= next << (8 * lane);
            next += (mask >> lane & 1) as u64;
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// The states behind those whose slots held `entry`; those that fell too low take words of `refill`, as many as are returned.
#[target_feature(enable = "avx2,popcnt")]
#[inline]
pub(in super::super) fn advance(states: &mut __m256i, entry: __m256i, refill: __m256i) -> usize {
    let field = _mm256_set1_epi32((1 << PRECISION) - 1);
    let freq = _mm256_add_epi32(_mm256_and_si256(entry, field), _mm256_set1_epi32(1));
    let bias = _mm256_and_si256(_mm256_srli_epi32::<12>(entry), field);
    let high = _mm256_srli_epi32::<{ PRECISION as i32 }>(*states);
    let next = _mm256_add_epi32(_mm256_mullo_epi32(freq, high), bias);
    // States are below 2^31.
    let is_low = _mm256_cmpgt_epi32(_mm256_set1_epi32(LOW as i32), next);
    let low = _mm256_movemask_ps(_mm256_castsi256_ps(is_low)) as u8;
    let places = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(EXPAND[usize::from(low)] as i64));
    let word = _mm256_permutevar8x32_epi32(refill, places);
    *states = _mm256_blendv_epi8(next, _mm256_or_si256(_mm256_slli_epi32::<16>(next), word), is_low);
    low.count_ones() as usize
}

#[target_feature(enable = "avx2")]
#[inline]
pub(in super::super) fn load_u32(values: &[u32]) -> __m256i {
    let values: &[u32] = &values[..PART];
    // SAFETY: there are 8 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_loadu_si256(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
#[inline]
pub(in super::super) fn store_u32(out: &mut [u32], values: __m256i) {
    let out: &mut [u32] = &mut out[..PART];
    // SAFETY: there is room for 8 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast(), values);
    }
}

/// The next words, one for each lane.
#[target_feature(enable = "avx2")]
#[inline]
pub(in super::super) fn load_words(words: &[[u8; 2]]) -> __m256i {
    let words: &[[u8; 2]] = &words[..PART];
    // SAFETY: there are 8 words of two bytes.
    #[allow(unsafe_code)]
    let words = unsafe { _mm_loadu_si128(words.as_ptr().cast()) };
    _mm256_cvtepu16_epi32(words)
}
