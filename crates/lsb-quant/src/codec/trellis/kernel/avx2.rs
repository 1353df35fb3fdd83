//! 32 lanes in four vectors of 8, of one tile or of two.

use super::{Register, Stream};
use crate::codec::kernel::avx2::{PART, advance, load_u32, load_words, store_u32};
use crate::isa::Isa;
use lsb_format::entropy::{LANES, PRECISION};
use std::arch::x86_64::*;

/// Decodes rows of the group that every tile is at, as long as there are words for all lanes, and says how many; none
/// where the processor cannot.
pub(super) fn decode<const K: usize>(streams: [&mut Stream<'_>; K]) -> usize {
    if Isa::Avx2.is_available() {
        // SAFETY: the processor has what the function is compiled for.
        #[allow(unsafe_code)]
        return unsafe { decode_rows(streams) };
    }
    0
}

/// 8 lanes of a tile.
#[derive(Clone, Copy)]
struct Lanes {
    /// States of the entropy coder.
    coder: __m256i,
    /// Registers of the trellis.
    trellis: __m256i,
    /// What columns add to classes, and the largest classes: numbers of slots.
    cols: __m256i,
    caps: __m256i,
}

#[target_feature(enable = "avx2,popcnt")]
fn decode_rows<const K: usize>(mut streams: [&mut Stream<'_>; K]) -> usize {
    let mut lanes = std::array::from_fn::<_, K, _>(|k| {
        let stream = &*streams[k];
        let (cols, caps) = (&stream.code.cols[stream.group], stream.code.caps(stream.group));
        [0, 1, 2, 3].map(|part| Lanes {
            coder: load_u32(&stream.run.states[part * PART..]),
            trellis: load_u32(&stream.trellis.map(|r| r.0)[part * PART..]),
            cols: _mm256_slli_epi32::<{ PRECISION as i32 + 1 }>(widen(&cols[part * PART..])),
            caps: _mm256_slli_epi32::<{ PRECISION as i32 + 1 }>(widen(&caps[part * PART..])),
        })
    });
    let codes = std::array::from_fn::<_, K, _>(|k| streams[k].code);
    let words = std::array::from_fn::<_, K, _>(|k| streams[k].run.words());
    let slots = codes.map(|code| code.tables.as_ptr().cast::<i32>());
    let taps = codes.map(|code| _mm256_set1_epi32(code.taps as i32));
    let mut taken = [0; K];
    let mut lowest = [_mm256_setzero_si256(); K];
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
            let mut parts = [_mm256_setzero_si256(); 4];
            let mut here = 0;
            let term = _mm256_set1_epi32(i32::from(codes[k].rows[row]) << (PRECISION + 1));
            for (lanes, part) in lanes[k].iter_mut().zip(&mut parts) {
                // The parts before took at most 8 words each: 8 more are there.
                let refill = load_words(&windows[k][here..]);
                // SAFETY: the tables of class c are 2 c and 2 c + 1 and those of the largest class, the caps, are there; a slot
                // is the low 12 bits of a state, and a table has 2^12 slots of four bytes, one table behind the other.
                #[allow(unsafe_code)]
                let (level, words) = unsafe { step(lanes, term, refill, taps[k], slots[k]) };
                here += words;
                *part = level;
            }
            taken[k] += here;
            let Some(levels) = levels[k].next() else { continue };
            for (levels, [a, b]) in
                levels.chunks_mut(2 * PART).zip([[parts[0], parts[1]], [parts[2], parts[3]]])
            {
                // Packing interleaves quarters of the two vectors.
                let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
                let values = _mm256_sub_epi16(packed, _mm256_set1_epi16(2 * 128));
                lowest[k] = _mm256_min_epi16(lowest[k], values);
                store(levels, values);
            }
        }
    }
    for (k, stream) in streams.iter_mut().enumerate() {
        stream.run.take(taken[k]);
        let mut all = [0; 2 * PART];
        store(&mut all, lowest[k]);
        stream.lowest = all.into_iter().fold(stream.lowest, i16::min);
        for (part, lanes) in lanes[k].iter().enumerate() {
            let (coder, trellis) = (to_array(lanes.coder), to_array(lanes.trellis));
            for lane in 0..PART {
                stream.run.states[part * PART + lane] = coder[lane];
                stream.trellis[part * PART + lane] = Register(trellis[lane]);
            }
        }
    }
    done
}

/// The next level of each lane, plus 256, and how many lanes took a word.
///
/// # Safety
/// There are as many slots at `slots` as the lanes' caps say, and two tables more.
#[target_feature(enable = "avx2,popcnt")]
#[inline]
#[allow(unsafe_code)]
unsafe fn step(
    lanes: &mut Lanes,
    term: __m256i,
    refill: __m256i,
    taps: __m256i,
    slots: *const i32,
) -> (__m256i, usize) {
    let field = _mm256_set1_epi32((1 << PRECISION) - 1);

    // The table: that of the class, or the one after it where levels are odd.
    let class = _mm256_max_epi32(_mm256_add_epi32(term, lanes.cols), _mm256_setzero_si256());
    let class = _mm256_min_epi32(class, lanes.caps);
    let odd = _mm256_and_si256(lanes.trellis, _mm256_set1_epi32(1 << Register::SET));
    let slot = _mm256_and_si256(lanes.coder, field);
    let slot = _mm256_or_si256(_mm256_or_si256(class, odd), slot);
    // SAFETY: the caller's promise.
    let entry = unsafe { _mm256_i32gather_epi32::<4>(slots, slot) };

    let taken = advance(&mut lanes.coder, entry, refill);

    // Twice the symbol, and the set below it.
    let symbol = _mm256_slli_epi32::<1>(_mm256_srli_epi32::<24>(entry));
    let level = _mm256_or_si256(symbol, _mm256_srli_epi32::<{ Register::SET as i32 }>(odd));
    // The lowest bit of the symbol, turned, in all bits.
    let turned = _mm256_xor_si256(entry, lanes.trellis);
    let bit = _mm256_srai_epi32::<31>(_mm256_slli_epi32::<{ 31 - Register::TURN as i32 }>(turned));
    let moved =
        _mm256_and_si256(_mm256_srli_epi32::<1>(lanes.trellis), _mm256_set1_epi32(Register::STAY as i32));
    lanes.trellis = _mm256_xor_si256(moved, _mm256_and_si256(bit, taps));
    (level, taken)
}

#[target_feature(enable = "avx2")]
#[inline]
fn widen(values: &[i16]) -> __m256i {
    let values: &[i16] = &values[..PART];
    // SAFETY: there are 8 numbers of 16 bits.
    #[allow(unsafe_code)]
    let values = unsafe { _mm_loadu_si128(values.as_ptr().cast()) };
    _mm256_cvtepi16_epi32(values)
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(out: &mut [i16], values: __m256i) {
    let out: &mut [i16] = &mut out[..2 * PART];
    // SAFETY: there is room for 16 numbers of 16 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast(), values);
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn to_array(values: __m256i) -> [u32; PART] {
    let mut out = [0; PART];
    store_u32(&mut out, values);
    out
}
