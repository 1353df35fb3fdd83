//! 32 lanes in two vectors of 16.

use super::coder::avx512::{HALF, advance, load_u32, load_words, store_u32};
use crate::Isa;
use lsb_format::entropy::{DecodeTable, LANES, PRECISION, RunDecoder};
use std::arch::x86_64::*;

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
    let taken = advance(states, entry, refill);
    (entry, taken)
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
