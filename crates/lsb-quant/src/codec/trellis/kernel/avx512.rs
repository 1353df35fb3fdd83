//! 32 lanes in two vectors of 16, of one tile or of two.

use super::{Register, Stream};
use crate::codec::kernel::avx512::{HALF, advance, load_u32, load_words, store_u32};
use crate::isa::Isa;
use lsb_format::entropy::{LANES, PRECISION};
use std::arch::x86_64::*;

/// Decodes rows of the group that every tile is at, as long as there are words for all lanes, and says how many; none
/// where the processor cannot.
pub(super) fn decode<const K: usize>(streams: [&mut Stream<'_>; K]) -> usize {
    if !Isa::Avx512.is_available() {
        return 0;
    }
    let mut streams = streams.into_iter();
    match (streams.next(), streams.next()) {
        (Some(a), Some(b)) => {
            // SAFETY: the processor has what the function is compiled for.
            #[allow(unsafe_code)]
            unsafe {
                decode_two(a, b)
            }
        }
        (Some(a), None) => {
            // SAFETY: as above.
            #[allow(unsafe_code)]
            unsafe {
                decode_one(a)
            }
        }
        (None, _) => 0,
    }
}

#[target_feature(enable = "avx512f,avx512bw,popcnt")]
fn decode_one(stream: &mut Stream<'_>) -> usize {
    let mut tile = Tile::new(stream);
    let mut done = 0;
    for (&term, levels) in stream.code.rows.iter().zip(&mut *stream.levels) {
        let Some(window) = tile.window() else { break };
        tile.advance(window, term, levels);
        done += 1;
    }
    tile.finish(stream);
    done
}

#[target_feature(enable = "avx512f,avx512bw,popcnt")]
fn decode_two(a: &mut Stream<'_>, b: &mut Stream<'_>) -> usize {
    let (mut tile_a, mut tile_b) = (Tile::new(a), Tile::new(b));
    let rows_a = a.code.rows.iter().zip(&mut *a.levels);
    let rows_b = b.code.rows.iter().zip(&mut *b.levels);
    let mut done = 0;
    for ((&term_a, levels_a), (&term_b, levels_b)) in rows_a.zip(rows_b) {
        let (Some(window_a), Some(window_b)) = (tile_a.window(), tile_b.window()) else { break };
        tile_a.advance(window_a, term_a, levels_a);
        tile_b.advance(window_b, term_b, levels_b);
        done += 1;
    }
    tile_a.finish(a);
    tile_b.finish(b);
    done
}

/// What changes from row to row of a tile, and what is needed for that. Single fields, no arrays: a compiler keeps them in
/// registers.
struct Tile<'a> {
    low: Lanes,
    high: Lanes,
    words: &'a [[u8; 2]],
    taken: usize,
    lowest: __m512i,
    taps: __m512i,
    slots: *const i32,
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

impl<'a> Tile<'a> {
    #[target_feature(enable = "avx512f,avx512bw,popcnt")]
    #[inline]
    fn new(stream: &Stream<'a>) -> Self {
        let (cols, caps) = (&stream.code.cols[stream.group], stream.code.caps(stream.group));
        let trellis = stream.trellis.map(|r| r.0);
        let lanes = |first: usize| Lanes {
            coder: load_u32(&stream.run.states[first..]),
            trellis: load_u32(&trellis[first..]),
            cols: _mm512_slli_epi32::<{ PRECISION + 1 }>(widen(&cols[first..])),
            caps: _mm512_slli_epi32::<{ PRECISION + 1 }>(widen(&caps[first..])),
        };
        Tile {
            low: lanes(0),
            high: lanes(HALF),
            words: stream.run.words(),
            taken: 0,
            lowest: _mm512_setzero_si512(),
            taps: _mm512_set1_epi32(stream.code.taps as i32),
            slots: stream.code.tables.as_ptr().cast(),
        }
    }

    /// The words of a row, if there are as many as it may take.
    #[inline(always)]
    fn window(&self) -> Option<&'a [[u8; 2]; LANES]> {
        self.words[self.taken..].first_chunk()
    }

    /// Decodes the next row.
    #[target_feature(enable = "avx512f,avx512bw,popcnt")]
    #[inline]
    fn advance(&mut self, window: &[[u8; 2]; LANES], term: i16, levels: &mut [i16; LANES]) {
        let term = _mm512_set1_epi32(i32::from(term) << (PRECISION + 1));
        // SAFETY: the tables of class c are 2 c and 2 c + 1 and those of the largest class, the caps, are there; a slot is the low
        // 12 bits of a state, and a table has 2^12 slots of four bytes, one table behind the other.
        #[allow(unsafe_code)]
        let (low, taken) = unsafe { self.low.step(term, load_words(window), self.taps, self.slots) };
        // At most 16 words were taken: 16 more are there.
        let rest = &window[taken..];
        // SAFETY: as above.
        #[allow(unsafe_code)]
        let (high, more) = unsafe { self.high.step(term, load_words(rest), self.taps, self.slots) };
        self.taken += taken + more;
        // Packing interleaves quarters of the two vectors.
        let packed = _mm512_packus_epi32(low, high);
        let packed = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), packed);
        let values = _mm512_sub_epi16(packed, _mm512_set1_epi16(2 * 128));
        self.lowest = _mm512_min_epi16(self.lowest, values);
        store(levels, values);
    }

    /// Tells the stream where the tile is now.
    #[target_feature(enable = "avx512f,avx512bw,popcnt")]
    #[inline]
    fn finish(self, stream: &mut Stream<'_>) {
        stream.run.take(self.taken);
        let mut all = [0; LANES];
        store(&mut all, self.lowest);
        stream.lowest = all.into_iter().fold(stream.lowest, i16::min);
        for (first, lanes) in [(0, self.low), (HALF, self.high)] {
            let (coder, trellis) = (to_array(lanes.coder), to_array(lanes.trellis));
            for lane in 0..HALF {
                stream.run.states[first + lane] = coder[lane];
                stream.trellis[first + lane] = Register(trellis[lane]);
            }
        }
    }
}

impl Lanes {
    /// The next level of each lane, plus 256, and how many lanes took a word.
    ///
    /// # Safety
    /// There are as many slots at `slots` as the lanes' caps say, and two tables more.
    #[target_feature(enable = "avx512f,avx512bw,popcnt")]
    #[inline]
    #[allow(unsafe_code)]
    unsafe fn step(
        &mut self,
        term: __m512i,
        refill: __m512i,
        taps: __m512i,
        slots: *const i32,
    ) -> (__m512i, usize) {
        // Truth tables over (a, b, c): a where c has ones and b elsewhere; a | b & c.
        const CHOOSE: i32 = 0b1110_0100;
        const OR_AND: i32 = 0b1111_1000;
        let one = _mm512_set1_epi32(1);
        let field = _mm512_set1_epi32((1 << PRECISION) - 1);

        // The table: that of the class, or the one after it where levels are odd.
        let class = _mm512_max_epi32(_mm512_add_epi32(term, self.cols), _mm512_setzero_si512());
        let class = _mm512_min_epi32(class, self.caps);
        let odd = _mm512_set1_epi32(1 << Register::SET);
        let table = _mm512_ternarylogic_epi32::<OR_AND>(class, self.trellis, odd);
        let slot = _mm512_ternarylogic_epi32::<OR_AND>(table, self.coder, field);
        // SAFETY: the caller's promise.
        let entry = unsafe { _mm512_i32gather_epi32::<4>(slot, slots) };

        let taken = advance(&mut self.coder, entry, refill);

        // Twice the symbol, and the set below it.
        let set = _mm512_srli_epi32::<{ Register::SET }>(self.trellis);
        let level = _mm512_ternarylogic_epi32::<CHOOSE>(set, _mm512_srli_epi32::<23>(entry), one);
        // The bit that goes in: the lowest of the symbol, turned.
        let turned = _mm512_xor_si512(entry, self.trellis);
        let bit = _mm512_test_epi32_mask(turned, _mm512_set1_epi32(1 << Register::TURN));
        let stay = _mm512_set1_epi32(Register::STAY as i32);
        let moved = _mm512_and_si512(_mm512_srli_epi32::<1>(self.trellis), stay);
        self.trellis = _mm512_mask_xor_epi32(moved, bit, moved, taps);
        (level, taken)
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
    store_u32(&mut out, values);
    out
}
