//! A quarter of a panel of rows in a vector: levels of even and of odd columns as 16-bit numbers, their products summed in
//! two vectors of 32-bit numbers. Of levels of one bit the sums of four products are looked up for a panel in one instruction,
//! their low and their high bytes apart.

use super::{Panels, bottom_of, masks, plane_of};
use crate::Isa;
use crate::unpacked::form::{Form, LOWER_QUADS, PANEL, QUAD, QUAD_BYTES, QUADS};
use crate::unpacked::inputs::{Inputs, Scale, Table, Token};
use std::arch::aarch64::*;

/// Vectors of a panel.
const PARTS: usize = 4;

/// Rows of a vector.
const ROWS: usize = PANEL / PARTS;

/// Bytes of a vector.
const BYTES: usize = QUAD_BYTES / PARTS;

/// See [`super::sums`]. False where the processor cannot.
pub(super) fn sums(panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) -> bool {
    if !Isa::Neon.is_available() {
        return false;
    }
    // SAFETY: the processor has what the function is compiled for.
    #[allow(unsafe_code)]
    unsafe {
        match panels.form {
            Form::One => all_looked_up(panels, inputs, tokens, sums),
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

#[target_feature(enable = "neon")]
fn all<const BITS: usize>(panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) {
    let rows = panels.count() * PANEL;
    for index in 0..panels.count() {
        let panel = panels.panel(index);
        for part in 0..PARTS {
            for token in 0..tokens {
                let out = &mut sums[token * rows + index * PANEL + part * ROWS..];
                some::<BITS>(panel, part, panels.token(inputs, token), out);
            }
        }
    }
}

#[target_feature(enable = "neon")]
fn all_looked_up(panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) {
    let rows = panels.count() * PANEL;
    for index in 0..panels.count() {
        for token in 0..tokens {
            let (tables, scales) = inputs.tables(token, panels.first..panels.first + panels.groups);
            let out = &mut sums[token * rows + index * PANEL..][..PANEL];
            look_up(panels.panel(index), tables, scales, out);
        }
    }
}

/// The sums of a panel for one token.
#[inline]
#[target_feature(enable = "neon")]
fn look_up(panel: &[u8], tables: &[Table], scales: &[Scale], out: &mut [f32]) {
    let mut sums = [vdupq_n_f32(0.0); PARTS];
    let blocks = panel.chunks_exact(Form::One.block_bytes());
    for ((block, [low, high]), scale) in blocks.zip(tables).zip(scales) {
        // Of sixteen inputs each, so that they have 16 bits: rows 0 to 7, and the others.
        let mut totals = [[vdupq_n_s16(0); 2]; 2];
        for quad in 0..LOWER_QUADS {
            let bytes = load(&block[quad * PANEL..]);
            let halves = [vandq_u8(bytes, vdupq_n_u8(0xf)), vshrq_n_u8::<{ QUAD as i32 }>(bytes)];
            for (upper, (bits, totals)) in halves.into_iter().zip(&mut totals).enumerate() {
                let quad = quad + upper * LOWER_QUADS;
                let low = vqtbl1q_u8(load(&low[quad]), bits);
                let high = vqtbl1q_u8(load(&high[quad]), bits);
                totals[0] = vaddq_s16(totals[0], vreinterpretq_s16_u8(vzip1q_u8(low, high)));
                totals[1] = vaddq_s16(totals[1], vreinterpretq_s16_u8(vzip2q_u8(low, high)));
            }
        }
        let scale = vdupq_n_f32(scale.scale);
        for half in 0..2 {
            let [a, b] = [totals[0][half], totals[1][half]];
            let parts = [vaddl_s16(vget_low_s16(a), vget_low_s16(b)), vaddl_high_s16(a, b)];
            for (sum, part) in sums[2 * half..].iter_mut().zip(parts) {
                *sum = vaddq_f32(*sum, vmulq_f32(vcvtq_f32_s32(part), scale));
            }
        }
    }
    for (part, sums) in sums.into_iter().enumerate() {
        store(sums, &mut out[part * ROWS..]);
    }
}

/// The sums of one part of a panel for one token.
#[inline]
#[target_feature(enable = "neon")]
fn some<const BITS: usize>(panel: &[u8], part: usize, input: Token<'_>, out: &mut [f32]) {
    let mut sum = vdupq_n_f32(0.0);
    for (group, block) in panel.chunks_exact(BITS * QUAD_BYTES).enumerate() {
        let [even_values, odd_values] = &input.values[group];
        // Of two rows each.
        let mut low = vdupq_n_s32(0);
        let mut high = vdupq_n_s32(0);
        for pair in 0..QUADS / 2 {
            let both = quads::<BITS>(block, pair, part);
            for (quad, levels) in (2 * pair..).zip(both) {
                let levels = vreinterpretq_u16_u8(levels);
                let even = vreinterpretq_s16_u16(vandq_u16(levels, vdupq_n_u16(0xff)));
                let odd = vreinterpretq_s16_u16(vshrq_n_u16::<8>(levels));
                let (even_value, odd_value) = (two(even_values, quad), two(odd_values, quad));
                low = vmlal_s16(low, vget_low_s16(even), vget_low_s16(even_value));
                high = vmlal_high_s16(high, even, even_value);
                low = vmlal_s16(low, vget_low_s16(odd), vget_low_s16(odd_value));
                high = vmlal_high_s16(high, odd, odd_value);
            }
        }
        let scale = input.scales[group];
        // What the offset of levels added.
        let extra = vdupq_n_s32(scale.sum << (BITS - 1));
        let total = vcvtq_f32_s32(vsubq_s32(vpaddq_s32(low, high), extra));
        sum = vaddq_f32(sum, vmulq_f32(total, vdupq_n_f32(scale.scale)));
    }
    store(sum, out);
}

/// The levels of quads `2 pair` and `2 pair + 1`, with their offset.
#[inline]
#[target_feature(enable = "neon")]
fn quads<const BITS: usize>(block: &[u8], pair: usize, part: usize) -> [uint8x16_t; 2] {
    if BITS == 8 {
        let block = &block[part * BYTES..];
        return [load(&block[2 * pair * QUAD_BYTES..]), load(&block[(2 * pair + 1) * QUAD_BYTES..])];
    }
    let [lower, all] = masks(BITS);
    let (lower, all) = (vdupq_n_u8(lower), vdupq_n_u8(all));
    let bytes = load(&block[bottom_of(BITS, pair) * QUAD_BYTES + part * BYTES..]);
    let [even, odd] = bottom!(BITS, pair, bytes, vshrq_n_u8);
    let mut quads = [vandq_u8(even, lower), vandq_u8(odd, lower)];
    if !BITS.is_power_of_two() {
        let plane = load(&block[plane_of(BITS, pair) * QUAD_BYTES + part * BYTES..]);
        let [even, odd] = brought_down!(BITS, pair, plane, vshlq_n_u8, vshrq_n_u8);
        let upper = veorq_u8(all, lower);
        quads[0] = vorrq_u8(quads[0], vandq_u8(even, upper));
        quads[1] = vorrq_u8(quads[1], vandq_u8(odd, upper));
    }
    quads
}

/// The two values of quad `index`, for every row.
#[inline]
#[target_feature(enable = "neon")]
fn two(values: &[i16], index: usize) -> int16x8_t {
    let [a, b] = values.as_chunks::<2>().0[index];
    vreinterpretq_s16_u32(vdupq_n_u32(u32::from(a as u16) | u32::from(b as u16) << 16))
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8]) -> uint8x16_t {
    let bytes: &[u8] = &bytes[..BYTES];
    // SAFETY: there are 16 bytes.
    #[allow(unsafe_code)]
    unsafe {
        vld1q_u8(bytes.as_ptr())
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(sums: float32x4_t, out: &mut [f32]) {
    let out: &mut [f32] = &mut out[..ROWS];
    // SAFETY: there is room for 4 numbers.
    #[allow(unsafe_code)]
    unsafe {
        vst1q_f32(out.as_mut_ptr(), sums);
    }
}
