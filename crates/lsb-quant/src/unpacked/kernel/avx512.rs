//! Four rows at a time, each in two vectors of partial sums: so many additions are under way that none waits for another.

use super::{GROUP, Width, scalar};
use crate::Isa;
use std::arch::x86_64::*;

/// Rows at a time.
const ROWS: usize = 4;

/// See [`super::sums`]. False where the processor cannot.
pub(super) fn sums(width: Width, packed: &[u8], inputs: &[f32], sums: &mut [f32]) -> bool {
    if !Isa::Avx512.is_available() {
        return false;
    }
    // SAFETY: the processor has what the functions are compiled for.
    #[allow(unsafe_code)]
    unsafe {
        match width {
            Width::Nibbles => rows::<true>(packed, inputs, sums),
            Width::Bytes => rows::<false>(packed, inputs, sums),
        }
    }
    true
}

/// A group of levels in two vectors.
#[inline]
#[target_feature(enable = "avx512f")]
fn unpack<const NIBBLES: bool>(packed: &[u8]) -> [__m512; 2] {
    if NIBBLES {
        let table = _mm512_setr_ps(
            -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
        );
        let bytes = _mm512_cvtepu8_epi32(load(packed));
        // A look-up takes the lowest four bits of each number and passes over the others.
        [bytes, _mm512_srli_epi32::<4>(bytes)].map(|indices| _mm512_permutexvar_ps(indices, table))
    } else {
        [0, GROUP / 2].map(|first| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load(&packed[first..]))))
    }
}

#[target_feature(enable = "avx512f")]
fn rows<const NIBBLES: bool>(packed: &[u8], inputs: &[f32], sums: &mut [f32]) {
    let width = if NIBBLES { Width::Nibbles } else { Width::Bytes };
    let row_bytes = width.bytes(inputs.len());
    let whole = sums.len() / ROWS * ROWS;
    let (sums, rest) = sums.split_at_mut(whole);
    let (packed, packed_rest) = packed.split_at(whole * row_bytes);
    let bytes = width.bytes(GROUP);
    for (packed, sums) in packed.chunks_exact((ROWS * row_bytes).max(1)).zip(sums.chunks_exact_mut(ROWS)) {
        let mut partial = [[_mm512_setzero_ps(); 2]; ROWS];
        for (group, inputs) in inputs.chunks_exact(GROUP).enumerate() {
            let (low, high) = inputs.split_at(GROUP / 2);
            let inputs = [load_ps(low), load_ps(high)];
            for (row, partial) in partial.iter_mut().enumerate() {
                let levels = unpack::<NIBBLES>(&packed[row * row_bytes + group * bytes..][..bytes]);
                for half in 0..2 {
                    partial[half] = _mm512_add_ps(partial[half], _mm512_mul_ps(levels[half], inputs[half]));
                }
            }
        }
        for (sum, [low, high]) in sums.iter_mut().zip(partial) {
            *sum = fold(_mm512_add_ps(low, high));
        }
    }
    scalar::sums(width, packed_rest, inputs, rest);
}

/// Adds the upper half to the lower one until one is left.
#[inline]
#[target_feature(enable = "avx512f")]
fn fold(x: __m512) -> f32 {
    let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x));
    let x = _mm256_add_ps(_mm512_castps512_ps256(x), _mm256_castpd_ps(high));
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8]) -> __m128i {
    let bytes: &[u8] = &bytes[..16];
    // SAFETY: there are 16 bytes.
    #[allow(unsafe_code)]
    unsafe {
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_ps(values: &[f32]) -> __m512 {
    let values: &[f32] = &values[..GROUP / 2];
    // SAFETY: there are 16 values.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_ps(values.as_ptr())
    }
}
