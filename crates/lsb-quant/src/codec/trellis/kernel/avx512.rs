//! The 32 lanes of a tile in one vector of 16-bit numbers, those of a state of the coder in two: its low half and its high one.
//!
//! A step goes through its stages for all tiles together: where the next look-ups go is known only when those before have
//! come back, and a processor that waits for one tile works on the other.

use super::x86::load_pair;
use super::{Code, Lookups, ODD_BITS, Register, Stream, TABLE_BITS, correct};
use crate::isa::Isa;
use lsb_format::entropy::{BUCKET_BITS, LANES, PRECISION};
use std::arch::x86_64::*;

/// Whether the processor has what this takes, which is more than others of its kind have.
pub(super) fn is_available() -> bool {
    Isa::Avx512.is_available() && is_x86_feature_detected!("avx512vbmi2")
}

/// Decodes rows of the group that every tile is at, as long as there are words for all lanes, and says how many; none
/// where the processor cannot.
pub(super) fn decode<const K: usize>(streams: [&mut Stream<'_>; K]) -> usize {
    if !is_available() {
        return 0;
    }
    let mut streams = streams.into_iter();
    let slow = super::has_slow_gathers();
    match (streams.next(), streams.next()) {
        // SAFETY: the processor has what the functions are compiled for.
        #[allow(unsafe_code)]
        (Some(a), Some(b)) => unsafe {
            if slow { decode_two::<false>(a, b) } else { decode_two::<true>(a, b) }
        },
        // SAFETY: as above.
        #[allow(unsafe_code)]
        (Some(a), None) => unsafe { if slow { decode_one::<false>(a) } else { decode_one::<true>(a) } },
        (None, _) => 0,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
fn decode_one<const GATHER: bool>(stream: &mut Stream<'_>) -> usize {
    let mut tile = Tile::new(stream);
    let mut done = 0;
    for (&term, levels) in stream.code.rows.iter().zip(&mut *stream.levels) {
        let Some(window) = tile.window() else { break };
        let drawn = tile.look_up::<0, GATHER>(term);
        tile.advance::<0>(&drawn, window, levels);
        done += 1;
    }
    tile.finish(stream);
    done
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
fn decode_two<const GATHER: bool>(a: &mut Stream<'_>, b: &mut Stream<'_>) -> usize {
    let (mut tile_a, mut tile_b) = (Tile::new(a), Tile::new(b));
    let (terms_a, terms_b) = (a.code.rows, b.code.rows);
    let Some(&term) = terms_b.first() else { return 0 };
    let rows =
        terms_a.iter().zip(&mut *a.levels).zip(terms_b.iter().skip(1).chain([&term]).zip(&mut *b.levels));
    let mut done = 0;
    // While one tile waits for what it looks up, the other takes its step.
    let mut drawn_b = tile_b.look_up::<1, GATHER>(term);
    for ((&term_a, levels_a), (&next_b, levels_b)) in rows {
        let (Some(window_a), Some(window_b)) = (tile_a.window(), tile_b.window()) else { break };
        let drawn_a = tile_a.look_up::<2, GATHER>(term_a);
        tile_b.advance::<1>(&drawn_b, window_b, levels_b);
        drawn_b = tile_b.look_up::<3, GATHER>(next_b);
        tile_a.advance::<2>(&drawn_a, window_a, levels_a);
        done += 1;
    }
    tile_a.finish(a);
    tile_b.finish(b);
    done
}

/// What changes from row to row of a tile, and what is needed for that. Single fields, no arrays: a compiler keeps them in
/// registers.
struct Tile<'a> {
    /// States of the entropy coder.
    low: __m512i,
    high: __m512i,
    /// Registers of the trellis.
    trellis: __m512i,
    /// What columns add to classes, and the largest classes.
    cols: __m512i,
    caps: __m512i,
    taps: __m512i,
    lowest: __m512i,
    words: &'a [[u8; 2]],
    taken: usize,
    code: Code<'a>,
}

impl<'a> Tile<'a> {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn new(stream: &Stream<'a>) -> Self {
        let mut halves = [[0; LANES]; 2];
        let mut trellis = [0; LANES];
        for lane in 0..LANES {
            halves[0][lane] = stream.run.states[lane] as u16;
            halves[1][lane] = (stream.run.states[lane] >> 16) as u16;
            trellis[lane] = stream.trellis[lane].0;
        }
        Tile {
            low: load(&halves[0]),
            high: load(&halves[1]),
            trellis: load(&trellis),
            cols: load_i16(&stream.code.cols[stream.group]),
            caps: load_i16(&stream.code.caps(stream.group)),
            taps: _mm512_set1_epi16(stream.code.taps as i16),
            lowest: _mm512_setzero_si512(),
            words: stream.run.words(),
            taken: 0,
            code: stream.code,
        }
    }

    /// The words of a row, if there are as many as it may take.
    #[inline(always)]
    fn window(&self) -> Option<&'a [[u8; 2]; LANES]> {
        self.words[self.taken..].first_chunk()
    }

    /// Tells the stream where the tile is now.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn finish(&self, stream: &mut Stream<'_>) {
        stream.run.take(self.taken);
        let (low, high, trellis) = (to_array(self.low), to_array(self.high), to_array(self.trellis));
        let lowest = to_array(self.lowest);
        for lane in 0..LANES {
            stream.run.states[lane] = u32::from(high[lane]) << 16 | u32::from(low[lane]);
            stream.trellis[lane] = Register(trellis[lane]);
            stream.lowest = stream.lowest.min(lowest[lane] as i16);
        }
    }

    /// The buckets of a row.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    #[inline]
    fn look_up<const SITE: u8, const GATHER: bool>(&self, term: i16) -> Lookups<__m512i> {
        let field = _mm512_set1_epi16((1 << PRECISION) - 1);
        let odd = _mm512_set1_epi16(1 << TABLE_BITS);
        // The table: that of the class, or the one after it where levels are odd.
        let class = _mm512_add_epi16(_mm512_set1_epi16(term), self.cols);
        let class = _mm512_min_epi16(_mm512_max_epi16(class, _mm512_setzero_si512()), self.caps);
        let class = _mm512_slli_epi16::<{ TABLE_BITS + 1 }>(class);
        let brought_down = _mm512_srli_epi16::<ODD_BITS>(self.trellis);
        let table = _mm512_ternarylogic_epi32::<OR_AND>(class, brought_down, odd);
        let bucket = _mm512_srli_epi16::<BUCKET_BITS>(_mm512_and_si512(self.low, field));
        // SAFETY: the tables of class c are 2 c and 2 c + 1 and those of the largest class, the caps, are there; a bucket is the
        // upper 7 of the low 12 bits of a state, and a table has 2^7 buckets, one table behind the other.
        #[allow(unsafe_code)]
        unsafe {
            look_up::<SITE, GATHER>(_mm512_or_si512(table, bucket), self.code.tables.as_ptr().cast())
        }
    }

    /// Decodes the row of these buckets.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    #[inline]
    fn advance<const SITE: u8>(
        &mut self,
        drawn: &Lookups<__m512i>,
        window: &[[u8; 2]; LANES],
        levels: &mut [i16; LANES],
    ) {
        let one = _mm512_set1_epi16(1);
        let field = _mm512_set1_epi16((1 << PRECISION) - 1);
        let Lookups { index, start, first, next, symbols } = *drawn;
        let slot = _mm512_and_si512(self.low, field);
        let past = _mm512_sub_epi16(slot, start);
        // Ones where the slot is one of the first symbol: sooner there than a mask.
        let past_first = _mm512_sub_epi16(past, first);
        let is_first = _mm512_srai_epi16::<15>(past_first);
        let mut bias = _mm512_min_epu16(past, past_first);
        let mut freq = _mm512_ternarylogic_epi32::<SELECT>(is_first, first, next);
        let symbols = _mm512_ternarylogic_epi32::<SELECT>(is_first, symbols, _mm512_srli_epi16::<8>(symbols));
        let mut symbol = _mm512_and_si512(symbols, _mm512_set1_epi16(0xff));
        // Slots before those of the first symbol are, as unsigned numbers, the largest.
        let beyond = _mm512_cmpge_epu16_mask(bias, freq);
        if beyond != 0 {
            let (slots, index) = (to_array(slot), to_array(index));
            let [mut symbols, mut freqs, mut biases] = [to_array(symbol), to_array(freq), to_array(bias)];
            correct(beyond, &self.code, &slots, &index, [&mut symbols, &mut freqs, &mut biases]);
            (symbol, freq, bias) = (load(&symbols), load(&freqs), load(&biases));
        }

        // A state above its slot has 19 bits: the lower 16, and 3 more. Its product with a frequency and the bias have 31.
        let upper = _mm512_shldi_epi16::<4>(self.high, self.low);
        let most = _mm512_srli_epi16::<12>(self.high);
        let product = _mm512_mullo_epi16(freq, upper);
        let low = _mm512_add_epi16(product, bias);
        let carry = _mm512_srli_epi16::<15>(_mm512_ternarylogic_epi32::<CARRY>(product, bias, low));
        let high = _mm512_add_epi16(_mm512_mulhi_epu16(freq, upper), _mm512_mullo_epi16(freq, most));
        let high = _mm512_add_epi16(high, carry);
        // States below 2^15 take words, in the order of lanes.
        let top = _mm512_set1_epi16(i16::MIN);
        let above = _mm512_ternarylogic_epi32::<OR_AND>(high, low, top);
        let is_low = _mm512_testn_epi16_mask(above, above);
        self.high = _mm512_mask_mov_epi16(high, is_low, low);
        self.low = _mm512_mask_expand_epi16(low, is_low, load(window));
        self.taken += is_low.count_ones() as usize;

        // Twice the symbol, and the set below it.
        let set = _mm512_srli_epi16::<{ Register::SET }>(self.trellis);
        let level = _mm512_ternarylogic_epi32::<CHOOSE>(set, _mm512_add_epi16(symbol, symbol), one);
        let level = _mm512_sub_epi16(level, _mm512_set1_epi16(2 * 128));
        self.lowest = _mm512_min_epi16(self.lowest, level);
        store(levels, level);
        // The bit that goes in: the lowest of the symbol, turned.
        let bit = _mm512_and_si512(_mm512_xor_si512(symbol, self.trellis), one);
        let stay = _mm512_set1_epi16(Register::STAY as i16);
        let moved = _mm512_and_si512(_mm512_srli_epi16::<1>(self.trellis), stay);
        let goes_in = _mm512_sub_epi16(_mm512_setzero_si512(), bit);
        self.trellis = _mm512_ternarylogic_epi32::<XOR_AND>(moved, goes_in, self.taps);
    }
}

/// Truth tables over (a, b, c). Bits of b where a has ones, and of c elsewhere.
const SELECT: i32 = 0b1100_1010;
/// Bits of a where c has ones, and of b elsewhere.
const CHOOSE: i32 = 0b1110_0100;
/// a | b & c.
const OR_AND: i32 = 0b1111_1000;
/// a ^ b & c.
const XOR_AND: i32 = 0b0111_1000;
/// What is carried out of a + b = c.
const CARRY: i32 = 0b1101_0100;

/// The buckets with these numbers.
///
/// # Safety
/// There are more buckets than the largest number.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
#[allow(unsafe_code)]
unsafe fn look_up<const SITE: u8, const GATHER: bool>(
    index: __m512i,
    buckets: *const u64,
) -> Lookups<__m512i> {
    let [even, odd] = if GATHER {
        // SAFETY: the caller's promise.
        unsafe { gather::<SITE>(index, buckets) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { load_each::<SITE>(index, buckets) }
    };
    // Two numbers of 16 bits of lanes 0, 2, 4 and so on, and of lanes 1, 3, 5 and so on.
    let merge = |even, odd| _mm512_mask_blend_epi16(0xaaaa_aaaa, even, odd);
    Lookups {
        index,
        start: _mm512_mask_blend_epi16(0xaaaa_aaaa, even[0], _mm512_slli_epi32::<16>(odd[0])),
        first: _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_srli_epi32::<16>(even[0]), odd[0]),
        next: _mm512_mask_blend_epi16(0xaaaa_aaaa, even[1], _mm512_slli_epi32::<16>(odd[1])),
        symbols: merge(_mm512_srli_epi32::<16>(even[1]), odd[1]),
    }
}

/// Lower and upper halves of the buckets of even lanes, and of those of odd ones.
///
/// # Safety
/// There are more buckets than the largest number.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
#[allow(unsafe_code)]
unsafe fn gather<const SITE: u8>(index: __m512i, buckets: *const u64) -> [[__m512i; 2]; 2] {
    let lower = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let upper = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    let even = _mm512_and_si512(index, _mm512_set1_epi32(0xffff));
    let odd = _mm512_srli_epi32::<16>(index);
    let mut out = [[index; 2]; 2];
    for (out, index) in out.iter_mut().zip([even, odd]) {
        // SAFETY: the caller's promise.
        let (a, b) = unsafe {
            (
                _mm512_i32gather_epi64::<8>(_mm512_castsi512_si256(index), buckets.cast()),
                _mm512_i32gather_epi64::<8>(_mm512_extracti64x4_epi64::<1>(index), buckets.cast()),
            )
        };
        *out = [_mm512_permutex2var_epi32(a, lower, b), _mm512_permutex2var_epi32(a, upper, b)];
    }
    out
}

/// As [`gather`].
///
/// # Safety
/// There are more buckets than the largest number.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
#[allow(unsafe_code)]
unsafe fn load_each<const SITE: u8>(index: __m512i, buckets: *const u64) -> [[__m512i; 2]; 2] {
    macro_rules! pair {
        ($four:expr) => {
            // SAFETY: the caller's promise.
            unsafe { load_pair(buckets, $four) }
        };
    }
    macro_rules! join {
        ($a:expr, $b:expr, $c:expr, $d:expr) => {{
            let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256($a), $b);
            let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256($c), $d);
            _mm512_castsi512_ps(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
        }};
    }
    let parts = [
        _mm512_castsi512_si128(index),
        _mm512_extracti32x4_epi32::<1>(index),
        _mm512_extracti32x4_epi32::<2>(index),
        _mm512_extracti32x4_epi32::<3>(index),
    ];
    let (mut low, mut high) = ([0; 4], [0; 4]);
    for i in 0..4 {
        low[i] = _mm_cvtsi128_si64(parts[i]) as u64;
        high[i] = _mm_extract_epi64::<1>(parts[i]) as u64;
    }
    let a = join!(pair!(low[0]), pair!(low[1]), pair!(low[2]), pair!(low[3]));
    let b = join!(pair!(high[0]), pair!(high[1]), pair!(high[2]), pair!(high[3]));
    let c = join!(pair!(low[0] >> 16), pair!(low[1] >> 16), pair!(low[2] >> 16), pair!(low[3] >> 16));
    let d = join!(pair!(high[0] >> 16), pair!(high[1] >> 16), pair!(high[2] >> 16), pair!(high[3] >> 16));
    [
        [
            _mm512_castps_si512(_mm512_shuffle_ps::<0b10_00_10_00>(a, b)),
            _mm512_castps_si512(_mm512_shuffle_ps::<0b11_01_11_01>(a, b)),
        ],
        [
            _mm512_castps_si512(_mm512_shuffle_ps::<0b10_00_10_00>(c, d)),
            _mm512_castps_si512(_mm512_shuffle_ps::<0b11_01_11_01>(c, d)),
        ],
    ]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load<T: Number16>(values: &[T; LANES]) -> __m512i {
    // SAFETY: there are 32 numbers of 16 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_si512(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_i16(values: &[i16; LANES]) -> __m512i {
    load(values)
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
fn to_array(values: __m512i) -> [u16; LANES] {
    let mut out = [0; LANES];
    // SAFETY: as above.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().cast(), values);
    }
    out
}

/// What takes 16 bits.
trait Number16 {}
impl Number16 for u16 {}
impl Number16 for i16 {}
impl Number16 for [u8; 2] {}
