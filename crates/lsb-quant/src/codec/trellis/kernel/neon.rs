//! 32 lanes in eight vectors of 4, of one tile or of two. There is no gather: entries of tables are loaded one by one,
//! straight into lanes.

use super::{Code, ODD_BITS, Register, Stream, TABLE_BITS, correct};
use crate::isa::Isa;
use lsb_format::entropy::{BUCKET_BITS, LANES, LOW, PRECISION};
use std::arch::aarch64::*;

/// Lanes of a vector.
const PART: usize = 4;
/// Vectors of a tile.
const PARTS: usize = LANES / PART;

/// For each set of lanes that take a word: which bytes of the next words each lane takes. Bytes beyond the end give zeros.
static EXPAND: [[u8; 4 * PART]; 1 << PART] = {
    let mut table = [[u8::MAX; 4 * PART]; 1 << PART];
    let mut mask = 0;
    while mask < 1 << PART {
        let (mut lane, mut next) = (0, 0);
        while lane < PART {
            table[mask][4 * lane] = 2 * next;
            table[mask][4 * lane + 1] = 2 * next + 1;
            next += (mask >> lane & 1) as u8;
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// For each lane its bit of a mask, and a one above all of these: a sum over lanes is a mask and how many are in it.
static MASK_AND_COUNT: [u32; PART] = [1 | 1 << PART, 2 | 1 << PART, 4 | 1 << PART, 8 | 1 << PART];

/// Decodes rows of the group that every tile is at, as long as there are words for all lanes, and says how many; none
/// where the processor cannot.
pub(super) fn decode<const K: usize>(streams: [&mut Stream<'_>; K]) -> usize {
    if Isa::Neon.is_available() {
        // SAFETY: the processor has what the function is compiled for.
        #[allow(unsafe_code)]
        return unsafe { decode_rows(streams) };
    }
    0
}

/// 4 lanes of a tile.
#[derive(Clone, Copy)]
struct Lanes {
    /// States of the entropy coder.
    coder: uint32x4_t,
    /// Registers of the trellis.
    trellis: uint32x4_t,
    /// What columns add to classes, and the largest classes: numbers of buckets.
    cols: int32x4_t,
    caps: int32x4_t,
}

#[target_feature(enable = "neon")]
fn decode_rows<const K: usize>(mut streams: [&mut Stream<'_>; K]) -> usize {
    let mut lanes = std::array::from_fn::<_, K, _>(|k| {
        let stream = &*streams[k];
        let (cols, caps) = (&stream.code.cols[stream.group], stream.code.caps(stream.group));
        std::array::from_fn::<_, PARTS, _>(|part| Lanes {
            coder: load_u32(&stream.run.states[part * PART..]),
            trellis: load_u32(&stream.trellis.map(|r| u32::from(r.0))[part * PART..]),
            cols: vshlq_n_s32::<{ TABLE_BITS as i32 + 1 }>(widen(&cols[part * PART..])),
            caps: vshlq_n_s32::<{ TABLE_BITS as i32 + 1 }>(widen(&caps[part * PART..])),
        })
    });
    let codes = std::array::from_fn::<_, K, _>(|k| streams[k].code);
    let words = std::array::from_fn::<_, K, _>(|k| streams[k].run.words());
    let taps = codes.map(|code| vdupq_n_u32(code.taps.into()));
    let mut taken = [0; K];
    let mut lowest = [vdupq_n_s16(0); K];
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
            let mut parts = [vdupq_n_u32(0); PARTS];
            let mut here = 0;
            let term = vdupq_n_s32(i32::from(codes[k].rows[row]) << (TABLE_BITS + 1));
            for (lanes, part) in lanes[k].iter_mut().zip(&mut parts) {
                // The parts before took at most 4 words each: 4 more are there.
                let refill = load_words(&windows[k][here..]);
                let (level, words) = step(lanes, term, refill, taps[k], &codes[k]);
                here += words;
                *part = level;
            }
            taken[k] += here;
            let Some(levels) = levels[k].next() else { continue };
            lowest[k] = vminq_s16(lowest[k], store(levels, &parts));
        }
    }
    for (k, stream) in streams.iter_mut().enumerate() {
        stream.run.take(taken[k]);
        stream.lowest = vminvq_s16(lowest[k]).min(stream.lowest);
        for (part, lanes) in lanes[k].iter().enumerate() {
            let (coder, trellis) = (to_array(lanes.coder), to_array(lanes.trellis));
            for lane in 0..PART {
                stream.run.states[part * PART + lane] = coder[lane];
                stream.trellis[part * PART + lane] = Register(trellis[lane] as u16);
            }
        }
    }
    done
}

/// The next level of each lane, plus 256, and how many lanes took a word.
#[target_feature(enable = "neon")]
#[inline]
fn step(
    lanes: &mut Lanes,
    term: int32x4_t,
    refill: uint8x16_t,
    taps: uint32x4_t,
    code: &Code<'_>,
) -> (uint32x4_t, usize) {
    let one = vdupq_n_u32(1);
    let half = vdupq_n_u32(0xffff);

    // The table: that of the class, or the one after it where levels are odd.
    let class = vmaxq_s32(vaddq_s32(term, lanes.cols), vdupq_n_s32(0));
    let class = vreinterpretq_u32_s32(vminq_s32(class, lanes.caps));
    let brought_down = vshrq_n_u32::<{ ODD_BITS as i32 }>(lanes.trellis);
    let odd = vandq_u32(brought_down, vdupq_n_u32(1 << TABLE_BITS));
    let slot = vandq_u32(lanes.coder, vdupq_n_u32((1 << PRECISION) - 1));
    let index = vorrq_u32(vorrq_u32(class, odd), vshrq_n_u32::<{ BUCKET_BITS as i32 }>(slot));
    // SAFETY: the tables of class c are 2 c and 2 c + 1 and those of the largest class, the caps, are there; a bucket is the upper
    // 7 of the low 12 bits of a state, and a table has 2^7 buckets, one table behind the other.
    #[allow(unsafe_code)]
    let [low, high] = unsafe { gather(code.tables.as_ptr().cast(), index) };

    let first = vshrq_n_u32::<16>(low);
    let past = vsubq_u32(slot, vandq_u32(low, half));
    let is_first = vcltq_u32(past, first);
    let mut freq = vbslq_u32(is_first, first, vandq_u32(high, half));
    let mut bias = vbslq_u32(is_first, past, vsubq_u32(past, first));
    let symbols = vbslq_u32(is_first, vshrq_n_u32::<16>(high), vshrq_n_u32::<24>(high));
    let mut symbol = vandq_u32(symbols, vdupq_n_u32(0xff));
    let beyond = vcgeq_u32(bias, freq);
    if vmaxvq_u32(beyond) != 0 {
        let narrow = |values| to_array(values).map(|value| value as u16);
        let (beyond, slots, index) = (to_array(beyond), narrow(slot), narrow(index));
        let which = (0..PART as u32).filter(|&lane| beyond[lane as usize] != 0);
        let which = which.fold(0, |all, lane| all | 1 << lane);
        let mut found = [symbol, freq, bias].map(narrow);
        correct(which, code, &slots, &index, found.each_mut());
        [symbol, freq, bias] = found.map(|values| load_u32(&values.map(u32::from)));
    }

    // Integers: multiplying and adding at once changes nothing.
    let coder = vmlaq_u32(bias, freq, vshrq_n_u32::<{ PRECISION as i32 }>(lanes.coder));
    let is_low = vcltq_u32(coder, vdupq_n_u32(LOW));
    let low = vaddvq_u32(vandq_u32(is_low, load_u32(&MASK_AND_COUNT))) as usize;
    let word = vqtbl1q_u8(refill, load_bytes(&EXPAND[low % EXPAND.len()]));
    let refilled = vorrq_u32(vshlq_n_u32::<16>(coder), vreinterpretq_u32_u8(word));
    lanes.coder = vbslq_u32(is_low, refilled, coder);

    // Twice the symbol, and the set below it.
    let level = vorrq_u32(vaddq_u32(symbol, symbol), vshrq_n_u32::<{ TABLE_BITS as i32 }>(odd));
    // The bit that goes in, the lowest of the symbol, turned, in all bits.
    let bit = vtstq_u32(veorq_u32(symbol, lanes.trellis), one);
    let moved = vandq_u32(vshrq_n_u32::<1>(lanes.trellis), vdupq_n_u32(Register::STAY.into()));
    lanes.trellis = veorq_u32(moved, vandq_u32(bit, taps));
    (level, low >> PART)
}

/// Lower and upper halves of the buckets with these numbers.
///
/// # Safety
/// There are more buckets than the largest number.
#[target_feature(enable = "neon")]
#[inline]
#[allow(unsafe_code)]
unsafe fn gather(buckets: *const u64, numbers: uint32x4_t) -> [uint32x4_t; 2] {
    // SAFETY: the caller's promise, four times.
    let (a, b) = unsafe {
        let a = vld1q_dup_u64(buckets.add(vgetq_lane_u32::<0>(numbers) as usize));
        let b = vld1q_dup_u64(buckets.add(vgetq_lane_u32::<2>(numbers) as usize));
        (
            vld1q_lane_u64::<1>(buckets.add(vgetq_lane_u32::<1>(numbers) as usize), a),
            vld1q_lane_u64::<1>(buckets.add(vgetq_lane_u32::<3>(numbers) as usize), b),
        )
    };
    let (a, b) = (vreinterpretq_u32_u64(a), vreinterpretq_u32_u64(b));
    [vuzp1q_u32(a, b), vuzp2q_u32(a, b)]
}

#[target_feature(enable = "neon")]
#[inline]
fn load_u32(values: &[u32]) -> uint32x4_t {
    let values: &[u32] = &values[..PART];
    // SAFETY: there are 4 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        vld1q_u32(values.as_ptr())
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn load_bytes(bytes: &[u8; 4 * PART]) -> uint8x16_t {
    // SAFETY: there are 16 bytes.
    #[allow(unsafe_code)]
    unsafe {
        vld1q_u8(bytes.as_ptr())
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn widen(values: &[i16]) -> int32x4_t {
    let values: &[i16] = &values[..PART];
    // SAFETY: there are 4 numbers of 16 bits.
    #[allow(unsafe_code)]
    let values = unsafe { vld1_s16(values.as_ptr()) };
    vmovl_s16(values)
}

/// The next 4 words, in the low half.
#[target_feature(enable = "neon")]
#[inline]
fn load_words(words: &[[u8; 2]]) -> uint8x16_t {
    let words: &[u8] = words[..PART].as_flattened();
    // SAFETY: there are 4 words of two bytes.
    #[allow(unsafe_code)]
    let words = unsafe { vld1_u8(words.as_ptr()) };
    vcombine_u8(words, vdup_n_u8(0))
}

/// Writes the levels of a row, of which each is given plus 256, and gives the lowest in each place of a vector.
#[target_feature(enable = "neon")]
#[inline]
fn store(out: &mut [i16; LANES], levels: &[uint32x4_t; PARTS]) -> int16x8_t {
    let mut lowest = vdupq_n_s16(0);
    for (out, pair) in out.as_chunks_mut::<{ 2 * PART }>().0.iter_mut().zip(levels.as_chunks().0) {
        let [a, b] = pair.map(|part| vmovn_u32(part));
        let levels = vsubq_s16(vreinterpretq_s16_u16(vcombine_u16(a, b)), vdupq_n_s16(2 * 128));
        lowest = vminq_s16(lowest, levels);
        // SAFETY: there is room for 8 numbers of 16 bits.
        #[allow(unsafe_code)]
        unsafe {
            vst1q_s16(out.as_mut_ptr(), levels);
        }
    }
    lowest
}

#[target_feature(enable = "neon")]
#[inline]
fn to_array(values: uint32x4_t) -> [u32; PART] {
    let mut out = [0; PART];
    // SAFETY: there is room for 4 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        vst1q_u32(out.as_mut_ptr(), values);
    }
    out
}
