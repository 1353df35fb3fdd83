//! A panel of rows in a vector: products of bytes, four columns summed in one instruction (VNNI), for the high and the low
//! digits of inputs. Where there are tokens enough, two panels and four tokens at a time, so that neither levels nor digits are
//! loaded more often than needed.
//!
//! No closures: the compiler makes functions of them here, and vectors go through memory.

use super::{Panels, plane_of};
use crate::Isa;
use crate::unpacked::form::{Form, PANEL, QUAD, QUAD_BYTES, QUADS};
use crate::unpacked::inputs::{Inputs, Token};
use std::arch::x86_64::*;

/// Panels at a time.
const PANELS: usize = 2;

/// Tokens at a time.
const TOKENS: usize = 4;

/// See [`super::sums`]. False where the processor cannot, and for forms of fewer than four bits.
pub(super) fn sums(panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) -> bool {
    if !Isa::Avx512.is_available() || !is_x86_feature_detected!("avx512vnni") {
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
            Form::One | Form::Two | Form::Three => return false,
        }
    }
    true
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn all<const BITS: usize>(panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) {
    let count = panels.count();
    let rows = count * PANEL;
    // All tokens meet a pair of panels before the next pair: levels come from memory once.
    for first in (0..count).step_by(PANELS) {
        let mut token = 0;
        if first + 1 < count {
            let pair = [panels.panel(first), panels.panel(first + 1)];
            while token + TOKENS <= tokens {
                let inputs = std::array::from_fn::<_, TOKENS, _>(|i| panels.token(inputs, token + i));
                some::<BITS, PANELS, TOKENS>(pair, inputs, rows, &mut sums[token * rows + first * PANEL..]);
                token += TOKENS;
            }
        }
        // For a single token memory is what is waited for, and it is fastest where it is read from front to back.
        for panel in first..count.min(first + PANELS) {
            for token in token..tokens {
                let out = &mut sums[token * rows + panel * PANEL..];
                some::<BITS, 1, 1>([panels.panel(panel)], [panels.token(inputs, token)], rows, out);
            }
        }
    }
}

/// The sums of `P` panels for `T` tokens, those of a token `rows` behind those of the one before.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn some<const BITS: usize, const P: usize, const T: usize>(
    panels: [&[u8]; P],
    inputs: [Token<'_>; T],
    rows: usize,
    out: &mut [f32],
) {
    let zero = _mm512_setzero_si512();
    let mut sums = [[_mm512_setzero_ps(); P]; T];
    for group in 0..inputs[0].scales.len() {
        let mut high = [[zero; P]; T];
        let mut low = [[zero; P]; T];
        for pair in 0..QUADS / 2 {
            // Of each panel the even quad, and the odd one.
            let mut levels = [[zero; P]; 2];
            for p in 0..P {
                let block = &panels[p][group * BITS * QUAD_BYTES..][..BITS * QUAD_BYTES];
                [levels[0][p], levels[1][p]] = quads::<BITS>(block, pair);
            }
            for (quad, levels) in (2 * pair..).zip(&levels) {
                for t in 0..T {
                    let [high_digits, low_digits] = &inputs[t].digits[group];
                    let high_digits = digits_of(high_digits, quad);
                    let low_digits = digits_of(low_digits, quad);
                    for p in 0..P {
                        high[t][p] = _mm512_dpbusd_epi32(high[t][p], levels[p], high_digits);
                        low[t][p] = _mm512_dpbusd_epi32(low[t][p], levels[p], low_digits);
                    }
                }
            }
        }
        for t in 0..T {
            let scale = inputs[t].scales[group];
            // What the offset of levels added.
            let extra = _mm512_set1_epi32(scale.sum << (BITS - 1));
            for p in 0..P {
                let total = _mm512_add_epi32(_mm512_slli_epi32::<8>(high[t][p]), low[t][p]);
                let total = _mm512_cvtepi32_ps(_mm512_sub_epi32(total, extra));
                sums[t][p] = _mm512_add_ps(sums[t][p], _mm512_mul_ps(total, _mm512_set1_ps(scale.scale)));
            }
        }
    }
    for t in 0..T {
        for p in 0..P {
            store(sums[t][p], &mut out[t * rows + p * PANEL..]);
        }
    }
}

/// The levels of quads `2 pair` and `2 pair + 1`, with their offset.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn quads<const BITS: usize>(block: &[u8], pair: usize) -> [__m512i; 2] {
    if BITS == 8 {
        return [load(&block[2 * pair * QUAD_BYTES..]), load(&block[(2 * pair + 1) * QUAD_BYTES..])];
    }
    let nibble = _mm512_set1_epi8(0xf);
    let bytes = load(&block[pair * QUAD_BYTES..]);
    let mut quads =
        [_mm512_and_si512(bytes, nibble), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble)];
    if BITS > 4 {
        let plane = load(&block[plane_of(BITS, pair) * QUAD_BYTES..]);
        let [even, odd] = brought_down!(BITS, pair, plane, _mm512_slli_epi16, _mm512_srli_epi16);
        // Of one bit or of two.
        let upper = _mm512_set1_epi8(if BITS == 5 { 0x10 } else { 0x30 });
        quads[0] = _mm512_or_si512(quads[0], _mm512_and_si512(even, upper));
        quads[1] = _mm512_or_si512(quads[1], _mm512_and_si512(odd, upper));
    }
    quads
}

/// The digits of quad `index`, for every row.
#[inline]
#[target_feature(enable = "avx512f")]
fn digits_of(digits: &[i8], index: usize) -> __m512i {
    let [a, b, c, d] = digits.as_chunks::<QUAD>().0[index];
    _mm512_set1_epi32(i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8]) -> __m512i {
    let bytes: &[u8] = &bytes[..QUAD_BYTES];
    // SAFETY: there are 64 bytes.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_si512(bytes.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(sums: __m512, out: &mut [f32]) {
    let out: &mut [f32] = &mut out[..PANEL];
    // SAFETY: there is room for 16 numbers.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_ps(out.as_mut_ptr(), sums);
    }
}
