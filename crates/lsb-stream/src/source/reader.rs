//! Reads one tensor and nothing beside it.

use super::{Model, SourceTensor};
use crate::error::Result;
use lsb_format::Error;
use std::io;

/// The bytes of one tensor, by position or in order.
#[derive(Clone, Debug)]
pub struct TensorReader<'a> {
    model: &'a Model,
    tensor: &'a SourceTensor,
    position: u64,
}

impl<'a> TensorReader<'a> {
    pub(super) fn new(model: &'a Model, tensor: &'a SourceTensor) -> Self {
        TensorReader { model, tensor, position: 0 }
    }

    /// The tensor.
    pub fn tensor(&self) -> &'a SourceTensor {
        self.tensor
    }

    /// Fills `buffer` from byte `offset` of the tensor on.
    ///
    /// # Errors
    /// If that runs past the tensor's end, or as [`Model::read_at`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.tensor.bytes) {
            let (wanted, bytes) = (buffer.len(), self.tensor.bytes);
            let message = format!("{wanted} bytes from byte {offset} of a tensor of {bytes} bytes");
            return Err(Error::argument(message).in_tensor(&self.tensor.name).into());
        }
        self.model.read_at(self.tensor.file, self.tensor.offset + offset, buffer)
    }
}

impl io::Read for TensorReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.tensor.bytes - self.position;
        let n = left.min(buffer.len() as u64) as usize;
        let Some(part) = buffer.get_mut(..n) else { return Ok(0) };
        self.read_at(self.position, part).map_err(io::Error::other)?;
        self.position += n as u64;
        Ok(n)
    }
}
