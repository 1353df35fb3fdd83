//! What a model is: its architecture, its sizes, and what each tensor is for.
//!
//! Reads `config.json` without trusting it, checks it against the tensors that are there, and names the role of
//! each tensor. Nothing here runs a model or reads its weights.

mod architecture;
pub mod chat;
mod check;
mod config;
mod error;
mod fields;
mod role;
pub mod sample;
#[cfg(test)]
mod tests;
pub mod tokenizer;

pub use architecture::Architecture;
pub use check::ConfigCheck;
pub use config::{Experts, ModelConfig, Rope, RopeScaling, Sizes};
pub use error::{Error, Result};
pub use role::{ExpertPart, Role, role_of};
