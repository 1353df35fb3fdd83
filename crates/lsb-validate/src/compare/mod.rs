//! Original and package side by side: both are walked tensor by tensor in runs of whole tiles, inside one
//! memory budget, in parallel, and every run is shown to every validator in order.
//!
//! Runs follow the partition of the decoded side, sums are merged in the order of the runs, and validators
//! are called from one thread: no figure depends on memory, threads or CPU.

mod report;
mod run;
mod units;

pub use report::{Comparison, Outcome, TensorComparison, TensorSide};

use crate::validator::{Domain, Observation, Validator, WeightObservation};
use lsb_quant::Distortion;
use lsb_stream::{Budget, Reservation, Result, TensorFacts, TensorWeights, WeightSource};
use rayon::prelude::*;
use run::{RunResult, Slot};
use std::collections::BTreeMap;
use std::fmt;
use units::Units;

/// A comparison of two sources, to be run with [`Compare::run`].
///
/// ```
/// use lsb_stream::{Budget, MemoryWeights};
/// use lsb_validate::{Compare, QualityValidator};
///
/// let original = MemoryWeights::new().with_f32("w", &[4], &[1.0, 2.0, 3.0, 4.0])?;
/// let decoded = MemoryWeights::new().with_f32("w", &[4], &[0.5, 2.0, 3.0, 4.5])?;
/// let mut quality = QualityValidator::new();
/// let comparison =
///     Compare::new(&original, &decoded, &Budget::new(1 << 20)).validator(&mut quality).run()?;
/// assert_eq!(comparison.tensors.len(), 1);
/// assert_eq!(quality.report().model.max_abs_error, 0.5);
/// # Ok::<(), lsb_stream::Error>(())
/// ```
pub struct Compare<'a> {
    original: &'a dyn WeightSource,
    decoded: &'a dyn WeightSource,
    budget: &'a Budget,
    validators: Vec<&'a mut dyn Validator>,
    progress: Option<Listener<'a>>,
}

type Listener<'a> = Box<dyn FnMut(Progress<'_>) + 'a>;

/// How far a comparison is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The tensor that is being compared.
    pub tensor: &'a str,
    /// Elements compared so far.
    pub done: u64,
    /// Elements to compare in all.
    pub total: u64,
}

impl fmt::Debug for Compare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compare")
            .field("original", &self.original)
            .field("decoded", &self.decoded)
            .finish_non_exhaustive()
    }
}

/// One tensor opened on both sides; 0 is the original.
struct Pair<'a> {
    facts: [&'a TensorFacts; 2],
    sides: [Box<dyn TensorWeights>; 2],
    /// Both sides give the bytes of the original, of the same type.
    by_bits: bool,
    /// Elements are real numbers on both sides.
    is_float: bool,
}

/// Sums of the runs of a tensor.
#[derive(Default)]
struct Sums {
    distortion: Distortion,
    first_difference: Option<u64>,
    nonfinite: u64,
    nonfinite_lost: u64,
}

impl<'a> Compare<'a> {
    /// Compares `decoded` with `original` in `budget`.
    pub fn new(original: &'a dyn WeightSource, decoded: &'a dyn WeightSource, budget: &'a Budget) -> Self {
        Compare { original, decoded, budget, validators: Vec::new(), progress: None }
    }

    /// Shows every run to `validator` too. One that needs another domain than weights is never called.
    #[must_use]
    pub fn validator(mut self, validator: &'a mut dyn Validator) -> Self {
        self.validators.push(validator);
        self
    }

    /// Calls `progress` as the comparison advances.
    #[must_use]
    pub fn on_progress(mut self, progress: impl FnMut(Progress<'_>) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Compares everything, on the threads of the current rayon pool. Missing tensors and other shapes are
    /// part of the answer.
    ///
    /// # Errors
    /// If a side cannot be read, what it stores is damaged, or the budget does not hold one run of each side.
    pub fn run(mut self) -> Result<Comparison> {
        self.validators.retain(|v| v.needs() == Domain::Weights);
        let (original, decoded) = (self.original, self.decoded);
        let (here, there) = (by_name(original), by_name(decoded));
        let total = original.tensors().iter().map(TensorFacts::weights).sum();
        let (mut out, mut done, mut slots) = (Comparison::default(), 0, Vec::new());
        for (index, facts) in original.tensors().iter().enumerate() {
            let other = there.get(facts.name.as_str()).copied();
            let outcome = match other {
                None => Outcome::OnlyInOriginal,
                Some(other) => self.tensor((index, other), (done, total), &mut slots)?,
            };
            done += facts.weights();
            let other = other.and_then(|i| decoded.tensors().get(i));
            out.tensors.push(entry(Some(facts), other, outcome));
        }
        let only = decoded.tensors().iter().filter(|t| !here.contains_key(t.name.as_str()));
        out.tensors.extend(only.map(|t| entry(None, Some(t), Outcome::OnlyInDecoded)));
        Ok(out)
    }

    fn tensor(
        &mut self,
        (original, decoded): (usize, usize),
        (done, total): (u64, u64),
        slots: &mut Vec<Slot>,
    ) -> Result<Outcome> {
        let pair = match Pair::open((self.original, original), (self.decoded, decoded))? {
            Ok(pair) => pair,
            Err(explanation) => return Ok(Outcome::Mismatch { explanation }),
        };
        let units = Units::new(pair.tiling());
        let mut sums = Sums::default();
        let (batch, _reservation) = self.reserve(&pair, &units, slots)?;
        slots.resize_with(slots.len().max(batch), Slot::default);
        let mut next = 0;
        while next < units.len() {
            let end = units.len().min(next + batch as u64);
            let runs: Vec<_> = (next..end).map(|i| units.run(i)).collect();
            let results: Vec<Result<RunResult>> =
                slots.par_iter_mut().zip(runs).map(|(slot, run)| slot.compare(&pair, run)).collect();
            // In order, so that the first error in the tensor wins and sums are the same on any threads.
            for (result, slot) in results.into_iter().zip(slots.iter()) {
                let result = result?;
                sums.add(&result);
                if pair.is_float {
                    self.show(pair.facts[1], &result, slot);
                }
            }
            next = end;
            if let Some(tell) = &mut self.progress {
                let done = done + units.run(next - 1).end;
                tell(Progress { tensor: &pair.facts[0].name, done, total });
            }
        }
        Ok(sums.outcome(&pair))
    }

    /// As many runs at once as keep the threads busy and fit into what is left of the budget.
    fn reserve(&self, pair: &Pair<'_>, units: &Units, slots: &mut Vec<Slot>) -> Result<(usize, Reservation)> {
        let bytes = Slot::bytes(pair, units.longest());
        let wanted = (2 * rayon::current_num_threads() as u64).min(units.len()).max(1);
        let left = self.budget.limit().saturating_sub(self.budget.used());
        let batch = (left / bytes.max(1)).clamp(1, wanted);
        // Buffers of earlier, larger tensors must not stay beside those counted now.
        if slots.iter().map(Slot::held_bytes).sum::<u64>() > bytes * batch {
            slots.clear();
        }
        let reservation = self.budget.reserve(bytes * batch, "runs of weights to compare")?;
        Ok((batch as usize, reservation))
    }

    fn show(&mut self, facts: &TensorFacts, result: &RunResult, slot: &Slot) {
        let run = WeightObservation::new(
            facts,
            result.run.start,
            &slot.original,
            &slot.decoded,
            &result.distortion,
        );
        for validator in &mut self.validators {
            validator.observe(&Observation::Weights(run));
        }
    }
}

impl<'a> Pair<'a> {
    /// Opens both sides, or says why they cannot be compared.
    fn open(
        (original, i): (&'a dyn WeightSource, usize),
        (decoded, j): (&'a dyn WeightSource, usize),
    ) -> Result<Result<Self, String>> {
        let (Some(a), Some(b)) = (original.tensors().get(i), decoded.tensors().get(j)) else {
            return Ok(Err("one side does not have the tensor it lists".to_owned()));
        };
        if a.shape != b.shape {
            return Ok(Err(format!("has shape {:?} here and {:?} there", a.shape, b.shape)));
        }
        let is_float = a.dtype.is_float() && b.dtype.is_float();
        if a.dtype != b.dtype && !is_float {
            return Ok(Err(format!("has elements of type {} here and {} there", a.dtype, b.dtype)));
        }
        let sides = [original.open(i)?, decoded.open(j)?];
        let by_bits = a.dtype == b.dtype && sides.iter().all(|s| s.is_exact());
        if !by_bits && !is_float {
            return Ok(Err(format!("of type {} is not stored exactly", b.dtype)));
        }
        Ok(Ok(Pair { facts: [a, b], sides, by_bits, is_float }))
    }

    /// The partition of the side that is decoded; reading plain bytes is cheap in any cut.
    fn tiling(&self) -> &lsb_format::Tiling {
        let side = usize::from(self.facts[1].codec.is_some() || self.facts[0].codec.is_none());
        self.sides[side].tiling()
    }
}

impl Sums {
    fn add(&mut self, result: &RunResult) {
        self.distortion.merge(&result.distortion);
        self.first_difference = self.first_difference.or(result.first_difference);
        self.nonfinite += result.nonfinite;
        self.nonfinite_lost += result.nonfinite_lost;
    }

    fn outcome(self, pair: &Pair<'_>) -> Outcome {
        let distortion = pair.is_float.then_some(self.distortion);
        if pair.by_bits && self.first_difference.is_none() {
            return Outcome::Identical { distortion };
        }
        Outcome::Differs {
            distortion,
            first_difference: self.first_difference,
            nonfinite: self.nonfinite,
            nonfinite_lost: self.nonfinite_lost,
        }
    }
}

fn by_name(source: &dyn WeightSource) -> BTreeMap<&str, usize> {
    source.tensors().iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect()
}

fn entry(
    original: Option<&TensorFacts>,
    decoded: Option<&TensorFacts>,
    outcome: Outcome,
) -> TensorComparison {
    let both = || decoded.into_iter().chain(original);
    TensorComparison {
        name: both().next().map(|t| t.name.clone()).unwrap_or_default(),
        layer: both().map(|t| &t.layer).find(|l| !l.is_empty()).cloned().unwrap_or_default(),
        original: original.map(TensorSide::from),
        decoded: decoded.map(TensorSide::from),
        outcome,
    }
}

#[cfg(test)]
mod tests;
