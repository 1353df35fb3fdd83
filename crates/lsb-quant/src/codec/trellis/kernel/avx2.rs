//! 32 lanes in four vectors of 8.

use super::{Code, Escape, Progress};
use lsb_format::entropy::{LANES, LOW, PRECISION, RunDecoder};
use std::arch::x86_64::*;

/// Lanes of a vector.
const PART: usize = 8;

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

/// Decodes steps as long as there are words for all lanes, or does nothing where the processor cannot.
pub(super) fn decode(run: &mut RunDecoder<'_>, code: &Code<'_>, progress: &mut Progress<'_>) {
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        #[allow(unsafe_code)]
        unsafe {
            decode_steps(run, code, progress);
        }
    }
}

/// 8 lanes.
#[derive(Clone, Copy)]
struct Lanes {
    /// States of the entropy coder.
    coder: __m256i,
    /// States of the trellis.
    trellis: __m256i,
}

/// Bits of states: see [`super::super::machine::Machine`].
#[derive(Clone, Copy)]
struct Masks {
    odd: __m256i,
    turn: __m256i,
    all: __m256i,
}

#[target_feature(enable = "avx2")]
fn decode_steps(run: &mut RunDecoder<'_>, code: &Code<'_>, progress: &mut Progress<'_>) {
    let words = run.words();
    let (odd, turn, mask) = code.machine.masks();
    let masks = Masks {
        odd: _mm256_set1_epi32(i32::from(odd)),
        turn: _mm256_set1_epi32(i32::from(turn)),
        all: _mm256_set1_epi32(i32::from(mask)),
    };
    let mut lanes = [0, 1, 2, 3].map(|part| Lanes {
        coder: load_u32(&run.states[part * PART..]),
        trellis: widen(&progress.states[part * PART..]),
    });
    let mut taken = 0;
    let mut until_restart = code.restart - progress.step % code.restart;
    let slots = code.tables.as_ptr().cast::<i32>();
    while progress.step < code.map.len() {
        let Some(window) = words[taken..].first_chunk::<LANES>() else { break };
        let (classes, levels) = (&code.map[progress.step], &mut progress.levels[progress.step]);
        let mut here = 0;
        for (part, lanes) in lanes.iter_mut().enumerate() {
            let first = part * PART;
            let class = widen(&classes[first..]);
            // The parts before took at most 8 words each: 8 more are there.
            let refill = load_words(&window[here..]);
            // SAFETY: the tables of class c are 2 c and 2 c + 1 and all of them are there (asserted by the caller); a slot is
            // the low 12 bits of a state, and a table has 2^12 slots of four bytes, one table behind the other.
            #[allow(unsafe_code)]
            let (level, set, low) = unsafe { step(lanes, class, refill, &masks, slots) };
            here += low.count_ones() as usize;
            store_i32(&mut levels[first..], level);
            // Symbols 0 and 1 are levels -256 to -253.
            let escaped = to_mask(_mm256_cmpgt_epi32(_mm256_set1_epi32(2 * (2 - 128)), level));
            if escaped != 0 {
                let sets = to_array(set);
                for lane in (0..PART).filter(|lane| escaped >> lane & 1 == 1) {
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
            lanes.iter_mut().for_each(|lanes| lanes.trellis = _mm256_setzero_si256());
        }
    }
    run.take(taken);
    for (part, lanes) in lanes.iter().enumerate() {
        let (coder, trellis) = (to_array(lanes.coder), to_array(lanes.trellis));
        for lane in 0..PART {
            run.states[part * PART + lane] = coder[lane];
            progress.states[part * PART + lane] = trellis[lane] as u8;
        }
    }
}

/// The next level of each lane, its set, and which lanes took a word.
///
/// # Safety
/// There are `2 * (class + 1)` tables of 4096 slots at `slots` for each class.
#[target_feature(enable = "avx2")]
#[inline]
#[allow(unsafe_code)]
unsafe fn step(
    lanes: &mut Lanes,
    class: __m256i,
    refill: __m256i,
    masks: &Masks,
    slots: *const i32,
) -> (__m256i, __m256i, u8) {
    let one = _mm256_set1_epi32(1);
    // Two parities at once: of the bits that say whether levels are odd, at bit 0, and of those that turn the bit that goes in,
    // at bit 8.
    let turned = _mm256_slli_epi32::<8>(_mm256_and_si256(lanes.trellis, masks.turn));
    let mut parities = _mm256_or_si256(_mm256_and_si256(lanes.trellis, masks.odd), turned);
    parities = _mm256_xor_si256(parities, _mm256_srli_epi32::<4>(parities));
    parities = _mm256_xor_si256(parities, _mm256_srli_epi32::<2>(parities));
    parities = _mm256_xor_si256(parities, _mm256_srli_epi32::<1>(parities));
    let set = _mm256_and_si256(parities, one);

    let slot = _mm256_and_si256(lanes.coder, _mm256_set1_epi32((1 << PRECISION) - 1));
    let table = _mm256_add_epi32(_mm256_slli_epi32::<13>(class), _mm256_slli_epi32::<12>(set));
    // SAFETY: the caller's promise.
    let entry = unsafe { _mm256_i32gather_epi32::<4>(slots, _mm256_or_si256(table, slot)) };
    let field = _mm256_set1_epi32(0xfff);
    let freq = _mm256_add_epi32(_mm256_and_si256(entry, field), one);
    let bias = _mm256_and_si256(_mm256_srli_epi32::<12>(entry), field);
    let symbol = _mm256_srli_epi32::<24>(entry);
    let high = _mm256_srli_epi32::<{ PRECISION as i32 }>(lanes.coder);
    let coder = _mm256_add_epi32(_mm256_mullo_epi32(freq, high), bias);
    // States are below 2^31.
    let is_low = _mm256_cmpgt_epi32(_mm256_set1_epi32(LOW as i32), coder);
    let low = to_mask(is_low);
    let places = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(EXPAND[usize::from(low)] as i64));
    let word = _mm256_permutevar8x32_epi32(refill, places);
    let refilled = _mm256_or_si256(_mm256_slli_epi32::<16>(coder), word);
    lanes.coder = _mm256_blendv_epi8(coder, refilled, is_low);

    let bit = _mm256_and_si256(_mm256_xor_si256(symbol, _mm256_srli_epi32::<8>(parities)), one);
    let shifted = _mm256_or_si256(_mm256_slli_epi32::<1>(lanes.trellis), bit);
    lanes.trellis = _mm256_and_si256(shifted, masks.all);
    let center = _mm256_set1_epi32(2 * 128);
    let level = _mm256_sub_epi32(_mm256_add_epi32(_mm256_slli_epi32::<1>(symbol), set), center);
    (level, set, low)
}

/// The top bit of each lane.
#[target_feature(enable = "avx2")]
#[inline]
fn to_mask(values: __m256i) -> u8 {
    _mm256_movemask_ps(_mm256_castsi256_ps(values)) as u8
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_u32(values: &[u32]) -> __m256i {
    let values: &[u32] = &values[..PART];
    // SAFETY: there are 8 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_loadu_si256(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn widen(bytes: &[u8]) -> __m256i {
    let bytes = bytes.first_chunk::<PART>().copied().unwrap_or_default();
    _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_words(words: &[[u8; 2]]) -> __m256i {
    let words: &[[u8; 2]] = &words[..PART];
    // SAFETY: there are 8 words of two bytes.
    #[allow(unsafe_code)]
    let words = unsafe { _mm_loadu_si128(words.as_ptr().cast()) };
    _mm256_cvtepu16_epi32(words)
}

#[target_feature(enable = "avx2")]
#[inline]
fn store_i32(out: &mut [i32], values: __m256i) {
    let out: &mut [i32] = &mut out[..PART];
    // SAFETY: there is room for 8 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast(), values);
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn to_array(values: __m256i) -> [u32; PART] {
    let mut out = [0; PART];
    // SAFETY: there is room for 8 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast(), values);
    }
    out
}
