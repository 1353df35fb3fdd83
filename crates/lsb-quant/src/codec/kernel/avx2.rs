//! 32 lanes in four vectors of 8.

use super::coder::avx2::{PART, advance, load_u32, load_words, store_u32};
use crate::Isa;
use lsb_format::entropy::{DecodeTable, LANES, PRECISION, RunDecoder};
use std::arch::x86_64::*;

/// Decodes steps as long as there are words for all lanes, and says how many; none where the processor cannot.
pub(super) fn decode(run: &mut RunDecoder<'_>, table: &DecodeTable, steps: &mut [[u8; LANES]]) -> usize {
    if Isa::Avx2.is_available() {
        // SAFETY: the processor has what the function is compiled for.
        #[allow(unsafe_code)]
        return unsafe { decode_steps(run, table, steps) };
    }
    0
}

#[target_feature(enable = "avx2,popcnt")]
fn decode_steps(run: &mut RunDecoder<'_>, table: &DecodeTable, steps: &mut [[u8; LANES]]) -> usize {
    let slots = table.slots();
    let words = run.words();
    let mut a = load_u32(&run.states[..PART]);
    let mut b = load_u32(&run.states[PART..]);
    let mut c = load_u32(&run.states[2 * PART..]);
    let mut d = load_u32(&run.states[3 * PART..]);
    let (mut taken, mut done) = (0, 0);
    for symbols in steps {
        let Some(window) = words[taken..].first_chunk::<LANES>() else { break };
        // Of the words each takes at most 8: as many are there for those that follow.
        let mut here = 0;
        let first = step(&mut a, window, &mut here, slots);
        let second = step(&mut b, window, &mut here, slots);
        let third = step(&mut c, window, &mut here, slots);
        let fourth = step(&mut d, window, &mut here, slots);
        taken += here;
        // Packing works on halves of vectors.
        let low = _mm256_packus_epi32(first, second);
        let high = _mm256_packus_epi32(third, fourth);
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        store(symbols, _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order));
        done += 1;
    }
    run.take(taken);
    for (states, vector) in run.states.chunks_exact_mut(PART).zip([a, b, c, d]) {
        store_u32(states, vector);
    }
    done
}

/// The next symbol of each lane; `taken` words of the window are gone, and then more.
#[target_feature(enable = "avx2,popcnt")]
#[inline]
fn step(
    states: &mut __m256i,
    window: &[[u8; 2]; LANES],
    taken: &mut usize,
    slots: &[u32; 1 << PRECISION],
) -> __m256i {
    let field = _mm256_set1_epi32((1 << PRECISION) - 1);
    let slot = _mm256_and_si256(*states, field);
    // SAFETY: a slot is the low 12 bits of a state, and there are 2^12 slots.
    #[allow(unsafe_code)]
    let entry = unsafe { _mm256_i32gather_epi32::<4>(slots.as_ptr().cast(), slot) };
    *taken += advance(states, entry, load_words(&window[*taken..]));
    _mm256_srli_epi32::<24>(entry)
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(out: &mut [u8; LANES], values: __m256i) {
    // SAFETY: there is room for 32 bytes.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast(), values);
    }
}
