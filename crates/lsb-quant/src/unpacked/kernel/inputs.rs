//! Activations in fixed point, eight of them in a vector: the bits that the loop in `unpacked/inputs.rs` gives.

use crate::Isa;
use crate::unpacked::form::GROUP;
use crate::unpacked::inputs::{Digits, ROUNDER, SMALLEST, Scale, Stored, Values};
use std::arch::x86_64::*;

/// Numbers of a vector.
const WIDE: usize = 8;

/// Vectors of a group.
const VECTORS: usize = GROUP / WIDE;

/// Stores activations, each times the step of its column, where there are steps, and two powers of two. False where the processor
/// cannot.
pub(in crate::unpacked) fn store(
    isa: Isa,
    x: &[f32],
    steps: &[f32],
    powers: [f32; 2],
    out: &mut Stored<'_>,
) -> bool {
    if !matches!(isa, Isa::Avx2 | Isa::Avx512) || !Isa::Avx2.is_available() {
        return false;
    }
    // SAFETY: the processor has what the function is compiled for.
    #[allow(unsafe_code)]
    unsafe {
        groups(x, steps, powers, out);
    }
    true
}

#[target_feature(enable = "avx2")]
fn groups(x: &[f32], steps: &[f32], powers: [f32; 2], out: &mut Stored<'_>) {
    let of_values = out.largest;
    let out = out.values.iter_mut().zip(&mut *out.digits).zip(&mut *out.scales);
    for (group, (x, ((values, digits), scale))) in x.chunks(GROUP).zip(out).enumerate() {
        let mut products = load(x);
        if let Some(steps) = steps.get(group * GROUP..).filter(|steps| !steps.is_empty()) {
            let steps = load(&steps[..x.len()]);
            for i in 0..VECTORS {
                products[i] = _mm256_mul_ps(products[i], steps[i]);
            }
        }
        for product in &mut products {
            *product = _mm256_mul_ps(*product, _mm256_set1_ps(powers[0]));
            *product = _mm256_mul_ps(*product, _mm256_set1_ps(powers[1]));
        }
        *scale = fixed(&products, of_values, values, digits);
    }
}

/// A group in fixed point, each value at most `of_values` in magnitude.
#[inline]
#[target_feature(enable = "avx2")]
fn fixed(products: &[__m256; VECTORS], of_values: f32, values: &mut Values, digits: &mut Digits) -> Scale {
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    let mut largest = _mm256_setzero_si256();
    for product in products {
        // As integers: infinity and NaN lie above all others.
        largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(*product), magnitude));
    }
    let mut four = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
    four = _mm_max_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    four = _mm_max_epi32(four, _mm_shuffle_epi32::<0b10_11_00_01>(four));
    let largest = f32::from_bits(_mm_cvtsi128_si32(four) as u32);
    if !largest.is_finite() || largest < SMALLEST {
        (*values, *digits) = Default::default();
        return if largest.is_finite() { Scale::default() } else { Scale { scale: f32::NAN, sum: 0 } };
    }
    let (inverse, rounder) = (_mm256_set1_ps(of_values / largest), _mm256_set1_ps(ROUNDER));
    let mut v = [_mm256_setzero_si256(); VECTORS];
    for (v, product) in v.iter_mut().zip(products) {
        let rounded = _mm256_add_ps(_mm256_mul_ps(*product, inverse), rounder);
        *v = _mm256_sub_epi32(_mm256_castps_si256(rounded), _mm256_castps_si256(rounder));
    }
    let all = _mm256_add_epi32(_mm256_add_epi32(v[0], v[1]), _mm256_add_epi32(v[2], v[3]));
    let mut four = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    four = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    four = _mm_add_epi32(four, _mm_shuffle_epi32::<0b10_11_00_01>(four));

    // Packing takes four numbers of each vector in turn: this brings pairs of words, or fours of bytes, in their order.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let f = _mm256_castsi256_ps;
    let [even, odd] = values;
    let evens = [
        _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(f(v[0]), f(v[1]))),
        _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(f(v[2]), f(v[3]))),
    ];
    let odds = [
        _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(f(v[0]), f(v[1]))),
        _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(f(v[2]), f(v[3]))),
    ];
    put_words(_mm256_permutevar8x32_epi32(_mm256_packs_epi32(evens[0], evens[1]), order), even);
    put_words(_mm256_permutevar8x32_epi32(_mm256_packs_epi32(odds[0], odds[1]), order), odd);

    let words = [_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3])];
    let half = _mm256_set1_epi16(0x80);
    let (mut high, mut low) = (words, words);
    for (high, low) in high.iter_mut().zip(&mut low) {
        *high = _mm256_srai_epi16::<8>(_mm256_add_epi16(*high, half));
        *low = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(*low));
    }
    let [high_digits, low_digits] = digits;
    put_bytes(_mm256_permutevar8x32_epi32(_mm256_packs_epi16(high[0], high[1]), order), high_digits);
    put_bytes(_mm256_permutevar8x32_epi32(_mm256_packs_epi16(low[0], low[1]), order), low_digits);
    Scale { scale: largest / of_values, sum: _mm_cvtsi128_si32(four) }
}

/// The numbers of a group, of which the last ones may be missing.
#[inline]
#[target_feature(enable = "avx2")]
fn load(x: &[f32]) -> [__m256; VECTORS] {
    let mut padded = [0.0; GROUP];
    let x = match <&[f32; GROUP]>::try_from(x) {
        Ok(x) => x,
        Err(_) => {
            padded[..x.len()].copy_from_slice(x);
            &padded
        }
    };
    let mut vectors = [_mm256_setzero_ps(); VECTORS];
    for (vector, x) in vectors.iter_mut().zip(x.as_chunks::<WIDE>().0) {
        // SAFETY: there are eight numbers.
        #[allow(unsafe_code)]
        unsafe {
            *vector = _mm256_loadu_ps(x.as_ptr());
        }
    }
    vectors
}

#[inline]
#[target_feature(enable = "avx2")]
fn put_words(words: __m256i, out: &mut [i16; GROUP / 2]) {
    // SAFETY: there is room for 32 bytes.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast(), words);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn put_bytes(bytes: __m256i, out: &mut [i8; GROUP]) {
    // SAFETY: there is room for 32 bytes.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes);
    }
}
