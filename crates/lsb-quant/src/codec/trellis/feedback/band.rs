//! One band of rows, column after column.

use super::super::classes::Classes;
use super::super::decode::weight;
use super::super::machine::Machine;
use super::super::search::{RateTable, Search};
use crate::calibrate::UpperFactor;

/// Columns whose errors reach the columns behind them together.
const BLOCK: usize = 128;
/// Rows that are updated together: a vector of sums that stays in registers.
const STRIP: usize = 32;

/// What all bands share.
pub(super) struct Plan<'a> {
    pub(super) cols: usize,
    /// Columns in the order they are taken.
    pub(super) order: &'a [usize],
    /// Of the inputs in that order.
    pub(super) factor: &'a UpperFactor,
    pub(super) machine: Machine,
    /// Step of each column as decoded, and as searched with.
    pub(super) decoded: &'a [f32],
    pub(super) search: Vec<f32>,
    pub(super) rates: Vec<RateTable>,
    pub(super) classes: &'a Classes,
}

/// Consecutive rows.
pub(super) struct Band<'a> {
    pub(super) first_row: usize,
    /// Step of each row in units of its column's.
    pub(super) factors: &'a [f32],
}

pub(super) struct BandResult {
    /// Column by column, in the order they are stored in.
    pub(super) levels: Vec<i32>,
    /// For each column, sums of products of target and level and of squared levels, in units of the searched step.
    pub(super) moments: Vec<(f64, f64)>,
    /// Sum of squared normalised errors.
    pub(super) loss: f64,
}

/// Quantizes the rows of a band, given row-major.
pub(super) fn quantize(plan: &Plan<'_>, band: &Band<'_>, weights: &[f32]) -> BandResult {
    let (rows, cols) = (band.factors.len(), plan.cols);
    // Columns in the order they are taken, each padded to whole strips.
    let stride = rows.next_multiple_of(STRIP);
    let mut targets = vec![0.0f32; cols * stride];
    for (target, &c) in targets.chunks_mut(stride).zip(plan.order) {
        for (x, row) in target.iter_mut().zip(weights.chunks(cols)) {
            *x = row[c];
        }
    }
    let mut out = BandResult { levels: vec![0; cols * rows], moments: vec![(0.0, 0.0); cols], loss: 0.0 };
    let mut search = Search::<1>::new(plan.machine);
    let mut samples = vec![[0.0f32]; rows];
    let mut found = vec![[0i32]; rows];
    for first in (0..cols).step_by(BLOCK) {
        let width = BLOCK.min(cols - first);
        let (block, later) = targets[first * stride..].split_at_mut(width * stride);
        for i in 0..width {
            let (done, rest) = block.split_at_mut(i * stride);
            let target = &mut rest[..stride];
            update(target, done, stride, |k| plan.factor.row(first + k)[first + i]);
            let c = plan.order[first + i];
            let inverse = 1.0 / plan.search[c];
            for ((x, &w), &factor) in samples.iter_mut().zip(&*target).zip(band.factors) {
                *x = [w * inverse / factor];
            }
            search.run(&samples, &plan.rates, |t, _| plan.classes.class(band.first_row + t, c), &mut found);
            let normal = 1.0 / plan.factor.diagonal(first + i);
            let (mut loss, mut products, mut squares) = (0.0, 0.0, 0.0);
            for (r, (&[level], &[x])) in found.iter().zip(&samples).enumerate() {
                out.levels[c * rows + r] = level;
                // The place of the target takes its error.
                let e = (target[r] - weight(level, plan.decoded[c], band.factors[r])) * normal;
                target[r] = e;
                loss += f64::from(e) * f64::from(e);
                products += f64::from(x) * f64::from(level);
                squares += f64::from(level) * f64::from(level);
            }
            out.loss += loss;
            out.moments[c] = (products, squares);
        }
        for (j, target) in later.chunks_mut(stride).enumerate() {
            update(target, block, stride, |k| plan.factor.row(first + k)[first + width + j]);
        }
    }
    out
}

/// Takes up the errors of earlier columns: `target -= sum over k of factor(k) errors[k]`.
fn update(target: &mut [f32], errors: &[f32], stride: usize, factor: impl Fn(usize) -> f32) {
    let n = errors.len() / stride;
    let mut factors = [0.0; BLOCK];
    for (k, f) in factors[..n].iter_mut().enumerate() {
        *f = factor(k);
    }
    for (s, strip) in target.as_chunks_mut::<STRIP>().0.iter_mut().enumerate() {
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
