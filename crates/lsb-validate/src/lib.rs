//! Layers and logits to the numbers that judge them.
//!
//! [`compare`] walks an original and a package side by side in a memory budget and shows every pair of
//! weights to any number of [`Validator`]s; [`QualityValidator`] is the default one. Validators measure;
//! [`QualityTargets`] compares their measurements with limits and gives the [`Verdict`]; [`feasibility`] says
//! before any work which targets cannot hold together. Nothing here prints or knows a terminal.

mod metric;

pub use metric::WeightError;
