//! What is known of a linear map's inputs, in the form that error feedback needs.

mod cholesky;
mod factor;
#[cfg(test)]
mod tests;

pub use factor::{FactorReport, UpperFactor};
