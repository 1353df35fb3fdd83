//! Calibration as the pipeline sees it: somebody who runs the model and tells what its linear maps are fed with.

use crate::source::Model;
use crate::{Budget, Result, TensorWeights};
use lsb_quant::calibrate::Calibration;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Makes calibrators, such as `lsb_model::TextCalibration`.
pub trait CalibrationSource: std::fmt::Debug + Send + Sync {
    /// Everything that decides what a calibrator says: text, tokens, seed.
    fn identity(&self) -> String;

    /// The tensors that can be calibrated, in the order a pass uses them.
    ///
    /// # Errors
    /// If the model cannot be run.
    fn tensors(&self, model: &Model) -> Result<Vec<String>>;

    /// Calibrates `model` inside `budget`.
    ///
    /// # Errors
    /// If the model or the text cannot be read, or the budget is too small.
    fn open(&self, model: &Model, budget: &Budget, interrupt: Arc<AtomicBool>)
    -> Result<Box<dyn Calibrator>>;
}

/// Runs a model on calibration text, with the tensors that are compressed already in place of the original ones.
pub trait Calibrator: Send {
    /// Runs the original once and shows what is known of every map.
    ///
    /// # Errors
    /// Those of `visit`; if the model cannot be run.
    fn survey(&mut self, visit: &mut dyn FnMut(&str, &Calibration) -> Result<()>) -> Result<()>;

    /// What is known of the map `tensor` now: its inputs come from the tensors that are compressed already. `None`
    /// where it is no map that takes part in a pass. Tensors are asked for in the order they are compressed.
    ///
    /// # Errors
    /// If the model cannot be run.
    fn calibration(&mut self, tensor: &str) -> Result<Option<Calibration>>;

    /// `tensor` is compressed: from now on these are its weights.
    fn finished(&mut self, tensor: &str, weights: Arc<dyn TensorWeights>);

    /// What a reader of the report should know: text, tokens, what was pooled or cut into blocks.
    fn notes(&self) -> Vec<String>;
}
