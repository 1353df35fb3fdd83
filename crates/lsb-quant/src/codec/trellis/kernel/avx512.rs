//! 32 lanes in two vectors of 16, of one tile or of two.

use super::{Register, Stream};
use crate::isa::Isa;
use lsb_format::entropy::{LANES, LOW, PRECISION};
use std::arch::x86_64::*;

/// Lanes of a vector.
const HALF: usize = LANES / 2;

/// Decodes rows of the group that every tile is at, as long as there are words for all lanes, and says how many; none
/// where the processor cannot.
pub(super) fn decode<const K: usize>(streams: [&mut Stream<'_>; K]) -> usize {
    if Isa::Avx512.is_available() {
        // SAFETY: the processor has what the function is compiled for.
        #[allow(unsafe_code)]
        return unsafe { decode_rows(streams) };
    }
    0
}

/// 16 lanes of a tile.
#[derive(Clone, Copy)]
struct Lanes {
    /// States of the entropy coder.
    coder: __m512i,
    /// Registers of the trellis.
    trellis: __m512i,
    /// What columns add to classes, and the largest classes: numbers of slots.
    cols: __m512i,
    caps: __m512i,
}

#[target_feature(enable = "avx512f,avx512bw,popcnt")]
fn decode_rows<const K: usize>(mut streams: [&mut Stream<'_>; K]) -> usize {
    let mut lanes = std::array::from_fn::<_, K, _>(|k| {
        let stream = &*streams[k];
        let (cols, caps) = (&stream.code.cols[stream.group], stream.code.caps(stream.group));
        [0, HALF].map(|first| Lanes {
            coder: load_u32(&stream.run.states[first..]),
            trellis: load_u32(&stream.trellis.map(|r| r.0)[first..]),
            cols: _mm512_slli_epi32::<{ PRECISION + 1 }>(widen(&cols[first..])),
            caps: _mm512_slli_epi32::<{ PRECISION + 1 }>(widen(&caps[first..])),
        })
    });
    let codes = std::array::from_fn::<_, K, _>(|k| streams[k].code);
    let words = std::array::from_fn::<_, K, _>(|k| streams[k].run.words());
    let slots = codes.map(|code| code.tables.as_ptr().cast::<i32>());
    let taps = codes.map(|code| _mm512_set1_epi32(code.taps as i32));
    let mut taken = [0; K];
    let mut levels = streams.each_mut().map(|stream| stream.levels.iter_mut());
    let rows = codes[0].rows.len();
    let mut done = rows;
    'rows: for row in 0..rows {
        let mut windows = [&[[0; 2]; LANES]; K];
        for k in 0..K {
            let Some(window) = words[k][taken[k]..].first_chunk::<LANES>() else {
                done = row;
                break 'rows;
            };
            windows[k] = window;
        }
        for k in 0..K {
            let mut halves = [_mm512_setzero_si512(); 2];
            let mut here = 0;
            let term = _mm512_set1_epi32(i32::from(codes[k].rows[row]) << (PRECISION + 1));
            for (lanes, half) in lanes[k].iter_mut().zip(&mut halves) {
                // At most 16 words were taken by the first half: 16 more are there.
                let refill = load_words(&windows[k][here..]);
                // SAFETY: the tables of class c are 2 c and 2 c + 1 and those of the largest class, the caps, are there; a slot
                // is the low 12 bits of a state, and a table has 2^12 slots of four bytes, one table behind the other.
                #[allow(unsafe_code)]
                let (level, low) = unsafe { step(lanes, term, refill, taps[k], slots[k]) };
                here += low.count_ones() as usize;
                *half = level;
            }
            taken[k] += here;
            let symbols = _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(_mm512_cvtepi32_epi16(halves[0])),
                _mm512_cvtepi32_epi16(halves[1]),
            );
            if let Some(levels) = levels[k].next() {
                store(levels, _mm512_sub_epi16(symbols, _mm512_set1_epi16(2 * 128)));
            }
        }
    }
    for (k, stream) in streams.iter_mut().enumerate() {
        stream.run.take(taken[k]);
        for (half, lanes) in lanes[k].iter().enumerate() {
            let (coder, trellis) = (to_array(lanes.coder), to_array(lanes.trellis));
            for lane in 0..HALF {
                stream.run.states[half * HALF + lane] = coder[lane];
                stream.trellis[half * HALF + lane] = Register(trellis[lane]);
            }
        }
    }
    done
}

/// The next level of each lane, plus 256, and which lanes took a word.
///
/// # Safety
/// There are as many slots at `slots` as the lanes' caps say, and two tables more.
#[target_feature(enable = "avx512f,avx512bw,popcnt")]
#[inline]
#[allow(unsafe_code)]
unsafe fn step(
    lanes: &mut Lanes,
    term: __m512i,
    refill: __m512i,
    taps: __m512i,
    slots: *const i32,
) -> (__m512i, u16) {
    // Truth tables over (a, b, c): a where c has ones and b elsewhere; a | b & c; a ^ b & c.
    const CHOOSE: i32 = 0b1110_0100;
    const OR_AND: i32 = 0b1111_1000;
    const XOR_AND: i32 = 0b0111_1000;
    let one = _mm512_set1_epi32(1);
    let field = _mm512_set1_epi32((1 << PRECISION) - 1);

    // The table: that of the class, or the one after it where levels are odd.
    let class = _mm512_max_epi32(_mm512_add_epi32(term, lanes.cols), _mm512_setzero_si512());
    let class = _mm512_min_epi32(class, lanes.caps);
    let odd = _mm512_set1_epi32(1 << Register::SET);
    let table = _mm512_ternarylogic_epi32::<OR_AND>(class, lanes.trellis, odd);
    let slot = _mm512_ternarylogic_epi32::<OR_AND>(table, lanes.coder, field);
    // SAFETY: the caller's promise.
    let entry = unsafe { _mm512_i32gather_epi32::<4>(slot, slots) };

    let freq = _mm512_add_epi32(_mm512_and_si512(entry, field), one);
    let bias = _mm512_and_si512(_mm512_srli_epi32::<12>(entry), field);
    let high = _mm512_srli_epi32::<PRECISION>(lanes.coder);
    let coder = _mm512_add_epi32(_mm512_mullo_epi32(freq, high), bias);
    // States are below 2^31.
    let low = _mm512_cmplt_epi32_mask(coder, _mm512_set1_epi32(LOW as i32));
    let word = _mm512_maskz_expand_epi32(low, refill);
    lanes.coder = _mm512_mask_or_epi32(coder, low, _mm512_slli_epi32::<16>(coder), word);

    // Twice the symbol, and the set below it.
    let set = _mm512_srli_epi32::<{ Register::SET }>(lanes.trellis);
    let level = _mm512_ternarylogic_epi32::<CHOOSE>(set, _mm512_srli_epi32::<23>(entry), one);
    // The lowest bit of the symbol, turned, in all bits.
    let turned = _mm512_xor_si512(entry, lanes.trellis);
    let bit = _mm512_srai_epi32::<31>(_mm512_slli_epi32::<{ 31 - Register::TURN }>(turned));
    let stay = _mm512_set1_epi32(Register::STAY as i32);
    let moved = _mm512_and_si512(_mm512_srli_epi32::<1>(lanes.trellis), stay);
    lanes.trellis = _mm512_ternarylogic_epi32::<XOR_AND>(moved, bit, taps);
    (level, low)
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
fn widen(values: &[i16]) -> __m512i {
    let values: &[i16] = &values[..HALF];
    // SAFETY: there are 16 numbers of 16 bits.
    #[allow(unsafe_code)]
    let values = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
    _mm512_cvtepi16_epi32(values)
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
fn store(out: &mut [i16; LANES], values: __m512i) {
    // SAFETY: there is room for 32 numbers of 16 bits.
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
