//! Columns of a band, one after the other, with errors fed forward; and the transpose of that.

use crate::calibrate::InputFactor;

/// Columns whose errors reach the columns behind them together.
const BLOCK: usize = 128;
/// Rows that are updated together: a vector of sums that stays in registers. Columns are padded to whole strips.
const STRIP: usize = 32;

/// Length of a padded column of `rows` rows.
pub(crate) fn stride(rows: usize) -> usize {
    rows.next_multiple_of(STRIP)
}

/// The columns of a row-major matrix in the order `factor` takes them, each padded with zeros to a stride, and changed by
/// what makes up for drifted inputs.
pub(crate) fn columns(factor: &InputFactor, weights: &[f32]) -> Vec<f32> {
    let cols = factor.len();
    let stride = stride(weights.len() / cols.max(1));
    let mut out = vec![0.0f32; cols * stride];
    for (column, &c) in out.chunks_mut(stride.max(1)).zip(factor.order()) {
        for (x, row) in column.iter_mut().zip(weights.chunks(cols)) {
            *x = row[c];
        }
    }
    change(factor, &mut out, stride);
    out
}

/// Adds to each column what others of its block contribute to it, in their original form.
fn change(factor: &InputFactor, columns: &mut [f32], stride: usize) {
    for block in factor.blocks() {
        if factor.change(block.start).is_none() {
            return;
        }
        let part = &mut columns[block.start * stride..block.end * stride];
        let original = part.to_vec();
        for (place, column) in block.zip(part.chunks_mut(stride)) {
            let Some(shares) = factor.change(place) else { continue };
            for (shares, others) in shares.chunks(BLOCK).zip(original.chunks(BLOCK * stride)) {
                update(column, others, stride, |k| -shares[k].to_f32());
            }
        }
    }
}

/// Visits the columns in order: `code(place, column)` sees a column from which the errors of earlier ones are taken off,
/// and leaves its normalised errors `e = (w - q) / U_ii` in it. In the end all of `columns` are errors `e`, with
/// `e U = W - Q`.
pub(crate) fn forward(
    factor: &InputFactor,
    columns: &mut [f32],
    stride: usize,
    mut code: impl FnMut(usize, &mut [f32]),
) {
    let pieces = factor.blocks().flat_map(|b| b.clone().step_by(BLOCK).map(move |f| (b.clone(), f)));
    for (whole, first) in pieces {
        let width = BLOCK.min(whole.end - first);
        let (block, later) = columns[first * stride..whole.end * stride].split_at_mut(width * stride);
        for i in 0..width {
            let (done, rest) = block.split_at_mut(i * stride);
            let column = &mut rest[..stride];
            update(column, done, stride, |k| factor.row(first + k)[first + i - whole.start]);
            code(first + i, column);
        }
        for (j, column) in later.chunks_mut(stride).enumerate() {
            let at = first + width + j - whole.start;
            update(column, block, stride, |k| factor.row(first + k)[at]);
        }
    }
}

/// Turns normalised errors `e` into `x` with `x U^T = e`: the errors of weights times the moments of inputs.
pub(crate) fn backward(factor: &InputFactor, columns: &mut [f32], stride: usize) {
    let mut pieces: Vec<_> =
        factor.blocks().flat_map(|b| b.clone().step_by(BLOCK).map(move |f| (b.clone(), f))).collect();
    pieces.reverse();
    for (whole, first) in pieces {
        let width = BLOCK.min(whole.end - first);
        let from = whole.start * stride;
        let (earlier, block) = columns[from..(first + width) * stride].split_at_mut(first * stride - from);
        for i in (0..width).rev() {
            let (rest, done) = block.split_at_mut((i + 1) * stride);
            let column = &mut rest[i * stride..];
            let row = &factor.row(first + i)[first + i - whole.start..];
            update(column, done, stride, |k| row[1 + k]);
            let inverse = 1.0 / row[0];
            column.iter_mut().for_each(|x| *x *= inverse);
        }
        for (j, column) in earlier.chunks_mut(stride).enumerate() {
            let row = &factor.row(whole.start + j)[first - whole.start..];
            update(column, block, stride, |k| row[k]);
        }
    }
}

/// Takes off errors: `column -= sum over k of factor(k) errors[k]`, at most [`BLOCK`] of them.
fn update(column: &mut [f32], errors: &[f32], stride: usize, factor: impl Fn(usize) -> f32) {
    let n = errors.len() / stride;
    let mut factors = [0.0; BLOCK];
    for (k, f) in factors[..n].iter_mut().enumerate() {
        *f = factor(k);
    }
    for (s, strip) in column.as_chunks_mut::<STRIP>().0.iter_mut().enumerate() {
        let mut sums = *strip;
        for (k, &f) in factors[..n].iter().enumerate() {
            let Some(e) = errors[k * stride + s * STRIP..].first_chunk::<STRIP>() else { break };
            for (sum, &e) in sums.iter_mut().zip(e) {
                *sum -= f * e;
            }
        }
        *strip = sums;
    }
}
