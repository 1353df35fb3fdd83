//! 32 lanes in two vectors of 16.

use crate::Isa;
use lsb_format::entropy::{DecodeTable, LANES, LOW, PRECISION, RunDecoder};
use std::arch::x86_64::*;

/// Lanes of a vector.
const HALF: usize = LANES / 2;

/// Decodes steps as long as there are words for all lanes, and says how many; none where the processor cannot.
pub(super) fn decode(run: &mut RunDecoder<'_>, table: &DecodeTable, steps: &mut [[u8; LANES]]) -> usize {
    if Isa::Avx512.is_available() {
        // SAFETY: the processor has what the function is compiled for.
        #[allow(unsafe_code)]
        return unsafe { decode_steps(run, table, steps) };
    }
    0
}

#[target_feature(enable = "avx512f,avx512bw,popcnt")]
fn decode_steps(run: &mut RunDecoder<'_>, table: &DecodeTable, steps: &mut [[u8; LANES]]) -> usize {
    let slots = table.slots();
    let words = run.words();
    let [mut low, mut high] = [load_u32(&run.states[..HALF]), load_u32(&run.states[HALF..])];
    let (mut taken, mut done) = (0, 0);
    for symbols in steps {
        let Some(window) = words[taken..].first_chunk::<LANES>() else { break };
        let first = step(&mut low, load_words(window), slots);
        // At most 16 words were taken: 16 more are there.
        let second = step(&mut high, load_words(&window[first.1..]), slots);
        taken += first.1 + second.1;
        let (out, _) = symbols.as_chunks_mut::<HALF>();
        for (out, entry) in out.iter_mut().zip([first.0, second.0]) {
            store(out, _mm512_cvtepi32_epi8(_mm512_srli_epi32::<24>(entry)));
        }
        done += 1;
    }
    run.take(taken);
    for (states, vector) in run.states.chunks_exact_mut(HALF).zip([low, high]) {
        store_u32(states, vector);
    }
    done
}

/// The next entry of each lane, and how many lanes took a word.
#[target_feature(enable = "avx512f,avx512bw,popcnt")]
#[inline]
fn step(states: &mut __m512i, refill: __m512i, slots: &[u32; 1 << PRECISION]) -> (__m512i, usize) {
    let field = _mm512_set1_epi32((1 << PRECISION) - 1);
    let slot = _mm512_and_si512(*states, field);
    // SAFETY: a slot is the low 12 bits of a state, and there are 2^12 slots.
    #[allow(unsafe_code)]
    let entry = unsafe { _mm512_i32gather_epi32::<4>(slot, slots.as_ptr().cast()) };
    let freq = _mm512_add_epi32(_mm512_and_si512(entry, field), _mm512_set1_epi32(1));
    let bias = _mm512_and_si512(_mm512_srli_epi32::<12>(entry), field);
    let high = _mm512_srli_epi32::<PRECISION>(*states);
    let next = _mm512_add_epi32(_mm512_mullo_epi32(freq, high), bias);
    // States are below 2^31.
    let low = _mm512_cmplt_epi32_mask(next, _mm512_set1_epi32(LOW as i32));
    let word = _mm512_maskz_expand_epi32(low, refill);
    *states = _mm512_mask_or_epi32(next, low, _mm512_slli_epi32::<16>(next), word);
    (entry, low.count_ones() as usize)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_u32(values: &[u32]) -> __m512i {
    let values: &[u32] = &values[..HALF];
    // SAFETY: there are 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_si512(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store_u32(out: &mut [u32], values: __m512i) {
    let out: &mut [u32] = &mut out[..HALF];
    // SAFETY: there is room for 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().cast(), values);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_words(words: &[[u8; 2]]) -> __m512i {
    let words: &[[u8; 2]] = &words[..HALF];
    // SAFETY: there are 16 words of two bytes.
    #[allow(unsafe_code)]
    let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
    _mm512_cvtepu16_epi32(words)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(out: &mut [u8; HALF], values: __m128i) {
    // SAFETY: there is room for 16 bytes.
    #[allow(unsafe_code)]
    unsafe {
        _mm_storeu_si128(out.as_mut_ptr().cast(), values);
    }
}
