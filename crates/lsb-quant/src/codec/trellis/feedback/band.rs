//! One band of rows, column after column.

use super::super::classes::Classes;
use super::super::decode::weight;
use super::super::search::Search;
use super::Plan;

/// Columns whose errors reach the columns behind them together.
const BLOCK: usize = 128;
/// Rows that are updated together: a vector of sums that stays in registers.
const STRIP: usize = 32;

/// Consecutive rows.
pub(super) struct Band<'a> {
    /// Step of each row in units of its column's.
    pub(super) factors: &'a [f32],
}

/// Sums over a band.
pub(super) struct Sums {
    /// For each column, sums of products of target and level and of squared levels, in units of the searched step.
    pub(super) moments: Vec<(f64, f64)>,
    /// Sum of squared normalised errors.
    pub(super) loss: f64,
    /// The same with each row's errors in units of its factor.
    pub(super) weighted: f64,
    /// Which rates were counted with.
    pub(super) classes: Classes,
}

/// Quantizes the rows of a band, given row-major: levels column by column, in the order columns are stored in.
pub(super) fn quantize(plan: &Plan, classes: &Classes, band: &Band<'_>, weights: &[f32]) -> (Vec<i32>, Sums) {
    let (rows, cols) = (band.factors.len(), plan.matrix.cols as usize);
    let order = plan.factor.order();
    // Columns in the order they are taken, each padded to whole strips.
    let stride = rows.next_multiple_of(STRIP);
    let mut targets = vec![0.0f32; cols * stride];
    for (target, &c) in targets.chunks_mut(stride).zip(order) {
        for (x, row) in target.iter_mut().zip(weights.chunks(cols)) {
            *x = row[c];
        }
    }
    let mut all = vec![0; cols * rows];
    let mut sums =
        Sums { moments: vec![(0.0, 0.0); cols], loss: 0.0, weighted: 0.0, classes: classes.clone() };
    let mut search = Search::<1>::new(plan.machine);
    let mut samples = vec![[0.0f32]; rows];
    let mut found = vec![[0i32]; rows];
    let pieces = plan.factor.blocks().flat_map(|b| b.clone().step_by(BLOCK).map(move |f| (b.clone(), f)));
    for (whole, first) in pieces {
        let width = BLOCK.min(whole.end - first);
        let (block, later) = targets[first * stride..whole.end * stride].split_at_mut(width * stride);
        for i in 0..width {
            let (done, rest) = block.split_at_mut(i * stride);
            let target = &mut rest[..stride];
            update(target, done, stride, |k| plan.factor.row(first + k)[first + i - whole.start]);
            let c = order[first + i];
            let inverse = 1.0 / plan.search[c];
            for ((x, &w), &factor) in samples.iter_mut().zip(&*target).zip(band.factors) {
                *x = [w * inverse / factor];
            }
            search.run(&samples, &plan.rates, |t, _| classes.class(t, c), &mut found);
            let normal = 1.0 / plan.factor.diagonal(first + i);
            let (mut loss, mut weighted, mut products, mut squares) = (0.0, 0.0, 0.0, 0.0);
            for (r, (&[level], &[x])) in found.iter().zip(&samples).enumerate() {
                all[c * rows + r] = level;
                // The place of the target takes its error.
                let e = (target[r] - weight(level, plan.decoded[c], band.factors[r])) * normal;
                target[r] = e;
                loss += f64::from(e) * f64::from(e);
                let relative = f64::from(e / band.factors[r]);
                weighted += relative * relative;
                products += f64::from(x) * f64::from(level);
                squares += f64::from(level) * f64::from(level);
            }
            sums.loss += loss;
            sums.weighted += weighted;
            sums.moments[c] = (products, squares);
        }
        for (j, target) in later.chunks_mut(stride).enumerate() {
            let at = first + width + j - whole.start;
            update(target, block, stride, |k| plan.factor.row(first + k)[at]);
        }
    }
    (all, sums)
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
