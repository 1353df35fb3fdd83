//! Weights to layers in time and memory.
//!
//! Opens models and packages with positional reads, holds everything large inside one memory budget, reads the
//! next work while the current one is computed, journals what is done, publishes by rename.

mod error;
pub mod package;
pub mod store;

pub use error::{Error, Result};
