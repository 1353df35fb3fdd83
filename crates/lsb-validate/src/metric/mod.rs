//! What is measured, one file per kind of figure. A metric turns sums into numbers; it judges nothing.

mod size;
mod weight_error;

pub use size::size_measurements;
pub use weight_error::WeightError;

use serde::{Deserialize, Deserializer, Serializer};

/// Infinite figures have no JSON number; they are written as `null` beside a flag that says why.
pub(crate) fn finite_or_null<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.serialize_none() }
}

/// The way back, for figures that can be infinite upwards only.
pub(crate) fn infinite_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

#[cfg(test)]
mod tests;
