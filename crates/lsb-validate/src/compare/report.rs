//! What a comparison found, as plain data.

use crate::metric::WeightError;
use crate::validator::Measurement;
use lsb_format::DType;
use lsb_quant::{Distortion, Parameters};
use lsb_stream::TensorFacts;
use serde::Serialize;

/// Two sources compared tensor by tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Tensors of the original in its order, then those that only the other side has.
    pub tensors: Vec<TensorComparison>,
}

/// One tensor on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorComparison {
    /// Name.
    pub name: String,
    /// Layer, where a side says it.
    pub layer: String,
    /// The original's side; `None` where it lacks the tensor.
    pub original: Option<TensorSide>,
    /// The other side; `None` where it lacks the tensor.
    pub decoded: Option<TensorSide>,
    /// What comparing found.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One side of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorSide {
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<u64>,
    /// Bytes stored.
    pub bytes: u64,
    /// Codec; `None` in a source model.
    pub codec: Option<String>,
    /// Parameters of the codec.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
    /// The tensor it is stored with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
}

impl From<&TensorFacts> for TensorSide {
    fn from(facts: &TensorFacts) -> Self {
        let (codec, parameters) =
            facts.codec.clone().map_or((None, Parameters::new()), |(c, p)| (Some(c), p));
        TensorSide {
            dtype: facts.dtype,
            shape: facts.shape.clone(),
            bytes: facts.stored_bytes,
            codec,
            parameters,
            same_as: facts.same_as.clone(),
        }
    }
}

/// What comparing a tensor found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// The other side lacks it.
    OnlyInOriginal,
    /// The original lacks it.
    OnlyInDecoded,
    /// Every bit is the same.
    Identical {
        /// Sums of the original with itself, where its elements are real numbers.
        #[serde(skip)]
        distortion: Option<Distortion>,
    },
    /// Values differ, or were compared as f32 because a side is lossy or of another type.
    Differs {
        /// Error sums over the weights that are finite on both sides, where elements are real numbers.
        #[serde(rename = "error", serialize_with = "as_error")]
        distortion: Option<Distortion>,
        /// First element whose bits differ, where bits could be compared.
        #[serde(skip_serializing_if = "Option::is_none")]
        first_difference: Option<u64>,
        /// Weights that are NaN or infinite on a side.
        nonfinite: u64,
        /// Of those, how many are not the same on the other side.
        nonfinite_lost: u64,
    },
    /// The two cannot be compared.
    Mismatch {
        /// Why.
        explanation: String,
    },
}

impl TensorComparison {
    /// Error sums, where both sides are real numbers of one shape.
    pub fn distortion(&self) -> Option<&Distortion> {
        match &self.outcome {
            Outcome::Identical { distortion } | Outcome::Differs { distortion, .. } => distortion.as_ref(),
            _ => None,
        }
    }

    /// Error figures, where both sides are real numbers of one shape.
    pub fn error(&self) -> Option<WeightError> {
        self.distortion().map(WeightError::from)
    }

    /// Why this is not what compression may do, `None` where it is: a lossy codec may move values, and
    /// nothing else may change.
    pub fn defect(&self) -> Option<String> {
        match &self.outcome {
            Outcome::OnlyInOriginal => Some("is missing".to_owned()),
            Outcome::OnlyInDecoded => Some("is not in the original".to_owned()),
            Outcome::Identical { .. } => None,
            Outcome::Mismatch { explanation } => Some(explanation.clone()),
            Outcome::Differs { first_difference: Some(element), .. } if self.is_coded() => {
                Some(format!("differs from the original at element {element}, though its codec is exact"))
            }
            Outcome::Differs { nonfinite_lost: lost @ 1.., .. } => {
                Some(format!("has {lost} NaN or infinite weights that the other side does not have"))
            }
            Outcome::Differs { .. } => None,
        }
    }

    /// True where the decoded side comes from a package, not from a source model.
    fn is_coded(&self) -> bool {
        self.decoded.as_ref().is_some_and(|side| side.codec.is_some())
    }
}

impl Comparison {
    /// Tensors that are not what compression may make of the original, with the reason.
    pub fn defects(&self) -> impl Iterator<Item = (&TensorComparison, String)> {
        self.tensors.iter().filter_map(|t| Some((t, t.defect()?)))
    }

    /// `defective_tensors`: how many tensors have a defect, with the first one named.
    pub fn measurements(&self) -> Vec<Measurement> {
        let detail = match self.defects().next() {
            None => "missing, added, of another shape, or changed though stored exactly".to_owned(),
            Some((t, why)) => format!("tensor \"{}\" {why}", lsb_format::escape(&t.name)),
        };
        vec![Measurement::new("defective_tensors", self.defects().count() as f64, "", detail)]
    }
}

fn as_error<S: serde::Serializer>(sums: &Option<Distortion>, serializer: S) -> Result<S::Ok, S::Error> {
    sums.as_ref().map(WeightError::from).serialize(serializer)
}
