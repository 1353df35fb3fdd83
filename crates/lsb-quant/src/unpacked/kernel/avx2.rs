//! Half a panel of rows in a vector: levels of even and of odd columns as 16-bit numbers, the products of two of them summed in
//! one instruction. Where there are tokens enough, levels are spread to such numbers once for all of them; else two tokens at a
//! time share what is spread.

use super::{Panels, plane_of};
use crate::Isa;
use crate::unpacked::form::{Form, PANEL, QUAD_BYTES, QUADS};
use crate::unpacked::inputs::{Inputs, Token};
use std::arch::x86_64::*;

/// Rows of a vector.
const ROWS: usize = PANEL / 2;

/// Bytes of a vector.
const BYTES: usize = QUAD_BYTES / 2;

/// Tokens at a time, where there are so many: what is added up stays in registers.
const TOKENS: usize = 4;

/// Groups whose levels are spread at once: 16 KB, half of the first cache.
const GROUPS: usize = 16;

/// The levels of a block as 16-bit numbers: of each quad the even columns and the odd ones, of both halves of the panel.
type Spread = [[[__m256i; 2]; 2]; QUADS];

/// See [`super::sums`]. False where the processor cannot.
pub(super) fn sums(panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) -> bool {
    if !Isa::Avx2.is_available() {
        return false;
    }
    // SAFETY: the processor has what the function is compiled for.
    #[allow(unsafe_code)]
    unsafe {
        match panels.form {
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
    sums[..fours * rows].fill(0.0);
    let mut spread: [Spread; GROUPS] = [[[[_mm256_setzero_si256(); 2]; 2]; QUADS]; GROUPS];
    for index in 0..panels.count() {
        let panel = panels.panel(index);
        if fours > 0 {
            for (chunk, blocks) in panel.chunks(GROUPS * BITS * QUAD_BYTES).enumerate() {
                let groups = spread_out::<BITS>(blocks, &mut spread);
                for token in (0..fours).step_by(TOKENS) {
                    let inputs = std::array::from_fn::<_, TOKENS, _>(|i| inputs.token(token + i));
                    let out = &mut sums[token * rows + index * PANEL..];
                    add_some::<BITS>(&spread[..groups], chunk * GROUPS, inputs, rows, out);
                }
            }
        }
        for half in 0..2 {
            let mut token = fours;
            while token < tokens {
                let out = &mut sums[token * rows + index * PANEL + half * ROWS..];
                if token + 2 <= tokens {
                    let inputs = [inputs.token(token), inputs.token(token + 1)];
                    some::<BITS, 2>(panel, half, inputs, rows, out);
                    token += 2;
                } else {
                    some::<BITS, 1>(panel, half, [inputs.token(token)], rows, out);
                    token += 1;
                }
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

/// The sums of one half of a panel for `T` tokens, those of a token `rows` behind those of the one before.
#[inline]
#[target_feature(enable = "avx2")]
fn some<const BITS: usize, const T: usize>(
    panel: &[u8],
    half: usize,
    inputs: [Token<'_>; T],
    rows: usize,
    out: &mut [f32],
) {
    let low_bytes = _mm256_set1_epi16(0xff);
    let mut sums = [_mm256_setzero_ps(); T];
    for (group, block) in panel.chunks_exact(BITS * QUAD_BYTES).enumerate() {
        // Even and odd columns apart, so that one sum does not wait for the other.
        let mut totals = [[_mm256_setzero_si256(); 2]; T];
        for pair in 0..QUADS / 2 {
            let levels = quads::<BITS>(block, pair, half);
            for (quad, levels) in (2 * pair..).zip(levels) {
                let levels = [_mm256_and_si256(levels, low_bytes), _mm256_srli_epi16::<8>(levels)];
                for (totals, input) in totals.iter_mut().zip(&inputs) {
                    for ((total, levels), values) in totals.iter_mut().zip(levels).zip(&input.values[group]) {
                        *total = _mm256_add_epi32(*total, _mm256_madd_epi16(levels, two(values, quad)));
                    }
                }
            }
        }
        for ((sum, [even, odd]), input) in sums.iter_mut().zip(totals).zip(&inputs) {
            let scale = input.scales[group];
            // What the offset of levels added.
            let extra = _mm256_set1_epi32(scale.sum << (BITS - 1));
            let total = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_add_epi32(even, odd), extra));
            *sum = _mm256_add_ps(*sum, _mm256_mul_ps(total, _mm256_set1_ps(scale.scale)));
        }
    }
    for (t, sum) in sums.into_iter().enumerate() {
        store(sum, &mut out[t * rows..]);
    }
}

/// The levels of quads `2 pair` and `2 pair + 1`, with their offset.
#[inline]
#[target_feature(enable = "avx2")]
fn quads<const BITS: usize>(block: &[u8], pair: usize, half: usize) -> [__m256i; 2] {
    if BITS == 8 {
        let block = &block[half * BYTES..];
        return [load(&block[2 * pair * QUAD_BYTES..]), load(&block[(2 * pair + 1) * QUAD_BYTES..])];
    }
    let nibble = _mm256_set1_epi8(0xf);
    let bytes = load(&block[pair * QUAD_BYTES + half * BYTES..]);
    let mut quads =
        [_mm256_and_si256(bytes, nibble), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble)];
    if BITS > 4 {
        let plane = load(&block[(4 + plane_of(BITS, pair)) * QUAD_BYTES + half * BYTES..]);
        let [even, odd] = brought_down!(BITS, pair, plane, _mm256_slli_epi16, _mm256_srli_epi16);
        // Of one bit or of two.
        let upper = _mm256_set1_epi8(if BITS == 5 { 0x10 } else { 0x30 });
        quads[0] = _mm256_or_si256(quads[0], _mm256_and_si256(even, upper));
        quads[1] = _mm256_or_si256(quads[1], _mm256_and_si256(odd, upper));
    }
    quads
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
fn load(bytes: &[u8]) -> __m256i {
    let bytes: &[u8] = &bytes[..BYTES];
    // SAFETY: there are 32 bytes.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_loadu_si256(bytes.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_sums(sums: &[f32]) -> __m256 {
    let sums: &[f32] = &sums[..ROWS];
    // SAFETY: there are 8 numbers.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_loadu_ps(sums.as_ptr())
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(sums: __m256, out: &mut [f32]) {
    let out: &mut [f32] = &mut out[..ROWS];
    // SAFETY: there is room for 8 numbers.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_ps(out.as_mut_ptr(), sums);
    }
}
