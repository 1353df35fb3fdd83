//! The calibrated side of a run: what each tensor's inputs are, and the step that meets the size asked for.

use super::prepare::{Job, Prepared};
use crate::calibration::Calibrator;
use crate::report::TensorReport;
use crate::{Error, Result, TensorWeights};
use lsb_format::package::TileTable;
use lsb_quant::allocate::{FixedCost, RateCurve, fixed_cost, price, solve};
use lsb_quant::calibrate::Calibration;
use lsb_quant::{Quantizer, RowSample, Wanted, to_f32};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Weights of the rows on which the curves of a tensor are measured.
const SAMPLE: u64 = 1 << 19;

/// A tensor whose way of storage is not settled.
struct Open {
    curve: RateCurve,
    /// The codecs of the curve's other costs.
    others: Vec<Arc<dyn Quantizer>>,
}

/// How a tensor is stored.
pub(super) struct Selected {
    pub(super) quantizer: Arc<dyn Quantizer>,
    /// Its step, where it follows one.
    pub(super) tau: Option<f64>,
    /// Why, where that is not obvious.
    pub(super) note: Option<String>,
}

/// A run with calibration.
pub(super) struct Calibrated {
    calibrator: Box<dyn Calibrator>,
    /// Numbers of the jobs whose rate is controlled, with what they cost.
    open: BTreeMap<usize, Open>,
    /// Bytes left for controlled tensors that are not finished.
    left: f64,
    /// Bytes that finished tensors took, and that their curves had said.
    taken: (f64, f64),
}

impl Calibrated {
    /// Surveys the original, where a size has to be met.
    pub(super) fn start(mut calibrator: Box<dyn Calibrator>, prepared: &Prepared) -> Result<Self> {
        let mut controlled: HashMap<&str, (usize, f64)> = HashMap::new();
        let mut left = 0.0;
        for (i, job) in prepared.jobs.iter().enumerate().filter(|(_, j)| j.facts.same_as.is_none()) {
            if let Some(bpw) = job.assignment.quantizer.rate_control().and_then(|r| r.bpw()) {
                controlled.insert(&job.facts.name, (i, bpw));
                left += bpw * job.facts.matrix().weights() as f64 / 8.0;
            }
        }
        let mut open = BTreeMap::new();
        if !controlled.is_empty() {
            calibrator.survey(&mut |tensor, calibration| {
                let Some(&(i, bpw)) = controlled.get(tensor) else { return Ok(()) };
                let job = &prepared.jobs[i];
                let Some(control) = job.assignment.quantizer.rate_control() else { return Ok(()) };
                let sample = sample(prepared, job)?;
                let settle = || -> lsb_quant::Result<Open> {
                    let matrix = job.facts.matrix();
                    let curve = control.curve(&matrix, &sample, calibration, bpw)?;
                    let (mut others, mut costs): (Vec<_>, Vec<FixedCost>) = Default::default();
                    for other in &job.assignment.others {
                        if let Some(cost) = fixed_cost(&**other, &matrix, &sample, calibration)? {
                            others.push(Arc::clone(other));
                            costs.push(cost);
                        }
                    }
                    Ok(Open { curve: curve.with_others(costs), others })
                };
                open.insert(i, settle().map_err(Error::codec(&job.facts.name))?);
                Ok(())
            })?;
        }
        // What is not calibrated meets its own rate.
        for (i, bpw) in controlled.into_values().filter(|(i, _)| !open.contains_key(i)) {
            left -= bpw * prepared.jobs[i].facts.matrix().weights() as f64 / 8.0;
        }
        Ok(Calibrated { calibrator, open, left, taken: (0.0, 0.0) })
    }

    /// How job `i` is stored, so that the size is met; `None` where its rate is not controlled.
    pub(super) fn select(&self, i: usize, job: &Job) -> Option<Selected> {
        let this = self.open.get(&i)?;
        let control = job.assignment.quantizer.rate_control()?;
        let open: Vec<&RateCurve> = self.open.values().map(|o| &o.curve).collect();
        // Curves err all the same way: by as much as they did so far.
        let (taken, told) = self.taken;
        let bytes = if taken > 0.0 && told > 0.0 { self.left * told / taken } else { self.left };
        let octaves = solve(&open, bytes);
        let tau = octaves.exp2();
        if let Some((number, cost)) = this.curve.chosen(octaves, price(&open, octaves)) {
            let quantizer = Arc::clone(&this.others[number]);
            let note = format!(
                "cheaper than {} at tau {tau:.3e}: {:.0} bytes against {:.0}, loss {:.3e} against {:.3e}",
                job.assignment.quantizer.id(),
                cost.bytes,
                this.curve.bytes(octaves),
                cost.loss,
                this.curve.loss(octaves)
            );
            return Some(Selected { quantizer, tau: None, note: Some(note) });
        }
        Some(Selected { quantizer: control.at(tau), tau: Some(tau), note: None })
    }

    /// What is known of the job's inputs, where its codec wants it.
    pub(super) fn calibration(&mut self, job: &Job) -> Result<Option<Calibration>> {
        if job.assignment.quantizer.needs().calibration == Wanted::No {
            return Ok(None);
        }
        self.calibrator.calibration(&job.facts.name)
    }

    /// Job `i` is finished, and these are its weights and those of every tensor that is stored with it.
    pub(super) fn finished(
        &mut self,
        i: usize,
        prepared: &Prepared,
        report: &TensorReport,
        weights: &Arc<dyn TensorWeights>,
    ) {
        let tiling = &prepared.jobs[i].item.tiling;
        if let Some(Open { curve, .. }) = self.open.remove(&i) {
            let bytes = report.bytes as f64 - TileTable::overhead(tiling, 0) as f64;
            self.left -= bytes;
            if let Some(tau) = report.tau {
                self.taken.0 += bytes;
                self.taken.1 += curve.bytes(tau.log2());
            }
        }
        if report.exact {
            return;
        }
        for (k, job) in prepared.jobs.iter().enumerate() {
            if k == i || job.facts.same_as == Some(i) {
                self.calibrator.finished(&job.facts.name, Arc::clone(weights));
            }
        }
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.calibrator.notes()
    }
}

/// Evenly spaced rows of a tensor, read one by one.
fn sample(prepared: &Prepared, job: &Job) -> Result<RowSample> {
    let matrix = job.facts.matrix();
    let wanted = (SAMPLE / matrix.cols.max(1)).clamp(1, matrix.rows.max(1));
    let rows: Vec<u64> = (0..wanted).map(|i| (2 * i + 1) * matrix.rows / (2 * wanted)).collect();
    let bytes = matrix.cols * matrix.dtype.bits() / 8;
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let mut weights = Vec::with_capacity(rows.len() * matrix.cols as usize);
    for &row in &rows {
        prepared.read(job, row * bytes, &mut buffer)?;
        let values = to_f32(matrix.dtype, &buffer);
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            return Err(super::prepare::nonfinite(job, row * matrix.cols + at as u64, values[at]));
        }
        weights.extend_from_slice(&values);
    }
    Ok(RowSample { rows, weights })
}
