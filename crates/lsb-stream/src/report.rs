//! What a compression did, as plain data.

use lsb_quant::{Account, Distortion, Parameters};
use serde::{Deserialize, Serialize};

/// What became of one tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TensorReport {
    /// Name in the source.
    pub name: String,
    /// Layer it belongs to, such as `layer 3`, `before layers` or `after layers`.
    pub layer: String,
    /// Shape in the source.
    pub shape: Vec<u64>,
    /// Element type in the source.
    pub dtype: lsb_format::DType,
    /// Codec that was used.
    pub codec: String,
    /// Its parameters.
    pub parameters: Parameters,
    /// Elements.
    pub weights: u64,
    /// Bytes in the source.
    pub source_bytes: u64,
    /// Bytes in the package: tiles, side information and tile table.
    pub bytes: u64,
    /// True where the decoder restores the source bit for bit.
    pub exact: bool,
    /// Error sums, where quality was monitored and the tensor is numeric.
    pub distortion: Option<Distortion>,
    /// The tensor this one is identical to and stored with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// The step in units of what outputs bear, where one step for the whole model was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tau: Option<f64>,
    /// What a unit of squared error of an output costs, the geometric mean over outputs, where that was estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_cost: Option<f64>,
    /// What calibration came to, beside what was expected of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// What was done differently from the plan, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LayerReport {
    /// Such as `layer 3`.
    pub layer: String,
    /// Elements of the tensors stored for it.
    pub weights: u64,
    /// Bytes in the source.
    pub source_bytes: u64,
    /// Bytes in the package.
    pub bytes: u64,
    /// Error sums of its numeric tensors.
    pub distortion: Option<Distortion>,
}

/// The whole compression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CompressReport {
    /// How maps were calibrated; empty where they were not.
    #[serde(default)]
    pub calibration: Vec<String>,
    /// Directory of the package.
    pub package: std::path::PathBuf,
    /// Codec most weights got.
    pub codec: String,
    /// Its parameters.
    pub parameters: Parameters,
    /// Bytes of the source's weight files.
    pub source_bytes: u64,
    /// Bytes of every file a decoder needs: manifest and shards.
    pub package_bytes: u64,
    /// Elements stored in the package (identical tensors counted once).
    pub weights: u64,
    /// Wall-clock seconds of this run.
    pub seconds: f64,
    /// Peak resident set of the process, as the operating system counts it; 0 where it does not say.
    pub peak_rss_bytes: u64,
    /// Bytes of source that this run read from files.
    pub bytes_read: u64,
    /// Tensors taken over from an interrupted run.
    pub resumed_tensors: usize,
    /// True where the output was already there and complete.
    pub already_done: bool,
    /// Most bytes the memory budget had reserved at once, and its limit.
    pub budget_peak_bytes: u64,
    /// Limit of the memory budget.
    pub budget_bytes: u64,
    /// Every tensor, in processing order.
    pub tensors: Vec<TensorReport>,
    /// Every layer, in processing order.
    pub layers: Vec<LayerReport>,
    /// Warnings in the order they came up.
    pub warnings: Vec<String>,
}

impl CompressReport {
    /// Source bytes over package bytes.
    pub fn ratio(&self) -> f64 {
        self.source_bytes as f64 / self.package_bytes as f64
    }

    /// Bits of package per stored weight.
    pub fn bpw(&self) -> f64 {
        8.0 * self.package_bytes as f64 / self.weights as f64
    }

    /// Error sums of the whole model.
    pub fn distortion(&self) -> Option<Distortion> {
        let mut all = self.tensors.iter().filter_map(|t| t.distortion).peekable();
        all.peek()?;
        let mut sum = Distortion::default();
        all.for_each(|d| sum.merge(&d));
        Some(sum)
    }
}
