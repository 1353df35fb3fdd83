//! Calibration that was done once and kept: a safetensors file with the second moments of every input and the costs of
//! every output (`docs/calibration.md` describes it).
//!
//! [`save_statistics`] writes one, [`SavedCalibration`] compresses with it. What a file says is believed only after it was
//! checked: names, shapes and digests when it is opened, numbers when they are first used.

mod fingerprint;
mod moments;
mod read;
mod record;
mod source;
#[cfg(test)]
mod tests;
mod write;

pub(super) use read::is_safetensors;
pub use source::SavedCalibration;
pub use write::{SaveOptions, SavedStatistics, save_statistics};
