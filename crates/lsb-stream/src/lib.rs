//! Weights to layers in time and memory.
//!
//! Opens models and packages with positional reads, holds everything large inside one [`Budget`], reads the
//! next work while the current one is computed, journals what is done, publishes by rename.

mod allocator;
mod budget;
mod calibration;
mod check;
mod compress;
mod config;
mod decompress;
mod error;
pub mod layers;
pub mod manager;
mod observer;
pub mod package;
mod plan;
mod process;
mod report;
pub mod retouch;
pub mod source;
pub mod spill;
pub mod store;
mod threads;
pub mod weights;

pub use allocator::{give_back_now, give_freed_memory_back};
pub use budget::{Budget, Reservation};
pub use calibration::{CalibrationSource, Calibrator};
pub use check::ModelCheck;
pub use compress::LoopCompressor;
pub use config::{AdaptivePrecision, CompressConfig, OutputWeights, Rule, Target};
pub use decompress::{DecompressOptions, DecompressReport, decompress};
pub use error::{Error, Result};
pub use manager::StreamingManager;
pub use observer::{Observer, Silent};
pub use plan::{Plan, PlannedTensor};
pub use process::{peak_rss_bytes, reset_peak_rss};
pub use report::{CompressReport, LayerReport, TensorReport};
pub use spill::ActivationStore;
pub use threads::{default_threads, threads_or_default};
pub use weights::{
    FEW_TOKENS, MemoryWeights, ModelWeights, PackageWeights, ReservedWeights, Scratch, StreamFigures,
    StreamOptions, TensorFacts, TensorWeights, UnpackedWeights, WeightSource, WeightStream, open_weights,
};
