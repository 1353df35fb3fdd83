//! One band of rows, column after column.

use super::super::classes::Classes;
use super::super::decode::weight;
use super::super::search::{Scratch, Search};
use super::Plan;
use crate::codec::feedback::{columns, forward, stride};
use std::borrow::Cow;

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
pub(super) fn quantize(
    plan: &Plan,
    classes: &Classes,
    band: &Band<'_>,
    weights: Cow<'_, [f32]>,
) -> (Vec<i32>, Sums) {
    let (rows, cols) = (band.factors.len(), plan.matrix.cols as usize);
    let order = plan.factor.order();
    let stride = stride(rows);
    let mut targets = columns(&plan.factor, &weights);
    drop(weights);
    let mut all = vec![0; cols * rows];
    let mut sums =
        Sums { moments: vec![(0.0, 0.0); cols], loss: 0.0, weighted: 0.0, classes: classes.clone() };
    let mut scratch = Scratch::default();
    let mut search = Search::new(plan.machine, &mut scratch);
    let (mut samples, mut of_rows) = (vec![0.0f32; rows], vec![0u8; rows]);
    forward(&plan.factor, &mut targets, stride, |place, target| {
        let c = order[place];
        let inverse = 1.0 / plan.search[c];
        for ((x, &w), &factor) in samples.iter_mut().zip(&*target).zip(band.factors) {
            *x = w * inverse / factor;
        }
        classes.of_column(c, &mut of_rows);
        let levels = &mut all[c * rows..][..rows];
        search.column(&samples, &of_rows, &plan.rates, levels);
        let normal = 1.0 / plan.factor.diagonal(place);
        // The place of the target takes its error.
        for ((target, &level), &factor) in target.iter_mut().zip(&*levels).zip(band.factors) {
            *target = (*target - weight(level, plan.decoded[c], factor)) * normal;
        }
        let (mut loss, mut weighted, mut products, mut squares) = (0.0, 0.0, 0.0, 0.0);
        let all_of_rows = target.iter().zip(&*levels).zip(&samples).zip(band.factors);
        for (((&e, &level), &x), &factor) in all_of_rows {
            loss += f64::from(e) * f64::from(e);
            let relative = f64::from(e / factor);
            weighted += relative * relative;
            products += f64::from(x) * f64::from(level);
            squares += f64::from(level) * f64::from(level);
        }
        sums.loss += loss;
        sums.weighted += weighted;
        sums.moments[c] = (products, squares);
    });
    (all, sums)
}
