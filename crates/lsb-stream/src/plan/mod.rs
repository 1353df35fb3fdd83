//! Which codec each tensor gets, how large the package will be, and what memory it takes: decided from
//! headers alone, before a weight is read.

pub(crate) mod assign;
mod target;

use crate::Target;
use lsb_format::DType;
use lsb_quant::Parameters;
use serde::{Deserialize, Serialize};

/// What will be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Plan {
    /// Name of the model: its directory's or file's.
    pub model: String,
    /// Every tensor, in processing order.
    pub tensors: Vec<PlannedTensor>,
    /// Bytes of the source's weight files.
    pub source_bytes: u64,
    /// Elements that will be stored (tensors known to be identical counted once).
    pub weights: u64,
    /// Expected bytes of manifest and shards.
    pub predicted_bytes: u64,
    /// Peak memory of the process this will need, in bytes, at most the limit.
    pub predicted_ram_bytes: u64,
    /// Limit on the memory of the process in bytes.
    pub ram_limit_bytes: u64,
    /// Tensors too large to stay in memory between passes: they are read again in row tiles.
    pub streamed_tensors: usize,
    /// The size asked for.
    pub target: Option<Target>,
    /// Suspicious input that is not an error.
    pub warnings: Vec<String>,
}

/// One tensor of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedTensor {
    /// Name in the source.
    pub name: String,
    /// Layer it belongs to.
    pub layer: String,
    /// Element type in the source.
    pub dtype: DType,
    /// Shape in the source.
    pub shape: Vec<u64>,
    /// Codec.
    pub codec: String,
    /// All parameters of the codec.
    pub parameters: Parameters,
    /// Elements.
    pub weights: u64,
    /// Bytes in the source.
    pub source_bytes: u64,
    /// Expected bytes in the package.
    pub predicted_bytes: u64,
    /// Signal-to-noise ratio in dB that Gaussian weights would get; `None` where the codec is exact.
    pub predicted_snr_db: Option<f64>,
    /// The tensor it is identical to, which is stored instead.
    pub same_as: Option<String>,
    /// Why this codec: the rule, the target, or the default that chose it.
    pub reason: String,
}

impl Plan {
    /// Expected bits of package per stored weight.
    pub fn bpw(&self) -> f64 {
        8.0 * self.predicted_bytes as f64 / self.weights as f64
    }

    /// Expected source bytes over package bytes.
    pub fn ratio(&self) -> f64 {
        self.source_bytes as f64 / self.predicted_bytes as f64
    }
}
