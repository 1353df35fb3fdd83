//! From calibration to the plan of a tensor.

use super::feedback::{FeedbackOptions, Plan};
use super::{MAX_TAU, MIN_TAU, Trellis};
use crate::allocate::{OutputCosts, RateControl, RateCurve, RatePoint};
use crate::calibrate::{Calibration, ColumnOrder, InputFactor};
use crate::number::{exp2, log2};
use crate::{MatrixInfo, Quantizer, Result, RowSample};
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
    let map = Map::new(codec, matrix, sample, calibration)?;
    if codec.tau > 0.0 {
        return map.plan(codec.tau);
    }
    Ok(map.plan_for(codec.bpw)?.1)
}

impl RateControl for Trellis {
    fn bpw(&self) -> Option<f64> {
        (self.tau == 0.0).then_some(self.bpw)
    }

    fn curve(
        &self,
        matrix: &MatrixInfo,
        sample: &RowSample,
        calibration: &Calibration,
        bpw: f64,
    ) -> Result<RateCurve> {
        let map = Map::new(self, matrix, sample, calibration)?;
        let (middle, plan) = map.plan_for(bpw)?;
        let point = |octaves: f64, plan: &Plan| {
            let expected = plan.expected();
            let loss = expected.weighted_loss / (map.steps.unit * map.steps.unit);
            RatePoint { octaves, bytes: expected.bytes, loss }
        };
        let mut points = vec![point(middle, &plan)];
        for offset in [-1.6, -0.8, 0.8, 1.6] {
            let octaves = middle + offset;
            points.push(point(octaves, &map.plan(exp2(octaves))?));
        }
        Ok(RateCurve::new(matrix.weights(), points))
    }

    fn at(&self, tau: f64) -> Arc<dyn Quantizer> {
        Arc::new(Trellis { tau: tau.clamp(MIN_TAU, MAX_TAU), ..*self })
    }
}

/// Steps of the rows of a map: what each bears over what the middle one bears.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    /// In units of the codec's tau.
    unit: f64,
    rows: Option<Vec<f64>>,
}

impl Steps {
    pub(super) fn new(
        matrix: &MatrixInfo,
        sample: &RowSample,
        calibration: &Calibration,
        factor: &InputFactor,
    ) -> Steps {
        let costs = OutputCosts::new(matrix.rows, sample, calibration, factor);
        let size = costs.unit().sqrt();
        let Some(rows) = costs.rows() else { return Steps { unit: size, rows: None } };
        let logs: f64 = rows.iter().map(|&a| log2(a.max(1e-300))).sum();
        let mean = logs / rows.len().max(1) as f64;
        let step = |&a: &f64| exp2(-0.5 * (log2(a.max(1e-300)) - mean));
        Steps { unit: size * exp2(-0.5 * mean), rows: Some(rows.iter().map(step).collect()) }
    }
}

/// A map whose plan depends on tau alone.
struct Map<'a> {
    codec: &'a Trellis,
    matrix: &'a MatrixInfo,
    sample: &'a RowSample,
    factor: Arc<InputFactor>,
    steps: Steps,
}

impl<'a> Map<'a> {
    fn new(
        codec: &'a Trellis,
        matrix: &'a MatrixInfo,
        sample: &'a RowSample,
        calibration: &Calibration,
    ) -> Result<Self> {
        let factor = InputFactor::shared(&*calibration.inputs, DAMPING, ColumnOrder::Falling)?;
        let steps = Steps::new(matrix, sample, calibration, &factor);
        Ok(Map { codec, matrix, sample, factor, steps })
    }

    fn plan(&self, tau: f64) -> Result<Plan> {
        let options = FeedbackOptions {
            tau: tau * self.steps.unit,
            row_steps: self.steps.rows.clone(),
            ..FeedbackOptions::default()
        };
        Plan::new(self.codec, self.matrix, self.sample, Arc::clone(&self.factor), &options)
    }

    /// The plan that is expected to take so many bits per weight, and the logarithm of its tau.
    fn plan_for(&self, bpw: f64) -> Result<(f64, Plan)> {
        let weights = (self.matrix.weights() as f64).max(1.0);
        let mut octaves = log2(super::step::tau(bpw, self.codec.states));
        let mut plan = self.plan(exp2(octaves))?;
        for _ in 0..6 {
            let excess = 8.0 * plan.expected().bytes / weights - bpw;
            if excess.abs() < 0.002 * bpw {
                break;
            }
            // A halved step takes about a bit more, at low rates less.
            octaves = (octaves + excess / bpw.clamp(0.4, 1.0)).clamp(-19.0, 19.0);
            plan = self.plan(exp2(octaves))?;
        }
        Ok((octaves, plan))
    }
}
