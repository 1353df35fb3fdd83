//! Two models or packages side by side, as equals: what only one has, what is the same bit for bit, and how
//! far apart the rest is.

use crate::compare::{Compare, Outcome, TensorComparison, TensorSide};
use crate::metric::WeightError;
use lsb_stream::{Budget, Result, WeightSource};
use serde::Serialize;

/// One tensor of `a` and `b`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorDiff {
    /// Name.
    pub name: String,
    /// How the sides relate.
    pub state: DiffState,
    /// Type, shape, codec and bytes in `a`.
    pub a: Option<TensorSide>,
    /// Type, shape, codec and bytes in `b`.
    pub b: Option<TensorSide>,
    /// Error of `b` against `a`, where they differ and are real numbers of one shape.
    pub error: Option<WeightError>,
    /// Why the sides cannot be compared; where the first different element is, if bits were compared.
    pub explanation: Option<String>,
}

/// How the sides of a tensor relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffState {
    /// `b` lacks it.
    OnlyInA,
    /// `a` lacks it.
    OnlyInB,
    /// Both decode to the same bits or, where a side is lossy, to the same values of the same type.
    Identical,
    /// Values differ, or were compared as f32 because a side is lossy or of another type.
    Differs,
    /// Shapes or types do not let them be compared.
    Mismatch,
}

/// How many tensors are in each state, and the bytes of each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiffSummary {
    /// Tensors only in `a`.
    pub only_in_a: usize,
    /// Tensors only in `b`.
    pub only_in_b: usize,
    /// Tensors with the same bits.
    pub identical: usize,
    /// Tensors that differ, mismatches included.
    pub different: usize,
    /// Bytes of the tensors of `a`.
    pub bytes_a: u64,
    /// Bytes of the tensors of `b`.
    pub bytes_b: u64,
}

/// Compares `a` and `b` tensor by tensor, in the order of `a`; what only `b` has comes last.
///
/// # Errors
/// As [`Compare::run`].
pub fn diff(a: &dyn WeightSource, b: &dyn WeightSource, budget: &Budget) -> Result<Vec<TensorDiff>> {
    Ok(Compare::new(a, b, budget).run()?.tensors.into_iter().map(TensorDiff::from).collect())
}

/// Counts states and bytes.
pub fn summarize(tensors: &[TensorDiff]) -> DiffSummary {
    let mut out = DiffSummary::default();
    for t in tensors {
        *match t.state {
            DiffState::OnlyInA => &mut out.only_in_a,
            DiffState::OnlyInB => &mut out.only_in_b,
            DiffState::Identical => &mut out.identical,
            DiffState::Differs | DiffState::Mismatch => &mut out.different,
        } += 1;
        let bytes = |side: &Option<TensorSide>| side.as_ref().map_or(0, |s| s.bytes);
        out.bytes_a += bytes(&t.a);
        out.bytes_b += bytes(&t.b);
    }
    out
}

impl From<TensorComparison> for TensorDiff {
    fn from(t: TensorComparison) -> Self {
        let error = t.error();
        let (state, error, explanation) = match t.outcome {
            Outcome::OnlyInOriginal => (DiffState::OnlyInA, None, None),
            Outcome::OnlyInDecoded => (DiffState::OnlyInB, None, None),
            Outcome::Identical { .. } => (DiffState::Identical, None, None),
            Outcome::Mismatch { explanation } => (DiffState::Mismatch, None, Some(explanation)),
            // Sides of one type that are compared as f32 because one is lossy, and agree everywhere.
            Outcome::Differs { first_difference: None, nonfinite_lost: 0, .. }
                if error.is_some_and(|e| e.exact) && same_type(&t.original, &t.decoded) =>
            {
                (DiffState::Identical, None, None)
            }
            Outcome::Differs { first_difference, .. } => {
                let first = first_difference.map(|i| format!("first different element: {i}"));
                (DiffState::Differs, error, first)
            }
        };
        TensorDiff { name: t.name, state, a: t.original, b: t.decoded, error, explanation }
    }
}

fn same_type(a: &Option<TensorSide>, b: &Option<TensorSide>) -> bool {
    a.as_ref().zip(b.as_ref()).is_some_and(|(a, b)| a.dtype == b.dtype)
}
