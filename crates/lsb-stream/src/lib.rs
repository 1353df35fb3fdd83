//! Weights to layers in time and memory.
//!
//! Opens models and packages with positional reads, holds everything large inside one [`Budget`], reads the
//! next work while the current one is computed, journals what is done, publishes by rename.

mod budget;
mod config;
mod error;
pub mod layers;
pub mod manager;
mod observer;
mod plan;
mod report;
pub mod source;
pub mod store;
pub mod weights;

pub use budget::{Budget, Reservation};
pub use config::{CompressConfig, Rule, Target};
pub use error::{Error, Result};
pub use manager::StreamingManager;
pub use observer::{Observer, Silent};
pub use plan::{Plan, PlannedTensor};
pub use report::{CompressReport, LayerReport, TensorReport};
pub use weights::{MemoryWeights, ModelWeights, Scratch, TensorFacts, TensorWeights, WeightSource};
