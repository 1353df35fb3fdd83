//! 32 lanes in two vectors of 16.

use lsb_format::entropy::{LANES, LOW, PRECISION};
use std::arch::x86_64::*;

/// Lanes of a vector.
pub(in super::super) const HALF: usize = LANES / 2;

/// The states behind those whose slots held `entry`; those that fell too low take words of `refill`, as many as are returned.
#[target_feature(enable = "avx512f,avx512bw,popcnt")]
#[inline]
pub(in super::super) fn advance(states: &mut __m512i, entry: __m512i, refill: __m512i) -> usize {
    let field = _mm512_set1_epi32((1 << PRECISION) - 1);
    let freq = _mm512_add_epi32(_mm512_and_si512(entry, field), _mm512_set1_epi32(1));
    let bias = _mm512_and_si512(_mm512_srli_epi32::<12>(entry), field);
    let high = _mm512_srli_epi32::<PRECISION>(*states);
    let next = _mm512_add_epi32(_mm512_mullo_epi32(freq, high), bias);
    // States are below 2^31.
    let low = _mm512_cmplt_epi32_mask(next, _mm512_set1_epi32(LOW as i32));
    let word = _mm512_maskz_expand_epi32(low, refill);
    *states = _mm512_mask_or_epi32(next, low, _mm512_slli_epi32::<16>(next), word);
    low.count_ones() as usize
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(in super::super) fn load_u32(values: &[u32]) -> __m512i {
    let values: &[u32] = &values[..HALF];
    // SAFETY: there are 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_si512(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(in super::super) fn store_u32(out: &mut [u32], values: __m512i) {
    let out: &mut [u32] = &mut out[..HALF];
    // SAFETY: there is room for 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().cast(), values);
    }
}

/// The next words, one for each lane.
#[target_feature(enable = "avx512f")]
#[inline]
pub(in super::super) fn load_words(words: &[[u8; 2]]) -> __m512i {
    let words: &[[u8; 2]] = &words[..HALF];
    // SAFETY: there are 16 words of two bytes.
    #[allow(unsafe_code)]
    let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
    _mm512_cvtepu16_epi32(words)
}
