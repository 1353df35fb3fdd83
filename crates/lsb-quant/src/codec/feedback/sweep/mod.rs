//! Columns of a band, one after the other, with errors fed forward; and the transpose of that.

mod kernel;
#[cfg(test)]
mod tests;

use crate::calibrate::InputFactor;
use crate::isa::Isa;
use crate::vectorize::vectorize;
use kernel::{COLUMNS, Factors, Update, UpdateOne};
use std::ops::Range;

/// Columns whose errors reach the columns behind them together.
const BLOCK: usize = 128;
/// Columns whose errors reach the others of their block together.
const INNER: usize = 16;
/// Columns are padded to whole strips, so that there are no rows left over behind vectors.
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
        for (b, others) in original.chunks(BLOCK * stride).enumerate() {
            update(part, others, stride, |columns, factors| {
                let width = others.len() / stride;
                for (j, column) in columns.enumerate() {
                    let shares = factor.change(block.start + column).unwrap_or_default();
                    let shares = &shares[b * BLOCK..][..width];
                    by_column(factors, j, shares.iter().map(|share| -share.to_f32()));
                }
            });
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
        // Factors of the columns from place `from` on.
        let rows = |places: Range<usize>, from: usize| {
            move |columns: Range<usize>, factors: &mut Factors| {
                let start = from - whole.start;
                for (k, place) in places.clone().enumerate() {
                    by_row(factors, k, &factor.row(place)[start + columns.start..start + columns.end]);
                }
            }
        };
        for start in (first..first + width).step_by(INNER) {
            let end = (first + width).min(start + INNER);
            let (inner, rest) = block[(start - first) * stride..].split_at_mut((end - start) * stride);
            for place in start..end {
                let i = place - start;
                let (done, column) = inner[..(i + 1) * stride].split_at_mut(i * stride);
                let mut factors = [0.0; INNER];
                for (f, earlier) in factors.iter_mut().zip(start..place) {
                    *f = factor.row(earlier)[place - whole.start];
                }
                update_one(column, done, &factors[..i]);
                code(place, column);
            }
            update(rest, inner, stride, rows(start..end, end));
        }
        update(later, block, stride, rows(first..first + width, first + width));
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
            update_one(column, done, &row[1..width - i]);
            let inverse = 1.0 / row[0];
            column.iter_mut().for_each(|x| *x *= inverse);
        }
        update(earlier, block, stride, |columns, factors| {
            for (j, place) in columns.enumerate() {
                let row = &factor.row(whole.start + place)[first - whole.start..][..width];
                by_column(factors, j, row.iter().copied());
            }
        });
    }
}

/// Takes off errors, at most [`BLOCK`] columns of them, with the factors that `fill` tells of a range of columns.
fn update(columns: &mut [f32], errors: &[f32], stride: usize, fill: impl Fn(Range<usize>, &mut Factors)) {
    if !columns.is_empty() && !errors.is_empty() {
        vectorize(Isa::chosen(), Update { columns, errors, stride, fill });
    }
}

/// Takes off errors of one column, with a factor for each.
fn update_one(column: &mut [f32], errors: &[f32], factors: &[f32]) {
    if !errors.is_empty() {
        vectorize(Isa::chosen(), UpdateOne { column, errors, factors });
    }
}

/// The factors of error `k` in all columns.
#[inline(always)]
fn by_row(factors: &mut Factors, k: usize, row: &[f32]) {
    for (group, row) in factors.iter_mut().zip(row.chunks(COLUMNS)) {
        group[k][..row.len()].copy_from_slice(row);
    }
}

/// The factors of all errors in column `j`.
#[inline(always)]
fn by_column(factors: &mut Factors, j: usize, column: impl Iterator<Item = f32>) {
    for (to, factor) in factors[j / COLUMNS].iter_mut().zip(column) {
        to[j % COLUMNS] = factor;
    }
}
