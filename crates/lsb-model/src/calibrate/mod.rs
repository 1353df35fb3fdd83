//! Calibration: what linear maps are fed with while a model reads a text.

mod gather;
mod moments;
mod original;
mod pass;
pub mod products;
mod saved;
mod stages;
mod starved;
#[cfg(test)]
mod tests;
mod text;
mod weighting;

pub use saved::{SaveOptions, SavedCalibration, SavedStatistics, save_statistics};
pub use text::TextCalibration;

use crate::Result;
use lsb_stream::{CalibrationSource, CompressConfig};
use std::sync::Arc;

/// What `config` asks to calibrate with: saved statistics where its file holds some, else a text; `None` where it says
/// `none`.
///
/// # Errors
/// Those of [`SavedCalibration::from_config`] and [`TextCalibration::from_config`].
pub fn calibration_source(config: &CompressConfig) -> Result<Option<Arc<dyn CalibrationSource>>> {
    if let Some(saved) = SavedCalibration::from_config(config)? {
        return Ok(Some(Arc::new(saved)));
    }
    Ok(TextCalibration::from_config(config)?.map(|text| Arc::new(text) as _))
}
