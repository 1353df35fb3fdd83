//! Half a panel of rows in a vector. For a token or two, products of bytes with the high and the low digits of inputs, two
//! columns summed in one instruction. Where there are more tokens, levels are spread to 16-bit numbers once for all of them, those
//! of even and of odd columns, and so is a level of eight bits always: products of two such bytes overflow.

use super::{Panels, bottom_of, lookup_avx2, masks, plane_of};
use crate::Isa;
use crate::unpacked::form::{Form, PANEL, QUAD, QUAD_BYTES, QUADS, half_bytes};
use crate::unpacked::inputs::{Inputs, Token};
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of a vector.
pub(super) const ROWS: usize = PANEL / 2;

/// Bytes of a vector.
pub(super) const BYTES: usize = QUAD_BYTES / 2;

/// Tokens at a time, where there are so many: what is added up stays in registers.
const TOKENS: usize = 4;

/// Groups whose levels are spread at once: 16 KB, half of the first cache.
const GROUPS: usize = 16;

/// The levels of a block as 16-bit numbers: of each quad the even columns and the odd ones, of both halves of the panel.
type Spread = [[[__m256i; 2]; 2]; QUADS];

/// The first of so many tokens whose products with levels of one bit are looked up, see [`lookup_avx2`].
pub(super) fn first_looked_up(tokens: usize) -> usize {
    tokens - tokens % TOKENS
}

/// See [`super::sums`]. False where the processor cannot.
pub(super) fn sums(panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) -> bool {
    if !Isa::Avx2.is_available() {
        return false;
    }
    // SAFETY: the processor has what the function is compiled for.
    #[allow(unsafe_code)]
    unsafe {
        match panels.form {
            Form::One => all::<1>(panels, inputs, tokens, sums),
            Form::Two => all::<2>(panels, inputs, tokens, sums),
            Form::Three => all::<3>(panels, inputs, tokens, sums),
            Form::Four => all::<4>(panels, inputs, tokens, sums),
            Form::Five => all::<5>(panels, inputs, tokens, sums),
            Form::Six => all::<6>(panels, inputs, tokens, sums),
            Form::Eight => all::<8>(panels, inputs, tokens, sums),
        }
    }
    true
}

#[target_feature(enable = "avx2")]
fn all<const BITS: usize>(panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) {
    let rows = panels.count() * PANEL;
    let fours = tokens - tokens % TOKENS;
    if fours > 0 {
        many::<BITS>(panels, inputs, fours, rows, sums);
    }
    if BITS == 1 {
        for token in first_looked_up(tokens)..tokens {
            lookup_avx2::sums(panels, inputs, token, &mut sums[token * rows..][..rows]);
        }
        return;
    }
    for index in 0..panels.count() {
        let panel = panels.panel(index);
        let mut token = fours;
        while token < tokens {
            let out = &mut sums[token * rows + index * PANEL..];
            if token + 2 <= tokens {
                let inputs = [panels.token(inputs, token), panels.token(inputs, token + 1)];
                few::<BITS, 2>(panel, inputs, rows, out);
                token += 2;
            } else {
                few::<BITS, 1>(panel, [panels.token(inputs, token)], rows, out);
                token += 1;
            }
        }
    }
}

/// The sums of all panels for tokens, four at a time.
#[inline(never)]
#[target_feature(enable = "avx2")]
fn many<const BITS: usize>(
    panels: &Panels<'_>,
    inputs: &Inputs,
    tokens: usize,
    rows: usize,
    sums: &mut [f32],
) {
    sums[..tokens * rows].fill(0.0);
    let mut spread: [Spread; GROUPS] = [[[[_mm256_setzero_si256(); 2]; 2]; QUADS]; GROUPS];
    for index in 0..panels.count() {
        for (chunk, blocks) in panels.panel(index).chunks(GROUPS * BITS * QUAD_BYTES).enumerate() {
            let groups = spread_out::<BITS>(blocks, &mut spread);
            for token in (0..tokens).step_by(TOKENS) {
                let inputs = std::array::from_fn::<_, TOKENS, _>(|i| panels.token(inputs, token + i));
                let out = &mut sums[token * rows + index * PANEL..];
                add_some::<BITS>(&spread[..groups], chunk * GROUPS, inputs, rows, out);
            }
        }
    }
}

/// Spreads the levels of blocks, at most [`GROUPS`], and says how many there are.
#[inline]
#[target_feature(enable = "avx2")]
fn spread_out<const BITS: usize>(blocks: &[u8], out: &mut [Spread; GROUPS]) -> usize {
    let low_bytes = _mm256_set1_epi16(0xff);
    for (block, out) in blocks.chunks_exact(BITS * QUAD_BYTES).zip(&mut *out) {
        for half in 0..2 {
            for pair in 0..QUADS / 2 {
                let levels = quads::<BITS>(block, pair, half);
                for odd in 0..2 {
                    let [even_columns, odd_columns] = &mut out[2 * pair + odd];
                    even_columns[half] = _mm256_and_si256(levels[odd], low_bytes);
                    odd_columns[half] = _mm256_srli_epi16::<8>(levels[odd]);
                }
            }
        }
    }
    blocks.len() / (BITS * QUAD_BYTES)
}

/// Adds to the sums of a panel for some tokens, those of a token `rows` behind those of the one before, what some groups give,
/// `first` and those behind it.
#[inline]
#[target_feature(enable = "avx2")]
fn add_some<const BITS: usize>(
    spread: &[Spread],
    first: usize,
    inputs: [Token<'_>; TOKENS],
    rows: usize,
    out: &mut [f32],
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; TOKENS];
    for t in 0..TOKENS {
        sums[t] = [load_sums(&out[t * rows..]), load_sums(&out[t * rows + ROWS..])];
    }
    for (group, levels) in (first..).zip(spread) {
        let mut totals = [[_mm256_setzero_si256(); 2]; TOKENS];
        for t in 0..TOKENS {
            // What the offset of levels adds.
            totals[t] = [_mm256_set1_epi32(-(inputs[t].scales[group].sum << (BITS - 1))); 2];
        }
        for (quad, levels) in levels.iter().enumerate() {
            for (odd, levels) in levels.iter().enumerate() {
                for t in 0..TOKENS {
                    let values = two(&inputs[t].values[group][odd], quad);
                    for half in 0..2 {
                        let products = _mm256_madd_epi16(levels[half], values);
                        totals[t][half] = _mm256_add_epi32(totals[t][half], products);
                    }
                }
            }
        }
        for t in 0..TOKENS {
            let scale = _mm256_set1_ps(inputs[t].scales[group].scale);
            for half in 0..2 {
                let total = _mm256_cvtepi32_ps(totals[t][half]);
                sums[t][half] = _mm256_add_ps(sums[t][half], _mm256_mul_ps(total, scale));
            }
        }
    }
    for t in 0..TOKENS {
        store(sums[t][0], &mut out[t * rows..]);
        store(sums[t][1], &mut out[t * rows + ROWS..]);
    }
}

/// The sums of a panel for `T` tokens, those of a token `rows` behind those of the one before.
#[inline]
#[target_feature(enable = "avx2")]
fn few<const BITS: usize, const T: usize>(
    panel: &[u8],
    inputs: [Token<'_>; T],
    rows: usize,
    out: &mut [f32],
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; T];
    for (group, block) in panel.chunks_exact(BITS * QUAD_BYTES).enumerate() {
        let mut totals = [[_mm256_setzero_si256(); 2]; T];
        if BITS == 8 {
            totals = products_of_words::<BITS, T>(block, &inputs, group);
        } else {
            // As many pairs as 16 bits hold sums of: two products of a level and a digit in each of two quads.
            let pairs = (QUADS / 2).min((1 << 15) / (4 * ((1 << BITS) - 1) * 128));
            for first in (0..QUADS / 2).step_by(pairs) {
                add_products_of_bytes::<BITS, T>(block, first..first + pairs, &inputs, group, &mut totals);
            }
        }
        for t in 0..T {
            let scale = inputs[t].scales[group];
            // What the offset of levels added.
            let extra = _mm256_set1_epi32(scale.sum << (BITS - 1));
            for half in 0..2 {
                let total = _mm256_cvtepi32_ps(_mm256_sub_epi32(totals[t][half], extra));
                sums[t][half] =
                    _mm256_add_ps(sums[t][half], _mm256_mul_ps(total, _mm256_set1_ps(scale.scale)));
            }
        }
    }
    for (t, sums) in sums.into_iter().enumerate() {
        store(sums[0], &mut out[t * rows..]);
        store(sums[1], &mut out[t * rows + ROWS..]);
    }
}

/// Adds to `totals`, of both halves of a panel for each token, the products of some pairs of quads of a block: no more than keep
/// sums of bytes in 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products_of_bytes<const BITS: usize, const T: usize>(
    block: &[u8],
    pairs: Range<usize>,
    inputs: &[Token<'_>; T],
    group: usize,
    totals: &mut [[__m256i; 2]; T],
) {
    // One half after the other: what is summed stays in registers.
    for half in 0..2 {
        // For each token the high digits and the low ones, of even and of odd quads.
        let mut sums = [[[_mm256_setzero_si256(); 2]; 2]; T];
        for pair in pairs.clone() {
            let levels = quads::<BITS>(block, pair, half);
            for odd in 0..2 {
                for (sums, input) in sums.iter_mut().zip(inputs) {
                    for (sums, digits) in sums.iter_mut().zip(&input.digits[group]) {
                        let products = _mm256_maddubs_epi16(levels[odd], four(digits, 2 * pair + odd));
                        sums[odd] = _mm256_add_epi16(sums[odd], products);
                    }
                }
            }
        }
        for (totals, [high, low]) in totals.iter_mut().zip(sums) {
            let high = _mm256_madd_epi16(_mm256_add_epi16(high[0], high[1]), _mm256_set1_epi16(256));
            let low = _mm256_madd_epi16(_mm256_add_epi16(low[0], low[1]), _mm256_set1_epi16(1));
            totals[half] = _mm256_add_epi32(totals[half], _mm256_add_epi32(high, low));
        }
    }
}

/// The products of a block with `T` tokens, for both halves of a panel.
#[inline]
#[target_feature(enable = "avx2")]
fn products_of_words<const BITS: usize, const T: usize>(
    block: &[u8],
    inputs: &[Token<'_>; T],
    group: usize,
) -> [[__m256i; 2]; T] {
    let low_bytes = _mm256_set1_epi16(0xff);
    let mut totals = [[_mm256_setzero_si256(); 2]; T];
    for half in 0..2 {
        for pair in 0..QUADS / 2 {
            let levels = quads::<BITS>(block, pair, half);
            for (quad, levels) in (2 * pair..).zip(levels) {
                let even_columns = _mm256_and_si256(levels, low_bytes);
                let odd_columns = _mm256_srli_epi16::<8>(levels);
                for (totals, input) in totals.iter_mut().zip(inputs) {
                    let [even_values, odd_values] = &input.values[group];
                    let even = _mm256_madd_epi16(even_columns, two(even_values, quad));
                    let odd = _mm256_madd_epi16(odd_columns, two(odd_values, quad));
                    totals[half] = _mm256_add_epi32(totals[half], _mm256_add_epi32(even, odd));
                }
            }
        }
    }
    totals
}

/// The levels of quads `2 pair` and `2 pair + 1`, with their offset.
#[inline]
#[target_feature(enable = "avx2")]
fn quads<const BITS: usize>(block: &[u8], pair: usize, half: usize) -> [__m256i; 2] {
    if BITS == 8 {
        let block = &block[half * BYTES..];
        return [load(&block[2 * pair * QUAD_BYTES..]), load(&block[(2 * pair + 1) * QUAD_BYTES..])];
    }
    if BITS == 1 {
        return [spread_bits(block, 2 * pair, half), spread_bits(block, 2 * pair + 1, half)];
    }
    let [lower, all] = masks(BITS);
    let (lower, all) = (_mm256_set1_epi8(lower as i8), _mm256_set1_epi8(all as i8));
    let bytes = load(&block[bottom_of(BITS, pair) * QUAD_BYTES + half * BYTES..]);
    let [even, odd] = bottom!(BITS, pair, bytes, _mm256_srli_epi16);
    let mut quads = [_mm256_and_si256(even, lower), _mm256_and_si256(odd, lower)];
    if !BITS.is_power_of_two() {
        let plane = load(&block[plane_of(BITS, pair) * QUAD_BYTES + half * BYTES..]);
        let [even, odd] = brought_down!(BITS, pair, plane, _mm256_slli_epi16, _mm256_srli_epi16);
        let upper = _mm256_xor_si256(all, lower);
        quads[0] = _mm256_or_si256(quads[0], _mm256_and_si256(even, upper));
        quads[1] = _mm256_or_si256(quads[1], _mm256_and_si256(odd, upper));
    }
    quads
}

/// The levels of a quad, where each has one bit.
#[inline]
#[target_feature(enable = "avx2")]
fn spread_bits(block: &[u8], quad: usize, half: usize) -> __m256i {
    let (bytes, shift) = half_bytes(quad);
    let (rows, _) = block[bytes][half * ROWS..].as_chunks::<ROWS>();
    let rows = _mm256_set1_epi64x(i64::from_le_bytes(rows[0]));
    let fours = _mm256_setr_epi8(
        0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7,
    );
    let bits = _mm256_set1_epi32(0x0804_0201 << shift);
    let bits = _mm256_and_si256(_mm256_shuffle_epi8(rows, fours), bits);
    _mm256_min_epu8(bits, _mm256_set1_epi8(1))
}

/// The digits of quad `index`, for every row.
#[inline]
#[target_feature(enable = "avx2")]
fn four(digits: &[i8], index: usize) -> __m256i {
    let [a, b, c, d] = digits.as_chunks::<QUAD>().0[index];
    _mm256_set1_epi32(i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]))
}

/// The two values of quad `index`, for every row.
#[inline]
#[target_feature(enable = "avx2")]
fn two(values: &[i16], index: usize) -> __m256i {
    let [a, b] = values.as_chunks::<2>().0[index];
    _mm256_set1_epi32((u32::from(a as u16) | u32::from(b as u16) << 16) as i32)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(bytes: &[u8]) -> __m256i {
    let bytes: &[u8] = &bytes[..BYTES];
    // SAFETY: there are 32 bytes.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_loadu_si256(bytes.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_sums(sums: &[f32]) -> __m256 {
    let sums: &[f32] = &sums[..ROWS];
    // SAFETY: there are 8 numbers.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_loadu_ps(sums.as_ptr())
    }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(sums: __m256, out: &mut [f32]) {
    let out: &mut [f32] = &mut out[..ROWS];
    // SAFETY: there is room for 8 numbers.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_ps(out.as_mut_ptr(), sums);
    }
}
