//! The [`Validator`] trait and its vocabulary: what a validator is shown and what it answers.
//!
//! A validator measures. It never prints and never decides pass or fail: limits are the user's, and
//! [`crate::QualityTargets`] compares them with what was measured.

use lsb_quant::Distortion;
use lsb_stream::TensorFacts;
use serde::Serialize;

/// Measures what compression did to a model.
pub trait Validator {
    /// Short stable name, such as `weights`.
    fn name(&self) -> &str;

    /// What it must be shown.
    fn needs(&self) -> Domain;

    /// Takes in the next observation of the domain it needs.
    fn observe(&mut self, observation: &Observation<'_>);

    /// The measurements, once everything was shown. Names are stable: users write limits for them.
    fn finish(&mut self) -> Vec<Measurement>;
}

/// Where a validator measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Domain {
    /// Original and decoded weights side by side, as [`crate::Compare`] shows them.
    Weights,
}

/// What a validator is shown.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A run of weights.
    Weights(WeightObservation<'a>),
}

/// A run of consecutive weights of one tensor of real numbers. Runs arrive in order, tensor by tensor; how
/// a tensor is cut into runs depends on the sources alone, never on threads or memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct WeightObservation<'a> {
    /// The tensor as the decoded side describes it: name, layer, codec, stored bytes. Where its `same_as`
    /// is set, the weights are shown again under a second name and do not count towards the model.
    pub tensor: &'a TensorFacts,
    /// Index in the tensor, row-major, of the first weight of the run.
    pub first: u64,
    /// Original weights.
    pub original: &'a [f32],
    /// Decoded weights, as many. NaN and infinity may appear on both sides where the user allowed them.
    pub decoded: &'a [f32],
    /// Error sums of the run, over the pairs that are finite on both sides.
    pub distortion: &'a Distortion,
}

impl<'a> WeightObservation<'a> {
    /// A run of weights of `tensor` that starts at element `first`, with its `distortion`.
    ///
    /// # Panics
    /// If the two sides differ in length.
    pub fn new(
        tensor: &'a TensorFacts,
        first: u64,
        original: &'a [f32],
        decoded: &'a [f32],
        distortion: &'a Distortion,
    ) -> Self {
        assert_eq!(original.len(), decoded.len(), "two sides of one run");
        WeightObservation { tensor, first, original, decoded, distortion }
    }
}

/// One number a validator found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// Stable name, such as `weight_snr_db`.
    pub name: String,
    /// The value; infinite where that is the answer (written as `null`), never NaN.
    #[serde(serialize_with = "crate::metric::finite_or_null")]
    pub value: f64,
    /// Unit, such as `dB` or `%`; empty for plain numbers.
    pub unit: String,
    /// What the number covers, in one short sentence without a full stop.
    pub detail: String,
}

impl Measurement {
    /// A measurement. Who measures keeps NaN out; debug builds check.
    pub fn new(name: &str, value: f64, unit: &str, detail: impl Into<String>) -> Self {
        debug_assert!(!value.is_nan(), "{name} is NaN");
        Measurement { name: name.to_owned(), value, unit: unit.to_owned(), detail: detail.into() }
    }
}
