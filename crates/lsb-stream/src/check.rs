//! What someone who understands models may say about one before work on it starts.

use crate::Result;
use crate::source::{Model, Warning};

/// Looks at a model's configuration and tensors before they are compressed.
pub trait ModelCheck: Send + Sync {
    /// What is odd about `model`; `duplicates` maps tensors to earlier ones of equal content.
    ///
    /// # Errors
    /// Where the model contradicts itself, so that compressing it would only spread the damage.
    fn check(&self, model: &Model, duplicates: &[Option<usize>]) -> Result<Vec<Warning>>;
}
