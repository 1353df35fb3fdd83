//! From calibration to the plan of a tensor.

use super::Trellis;
use super::feedback::{FeedbackOptions, Plan};
use crate::calibrate::{Calibration, ColumnOrder, InputFactor};
use crate::{MatrixInfo, Result, RowSample};
use std::sync::Arc;

/// Share of the mean of squares that is added to those of all inputs.
pub(super) const DAMPING: f64 = 0.01;

/// The plan for a calibrated map.
///
/// # Errors
/// If its moments have no factor.
pub(super) fn plan(
    codec: &Trellis,
    matrix: &MatrixInfo,
    sample: &RowSample,
    calibration: &Calibration,
) -> Result<Plan> {
    let factor = InputFactor::new(&*calibration.inputs, DAMPING, ColumnOrder::Falling)?;
    let map = Map {
        codec,
        matrix,
        sample,
        steps: Steps::new(matrix, sample, calibration),
        factor: Arc::new(factor),
    };
    if codec.tau > 0.0 {
        return map.plan(codec.tau);
    }
    map.plan_for(codec.bpw * matrix.weights() as f64 / 8.0)
}

/// Steps of the rows of a map: what each bears over what the middle one bears.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    /// In units of the codec's tau.
    unit: f64,
    rows: Option<Vec<f64>>,
}

impl Steps {
    pub(super) fn new(matrix: &MatrixInfo, sample: &RowSample, calibration: &Calibration) -> Steps {
        let Some(outputs) = calibration.outputs.as_deref().filter(|o| o.len() as u64 == matrix.rows) else {
            return Steps { unit: output_power(sample, calibration.inputs.diagonal()).sqrt(), rows: None };
        };
        let logs: f64 = outputs.iter().map(|&a| super::number::log2(a.max(1e-300))).sum();
        let mean = logs / outputs.len().max(1) as f64;
        let step = |&a: &f64| super::number::exp2(-0.5 * (super::number::log2(a.max(1e-300)) - mean));
        Steps { unit: super::number::exp2(-0.5 * mean), rows: Some(outputs.iter().map(step).collect()) }
    }
}

/// Mean square of the outputs, were inputs independent.
fn output_power(sample: &RowSample, squares: &[f32]) -> f64 {
    let rows = sample.rows.len().max(1) as f64;
    let terms = sample.weights.chunks(squares.len().max(1)).flatten().zip(squares.iter().cycle());
    let sum: f64 = terms.map(|(&w, &s)| f64::from(w) * f64::from(w) * f64::from(s)).sum();
    if sum > 0.0 { sum / rows } else { 1.0 }
}

/// A map whose plan depends on tau alone.
struct Map<'a> {
    codec: &'a Trellis,
    matrix: &'a MatrixInfo,
    sample: &'a RowSample,
    factor: Arc<InputFactor>,
    steps: Steps,
}

impl Map<'_> {
    fn plan(&self, tau: f64) -> Result<Plan> {
        let options = FeedbackOptions {
            tau: tau * self.steps.unit,
            row_steps: self.steps.rows.clone(),
            ..FeedbackOptions::default()
        };
        Plan::new(self.codec, self.matrix, self.sample, Arc::clone(&self.factor), &options)
    }

    /// The plan that is expected to take so many bytes.
    fn plan_for(&self, bytes: f64) -> Result<Plan> {
        // A halved step takes about a bit more.
        let weights = (self.matrix.weights() as f64).max(1.0);
        let mut octaves = super::number::log2(super::step::tau(self.codec.bpw, self.codec.states));
        let mut plan = self.plan(super::number::exp2(octaves))?;
        for _ in 0..6 {
            let excess = 8.0 * (plan.expected().bytes - bytes) / weights;
            if excess.abs() < 0.002 * self.codec.bpw {
                break;
            }
            octaves = (octaves + excess).clamp(-19.0, 19.0);
            plan = self.plan(super::number::exp2(octaves))?;
        }
        Ok(plan)
    }
}
