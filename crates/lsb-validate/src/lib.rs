//! Layers and logits to the numbers that judge them.
//!
//! [`Compare`] walks an original and a package side by side in a memory budget and shows every pair of
//! weights to any number of [`Validator`]s; [`QualityValidator`] is the default one. Validators measure;
//! [`QualityTargets`] compares their measurements with limits and gives the [`Verdict`]; [`feasibility`] says
//! before any work which targets cannot hold together. Nothing here prints or knows a terminal.

#![forbid(unsafe_code)]

pub mod activation;
pub mod benchmark;
mod compare;
mod diff;
pub mod evaluate;
pub mod feasibility;
pub mod logits;
mod metric;
pub mod protocol;
mod quality;
mod search;
mod targets;
pub mod text;
mod validator;
mod verdict;

pub use benchmark::{BenchmarkError, BenchmarkReport, BenchmarkRow, CompressionBenchmark, Metric};
pub use compare::{Compare, Comparison, Outcome, Progress, TensorComparison, TensorSide};
pub use diff::{DiffState, DiffSummary, TensorDiff, diff, summarize};
pub use evaluate::{EvaluateOptions, Evaluation, evaluate};
pub use metric::{WeightError, size_measurements};
pub use quality::{LayerFigures, QualityValidator, TensorFigures, WeightReport};
pub use search::{SearchReport, SearchStep, smallest_rate};
pub use targets::{Bound, Limit, QualityTargets};
pub use validator::{Domain, Measurement, Observation, Validator, WeightObservation};
pub use verdict::{Check, Verdict};
