//! Levels of one bit for a token: the sums of four products are looked up for 32 rows and quads in one instruction, their low and
//! their high bytes apart. A panel is in each half of a vector, with other quads.

use super::Panels;
use super::avx2::{BYTES, ROWS, load, load_sums, store};
use crate::unpacked::form::{Form, PANEL, QUAD};
use crate::unpacked::inputs::{Inputs, Scale, Table};
use std::arch::x86_64::*;

/// Groups at a time: their tables take 16 KB, half of the first cache.
const GROUPS: usize = 64;

/// The sums of all panels for token `index`, whose inputs have tables.
#[target_feature(enable = "avx2")]
pub(super) fn sums(panels: &Panels<'_>, inputs: &Inputs, index: usize, sums: &mut [f32]) {
    sums.fill(0.0);
    let (tables, scales) = inputs.tables(index, panels.first..panels.first + panels.groups);
    let bytes = GROUPS * Form::One.block_bytes();
    for (chunk, (tables, scales)) in tables.chunks(GROUPS).zip(scales.chunks(GROUPS)).enumerate() {
        for (index, sums) in sums.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            let blocks = &panels.panel(index)[chunk * bytes..];
            add_some(&blocks[..bytes.min(blocks.len())], tables, scales, sums);
        }
    }
}

/// Adds to the sums of a panel what some groups give.
#[inline]
#[target_feature(enable = "avx2")]
fn add_some(blocks: &[u8], tables: &[Table], scales: &[Scale], out: &mut [f32; PANEL]) {
    let half_byte = _mm256_set1_epi8(0xf);
    // Puts the sums of a row, of both halves of a vector, side by side.
    let pairs =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
    let ones = _mm256_set1_epi16(1);
    let mut sums = [load_sums(&out[..ROWS]), load_sums(&out[ROWS..])];
    let blocks = blocks.chunks_exact(Form::One.block_bytes());
    for ((block, [low, high]), scale) in blocks.zip(tables).zip(scales) {
        let (low, high) = (low.as_flattened(), high.as_flattened());
        // Rows 0 to 7, and the others. Sixteen inputs in each half: their sums have 16 bits.
        let mut totals = [_mm256_setzero_si256(); 2];
        for half in 0..2 {
            let bytes = load(&block[half * BYTES..]);
            let upper = _mm256_srli_epi16::<{ QUAD as i32 }>(bytes);
            for (quads, bits) in [(half, bytes), (half + 2, upper)] {
                let bits = _mm256_and_si256(bits, half_byte);
                let low = _mm256_shuffle_epi8(load(&low[quads * BYTES..]), bits);
                let high = _mm256_shuffle_epi8(load(&high[quads * BYTES..]), bits);
                totals[0] = _mm256_add_epi16(totals[0], _mm256_unpacklo_epi8(low, high));
                totals[1] = _mm256_add_epi16(totals[1], _mm256_unpackhi_epi8(low, high));
            }
        }
        let scale = _mm256_set1_ps(scale.scale);
        for (sums, total) in sums.iter_mut().zip(totals) {
            let rows = _mm256_permute4x64_epi64::<0b11_01_10_00>(total);
            let total = _mm256_madd_epi16(_mm256_shuffle_epi8(rows, pairs), ones);
            *sums = _mm256_add_ps(*sums, _mm256_mul_ps(_mm256_cvtepi32_ps(total), scale));
        }
    }
    store(sums[0], &mut out[..ROWS]);
    store(sums[1], &mut out[ROWS..]);
}
