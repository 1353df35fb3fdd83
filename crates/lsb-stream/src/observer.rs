//! Who is told while a model is compressed.

use crate::report::{LayerReport, TensorReport};

/// Told about progress. Every method has a default that does nothing; all are called from one thread.
pub trait Observer: Send {
    /// Work starts: this many tensors and source bytes, of which `done_bytes` were finished by an earlier run.
    fn started(&mut self, tensors: usize, source_bytes: u64, done_bytes: u64) {
        let _ = (tensors, source_bytes, done_bytes);
    }

    /// Work on a tensor starts.
    fn tensor_started(&mut self, name: &str, source_bytes: u64) {
        let _ = (name, source_bytes);
    }

    /// This many more source bytes are encoded.
    fn advanced(&mut self, source_bytes: u64) {
        let _ = source_bytes;
    }

    /// A tensor is finished (or was, by an earlier run).
    fn tensor_finished(&mut self, tensor: &TensorReport) {
        let _ = tensor;
    }

    /// All tensors of a layer are finished.
    fn layer_finished(&mut self, layer: &LayerReport) {
        let _ = layer;
    }

    /// Something worth telling that is not an error: a fallback, a suspicious input.
    fn warned(&mut self, message: &str) {
        let _ = message;
    }
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
