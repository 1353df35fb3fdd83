//! 32 lanes in two vectors of 16.

use super::{Code, Escape, Progress};
use lsb_format::entropy::{LANES, LOW, PRECISION, RunDecoder};
use std::arch::x86_64::*;

/// Lanes of a vector.
const HALF: usize = LANES / 2;

/// Decodes steps as long as there are words for all lanes, or does nothing where the processor cannot.
pub(super) fn decode(run: &mut RunDecoder<'_>, code: &Code<'_>, progress: &mut Progress<'_>) {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        // SAFETY: the processor has what the function is compiled for.
        #[allow(unsafe_code)]
        unsafe {
            decode_steps(run, code, progress);
        }
    }
}

/// 16 lanes.
#[derive(Clone, Copy)]
struct Lanes {
    /// States of the entropy coder.
    coder: __m512i,
    /// States of the trellis.
    trellis: __m512i,
}

#[target_feature(enable = "avx512f,avx512bw")]
fn decode_steps(run: &mut RunDecoder<'_>, code: &Code<'_>, progress: &mut Progress<'_>) {
    let words = run.words();
    let (odd, turn, mask) = code.machine.masks();
    let masks = Masks {
        odd: _mm512_set1_epi32(i32::from(odd)),
        turn: _mm512_set1_epi32(i32::from(turn)),
        all: _mm512_set1_epi32(i32::from(mask)),
    };
    let mut lanes = [0, HALF].map(|first| Lanes {
        coder: load_u32(&run.states[first..]),
        trellis: widen(&progress.states[first..]),
    });
    let mut taken = 0;
    let mut until_restart = code.restart - progress.step % code.restart;
    let slots = code.tables.as_ptr().cast::<i32>();
    while progress.step < code.map.len() {
        let Some(window) = words[taken..].first_chunk::<LANES>() else { break };
        let (classes, levels) = (&code.map[progress.step], &mut progress.levels[progress.step]);
        let mut here = 0;
        for (half, lanes) in lanes.iter_mut().enumerate() {
            let first = half * HALF;
            let class = widen(&classes[first..]);
            // At most 16 words were taken by the first half: 16 more are there.
            let refill = load_words(&window[here..]);
            // SAFETY: the tables of class c are 2 c and 2 c + 1 and all of them are there (asserted by the caller); a slot is
            // the low 12 bits of a state, and a table has 2^12 slots of four bytes, one table behind the other.
            #[allow(unsafe_code)]
            let (level, set, low) = unsafe { step(lanes, class, refill, &masks, slots) };
            here += low.count_ones() as usize;
            store_i32(&mut levels[first..], level);
            // Symbols 0 and 1 are levels -256 to -253.
            let escaped = _mm512_cmplt_epi32_mask(level, _mm512_set1_epi32(2 * (2 - 128)));
            if escaped != 0 {
                let sets = to_array(set);
                for lane in (0..HALF).filter(|lane| escaped >> lane & 1 == 1) {
                    let symbol = (levels[first + lane] >> 1) + 128;
                    let at = LANES * progress.step + first + lane;
                    progress.escapes.push(Escape { at, set: sets[lane] as u8, symbol: symbol as u8 });
                }
            }
        }
        taken += here;
        progress.step += 1;
        until_restart -= 1;
        if until_restart == 0 {
            until_restart = code.restart;
            lanes.iter_mut().for_each(|lanes| lanes.trellis = _mm512_setzero_si512());
        }
    }
    run.take(taken);
    for (half, lanes) in lanes.iter().enumerate() {
        let (coder, trellis) = (to_array(lanes.coder), to_array(lanes.trellis));
        for lane in 0..HALF {
            run.states[half * HALF + lane] = coder[lane];
            progress.states[half * HALF + lane] = trellis[lane] as u8;
        }
    }
}

/// Bits of states: see [`super::super::machine::Machine`].
#[derive(Clone, Copy)]
struct Masks {
    odd: __m512i,
    turn: __m512i,
    all: __m512i,
}

/// The next level of each lane, its set, and which lanes took a word.
///
/// # Safety
/// There are `2 * (class + 1)` tables of 4096 slots at `slots` for each class.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
#[allow(unsafe_code)]
unsafe fn step(
    lanes: &mut Lanes,
    class: __m512i,
    refill: __m512i,
    masks: &Masks,
    slots: *const i32,
) -> (__m512i, __m512i, u16) {
    let one = _mm512_set1_epi32(1);
    // Two parities at once: of the bits that say whether levels are odd, at bit 0, and of those that turn the bit that goes in,
    // at bit 8.
    let turned = _mm512_slli_epi32::<8>(_mm512_and_si512(lanes.trellis, masks.turn));
    let mut parities = _mm512_or_si512(_mm512_and_si512(lanes.trellis, masks.odd), turned);
    parities = _mm512_xor_si512(parities, _mm512_srli_epi32::<4>(parities));
    parities = _mm512_xor_si512(parities, _mm512_srli_epi32::<2>(parities));
    parities = _mm512_xor_si512(parities, _mm512_srli_epi32::<1>(parities));
    let set = _mm512_and_si512(parities, one);

    let slot = _mm512_and_si512(lanes.coder, _mm512_set1_epi32((1 << PRECISION) - 1));
    let table = _mm512_add_epi32(_mm512_slli_epi32::<13>(class), _mm512_slli_epi32::<12>(set));
    // SAFETY: the caller's promise.
    let entry = unsafe { _mm512_i32gather_epi32::<4>(_mm512_or_si512(table, slot), slots) };
    let field = _mm512_set1_epi32(0xfff);
    let freq = _mm512_add_epi32(_mm512_and_si512(entry, field), one);
    let bias = _mm512_and_si512(_mm512_srli_epi32::<12>(entry), field);
    let symbol = _mm512_srli_epi32::<24>(entry);
    let high = _mm512_srli_epi32::<PRECISION>(lanes.coder);
    let coder = _mm512_add_epi32(_mm512_mullo_epi32(freq, high), bias);
    // States are below 2^31.
    let low = _mm512_cmplt_epi32_mask(coder, _mm512_set1_epi32(LOW as i32));
    let word = _mm512_maskz_expand_epi32(low, refill);
    lanes.coder = _mm512_mask_or_epi32(coder, low, _mm512_slli_epi32::<16>(coder), word);

    let bit = _mm512_and_si512(_mm512_xor_si512(symbol, _mm512_srli_epi32::<8>(parities)), one);
    let shifted = _mm512_or_si512(_mm512_slli_epi32::<1>(lanes.trellis), bit);
    lanes.trellis = _mm512_and_si512(shifted, masks.all);
    let center = _mm512_set1_epi32(2 * 128);
    let level = _mm512_sub_epi32(_mm512_add_epi32(_mm512_slli_epi32::<1>(symbol), set), center);
    (level, set, low)
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
fn widen(bytes: &[u8]) -> __m512i {
    let bytes: &[u8] = &bytes[..HALF];
    // SAFETY: there are 16 bytes.
    #[allow(unsafe_code)]
    let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm512_cvtepu8_epi32(bytes)
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
fn store_i32(out: &mut [i32], values: __m512i) {
    let out: &mut [i32] = &mut out[..HALF];
    // SAFETY: there is room for 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().cast(), values);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn to_array(values: __m512i) -> [u32; HALF] {
    let mut out = [0; HALF];
    // SAFETY: there is room for 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().cast(), values);
    }
    out
}
