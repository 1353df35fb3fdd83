//! The specification, which the compiler also turns into vectors of 128 and 256 bits.

use super::{GROUP, Width};

/// See [`super::sums`].
#[inline(always)]
pub(super) fn sums(width: Width, packed: &[u8], inputs: &[f32], sums: &mut [f32]) {
    // One loop for each width: a choice inside of it would be made for each group.
    match width {
        Width::Nibbles => rows(Width::Nibbles, packed, inputs, sums),
        Width::Bytes => rows(Width::Bytes, packed, inputs, sums),
    }
}

#[inline(always)]
fn rows(width: Width, packed: &[u8], inputs: &[f32], sums: &mut [f32]) {
    let row_bytes = width.bytes(inputs.len());
    if row_bytes == 0 {
        return sums.fill(0.0);
    }
    for (row, sum) in packed.chunks_exact(row_bytes).zip(sums) {
        let mut partial = [0.0_f32; GROUP];
        for (group, inputs) in inputs.chunks_exact(GROUP).enumerate() {
            let levels = width.group(row, group);
            for ((partial, level), input) in partial.iter_mut().zip(levels).zip(inputs) {
                *partial += level * input;
            }
        }
        *sum = fold(partial);
    }
}

/// Adds the upper half to the lower one until one is left.
#[inline(always)]
fn fold(mut partial: [f32; GROUP]) -> f32 {
    let mut half = GROUP / 2;
    while half > 0 {
        for i in 0..half {
            partial[i] += partial[i + half];
        }
        half /= 2;
    }
    partial[0]
}
