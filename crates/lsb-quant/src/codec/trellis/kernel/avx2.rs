//! The 32 lanes of a tile in two vectors of 16-bit numbers, those of a state of the coder in four: low halves and high ones.

use super::x86::load_pair;
use super::{Code, Lookups, ODD_BITS, Register, Stream, TABLE_BITS, correct};
use crate::isa::Isa;
use lsb_format::entropy::{BUCKET_BITS, LANES, PRECISION};
use std::arch::x86_64::*;

/// Lanes of a vector.
const HALF: usize = LANES / 2;

/// For each set of 8 lanes that take a word: which bytes of the next words each lane takes. Bytes beyond the end give zeros.
static EXPAND: [[u8; HALF]; 256] = {
    let mut table = [[u8::MAX; HALF]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut next) = (0, 0);
        while lane < HALF / 2 {
            if mask >> lane & 1 == 1 {
                table[mask][2 * lane] = 2 * next;
                table[mask][2 * lane + 1] = 2 * next + 1;
                next += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

/// Decodes rows of the group that the tile is at, as long as there are words for all lanes, and says how many; none where the
/// processor cannot.
pub(super) fn decode(stream: &mut Stream<'_>) -> usize {
    if Isa::Avx2.is_available() {
        // SAFETY: the processor has what the function is compiled for.
        #[allow(unsafe_code)]
        return unsafe { decode_rows(stream) };
    }
    0
}

/// 16 lanes of a tile.
#[derive(Clone, Copy)]
struct Half {
    /// States of the entropy coder.
    low: __m256i,
    high: __m256i,
    /// Registers of the trellis.
    trellis: __m256i,
    /// What columns add to classes, and the largest classes.
    cols: __m256i,
    caps: __m256i,
}

#[target_feature(enable = "avx2,popcnt")]
fn decode_rows(stream: &mut Stream<'_>) -> usize {
    let mut halves = [Half::new(stream, 0), Half::new(stream, HALF)];
    let [a, b] = &mut halves;
    let words = stream.run.words();
    let rows = stream.code.rows.len().min(stream.levels.len());
    let buckets = stream.code.tables.as_ptr().cast();
    let mut lowest = _mm256_setzero_si256();
    let (mut taken, mut done) = (0, 0);
    while done < rows {
        let Some(window) = words[taken..].first_chunk::<LANES>() else { break };
        let (index_a, index_b) = (a.index(stream.code.rows[done]), b.index(stream.code.rows[done]));
        // SAFETY: the tables of class c are 2 c and 2 c + 1 and those of the largest class, the caps, are there; a bucket is the
        // upper 7 of the low 12 bits of a state, and a table has 2^7 buckets, one table behind the other.
        #[allow(unsafe_code)]
        let (drawn_a, drawn_b) = unsafe { (look_up(index_a, buckets), look_up(index_b, buckets)) };
        let (level_a, here) = a.advance(&drawn_a, &stream.code, window);
        // At most 16 words were taken: 16 more are there.
        let (level_b, more) = b.advance(&drawn_b, &stream.code, &window[here..]);
        taken += here + more;
        lowest = _mm256_min_epi16(lowest, _mm256_min_epi16(level_a, level_b));
        let (levels, _) = stream.levels[done].as_chunks_mut();
        levels[0] = to_array(level_a).map(|level| level as i16);
        levels[1] = to_array(level_b).map(|level| level as i16);
        done += 1;
    }
    stream.run.take(taken);
    for level in to_array(lowest) {
        stream.lowest = stream.lowest.min(level as i16);
    }
    for (i, half) in halves.iter().enumerate() {
        let (low, high, trellis) = (to_array(half.low), to_array(half.high), to_array(half.trellis));
        for lane in 0..HALF {
            stream.run.states[i * HALF + lane] = u32::from(high[lane]) << 16 | u32::from(low[lane]);
            stream.trellis[i * HALF + lane] = Register(trellis[lane]);
        }
    }
    done
}

impl Half {
    #[target_feature(enable = "avx2")]
    fn new(stream: &Stream<'_>, first: usize) -> Half {
        let (cols, caps) = (&stream.code.cols[stream.group], stream.code.caps(stream.group));
        let [mut low, mut high, mut trellis, mut col, mut cap] = [[0; HALF]; 5];
        for lane in 0..HALF {
            let state = stream.run.states[first + lane];
            (low[lane], high[lane]) = (state as u16, (state >> 16) as u16);
            trellis[lane] = stream.trellis[first + lane].0;
            (col[lane], cap[lane]) = (cols[first + lane] as u16, caps[first + lane] as u16);
        }
        Half {
            low: load(&low),
            high: load(&high),
            trellis: load(&trellis),
            cols: load(&col),
            caps: load(&cap),
        }
    }

    /// The numbers of the buckets of a row.
    #[target_feature(enable = "avx2,popcnt")]
    #[inline]
    fn index(&self, term: i16) -> __m256i {
        // The table: that of the class, or the one after it where levels are odd.
        let class =
            _mm256_max_epi16(_mm256_add_epi16(_mm256_set1_epi16(term), self.cols), _mm256_setzero_si256());
        let class = _mm256_slli_epi16::<{ TABLE_BITS as i32 + 1 }>(_mm256_min_epi16(class, self.caps));
        let odd = self.odd();
        let field = _mm256_set1_epi16((1 << PRECISION) - 1);
        let bucket = _mm256_srli_epi16::<{ BUCKET_BITS as i32 }>(_mm256_and_si256(self.low, field));
        _mm256_or_si256(_mm256_or_si256(class, odd), bucket)
    }

    /// The bit above the number of a bucket where levels are odd.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn odd(&self) -> __m256i {
        let brought_down = _mm256_srli_epi16::<{ ODD_BITS as i32 }>(self.trellis);
        _mm256_and_si256(brought_down, _mm256_set1_epi16(1 << TABLE_BITS))
    }

    /// The levels of the row of these buckets, and how many lanes took a word.
    #[target_feature(enable = "avx2,popcnt")]
    #[inline]
    fn advance(&mut self, drawn: &Lookups<__m256i>, code: &Code<'_>, window: &[[u8; 2]]) -> (__m256i, usize) {
        let one = _mm256_set1_epi16(1);
        let byte = _mm256_set1_epi16(0xff);
        let Lookups { index, start, first, next, symbols } = *drawn;
        let slot = _mm256_and_si256(self.low, _mm256_set1_epi16((1 << PRECISION) - 1));
        let past = _mm256_sub_epi16(slot, start);
        let is_first = _mm256_cmpgt_epi16(first, past);
        let mut bias = _mm256_sub_epi16(past, _mm256_andnot_si256(is_first, first));
        let mut freq = _mm256_blendv_epi8(next, first, is_first);
        let mut symbol =
            _mm256_blendv_epi8(_mm256_srli_epi16::<8>(symbols), _mm256_and_si256(symbols, byte), is_first);
        // Slots before those of the first symbol are, as unsigned numbers, the largest.
        let beyond = mask(_mm256_cmpeq_epi16(_mm256_max_epu16(freq, bias), bias));
        if beyond != 0 {
            let (slots, index) = (to_array(slot), to_array(index));
            let [mut symbols, mut freqs, mut biases] = [to_array(symbol), to_array(freq), to_array(bias)];
            let found = [&mut symbols, &mut freqs, &mut biases];
            correct(beyond.into(), code, &slots, &index, found);
            (symbol, freq, bias) = (load(&symbols), load(&freqs), load(&biases));
        }

        // A state above its slot has 19 bits: the lower 16, and 3 more. Its product with a frequency and the bias have 31.
        let upper = _mm256_or_si256(_mm256_slli_epi16::<4>(self.high), _mm256_srli_epi16::<12>(self.low));
        let most = _mm256_srli_epi16::<12>(self.high);
        let low = _mm256_add_epi16(_mm256_mullo_epi16(freq, upper), bias);
        // Minus 1 where nothing is carried.
        let whole = _mm256_cmpeq_epi16(_mm256_max_epu16(low, bias), low);
        let high = _mm256_add_epi16(_mm256_mulhi_epu16(freq, upper), _mm256_mullo_epi16(freq, most));
        let high = _mm256_add_epi16(high, _mm256_add_epi16(one, whole));
        // States below 2^15 take words, in the order of lanes.
        let above = _mm256_or_si256(high, _mm256_and_si256(low, _mm256_set1_epi16(i16::MIN)));
        let is_low = _mm256_cmpeq_epi16(above, _mm256_setzero_si256());
        let [a, b] = mask(is_low).to_le_bytes();
        let before = a.count_ones() as usize;
        let word = _mm256_set_m128i(expand(&window[before..], b), expand(window, a));
        self.high = _mm256_blendv_epi8(high, low, is_low);
        self.low = _mm256_blendv_epi8(low, word, is_low);

        // Twice the symbol, and the set below it.
        let set = _mm256_srli_epi16::<{ TABLE_BITS as i32 }>(self.odd());
        let level = _mm256_add_epi16(_mm256_add_epi16(symbol, symbol), set);
        // The bit that goes in: the lowest of the symbol, turned.
        let bit = _mm256_and_si256(_mm256_xor_si256(symbol, self.trellis), one);
        let stay = _mm256_set1_epi16(Register::STAY as i16);
        let moved = _mm256_and_si256(_mm256_srli_epi16::<1>(self.trellis), stay);
        let taps = _mm256_mullo_epi16(bit, _mm256_set1_epi16(code.taps as i16));
        self.trellis = _mm256_xor_si256(moved, taps);
        (_mm256_sub_epi16(level, _mm256_set1_epi16(2 * 128)), before + b.count_ones() as usize)
    }
}

/// The buckets with these numbers.
///
/// # Safety
/// There are more buckets than the largest number.
#[target_feature(enable = "avx2")]
#[inline]
#[allow(unsafe_code)]
unsafe fn look_up(index: __m256i, buckets: *const u64) -> Lookups<__m256i> {
    macro_rules! pair {
        ($four:expr) => {
            // SAFETY: the caller's promise.
            unsafe { load_pair(buckets, $four) }
        };
    }
    macro_rules! join {
        ($a:expr, $b:expr) => {
            _mm256_castsi256_ps(_mm256_set_m128i(pair!($b), pair!($a)))
        };
    }
    macro_rules! halves {
        ($a:expr, $b:expr) => {
            [
                _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>($a, $b)),
                _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>($a, $b)),
            ]
        };
    }
    let (p, q) = (_mm256_castsi256_si128(index), _mm256_extracti128_si256::<1>(index));
    let low = [_mm_cvtsi128_si64(p) as u64, _mm_cvtsi128_si64(q) as u64];
    let high = [_mm_extract_epi64::<1>(p) as u64, _mm_extract_epi64::<1>(q) as u64];
    // Lower and upper halves of the buckets of lanes 0, 2, 4 and so on, and of those of lanes 1, 3, 5 and so on.
    let even = halves!(join!(low[0], low[1]), join!(high[0], high[1]));
    let odd = halves!(join!(low[0] >> 16, low[1] >> 16), join!(high[0] >> 16, high[1] >> 16));
    const ODD: i32 = 0b1010_1010;
    Lookups {
        index,
        start: _mm256_blend_epi16::<ODD>(even[0], _mm256_slli_epi32::<16>(odd[0])),
        first: _mm256_blend_epi16::<ODD>(_mm256_srli_epi32::<16>(even[0]), odd[0]),
        next: _mm256_blend_epi16::<ODD>(even[1], _mm256_slli_epi32::<16>(odd[1])),
        symbols: _mm256_blend_epi16::<ODD>(_mm256_srli_epi32::<16>(even[1]), odd[1]),
    }
}

/// A bit for each lane of a comparison.
#[target_feature(enable = "avx2")]
#[inline]
fn mask(lanes: __m256i) -> u16 {
    let bytes = _mm_packs_epi16(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256::<1>(lanes));
    _mm_movemask_epi8(bytes) as u16
}

/// The next words, each in its lane of those in `lanes`.
#[target_feature(enable = "avx2")]
#[inline]
fn expand(words: &[[u8; 2]], lanes: u8) -> __m128i {
    let words: &[u8] = words[..HALF / 2].as_flattened();
    // SAFETY: there are 16 bytes at both.
    #[allow(unsafe_code)]
    let (words, places) = unsafe {
        (_mm_loadu_si128(words.as_ptr().cast()), _mm_loadu_si128(EXPAND[usize::from(lanes)].as_ptr().cast()))
    };
    _mm_shuffle_epi8(words, places)
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(values: &[u16; HALF]) -> __m256i {
    // SAFETY: there are 16 numbers of 16 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_loadu_si256(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn to_array(values: __m256i) -> [u16; HALF] {
    let mut out = [0; HALF];
    // SAFETY: there is room for 16 numbers of 16 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_si256(out.as_mut_ptr().cast(), values);
    }
    out
}
