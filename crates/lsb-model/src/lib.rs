//! Layers to activations: what a model is, and what it computes.
//!
//! Reads `config.json` without trusting it, checks it against the tensors that are there, and names the role of
//! each tensor. [`ModelSpec`] turns the two into a list of blocks; [`ModelRunner`] runs them, a block at a time,
//! on weights from any [`lsb_stream::WeightSource`], inside a memory budget. How weights are stored is nobody's
//! business here: a linear map is one call. Around it: the tokenizer, chat templates, sampling, text generation
//! and sentence embeddings.

#![forbid(unsafe_code)]

mod architecture;
mod block;
mod cache;
mod calibrate;
pub mod chat;
mod check;
mod config;
mod details;
mod error;
mod fields;
mod generate;
mod linear;
mod pooling;
mod role;
mod runner;
pub mod sample;
mod sensitivity;
pub mod spec;
mod tap;
#[cfg(test)]
mod tests;
pub mod tokenizer;
pub mod tune;
mod weights;

pub use architecture::Architecture;
pub use cache::CacheType;
pub use calibrate::products;
pub use calibrate::{
    SaveOptions, SavedCalibration, SavedStatistics, TextCalibration, calibration_source, save_statistics,
};
pub use chat::{ChatTemplate, Message};
pub use check::ConfigCheck;
pub use config::{Experts, ModelConfig, Rope, RopeScaling, Sizes};
pub use details::Details;
pub use error::{Error, Result};
pub use generate::{Finish, GenerateOptions, Generated, Generator};
pub use linear::Linear;
pub use pooling::{Pooling, PoolingKind};
pub use role::{ExpertPart, Role, role_of};
pub use runner::{
    Batch, GradientTap, Head, HeadTile, MapGradient, ModelRunner, Objective, Piece, RunOptions, Session,
    backward,
};
pub use sample::{Sampler, SamplerOptions, StopStrings};
pub use sensitivity::Sensitivity;
pub use spec::ModelSpec;
pub use tap::{NoTap, Tap};
pub use tokenizer::Tokenizer;
