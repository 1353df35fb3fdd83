//! Weights in time and memory: which tensors' bytes are in RAM, and which are read next.
//!
//! [`StreamingManager`] hands out the tensors of a work list one after the other. Behind it a reader thread
//! runs ahead, but never further than two limits allow: the [`Budget`], from which every buffer is reserved,
//! and the number of layers that may have weights in memory at once. A tensor that fits stays in memory for
//! as many passes as its consumer wants; a larger one is read again for each pass, two chunks ahead.

mod buffer;
mod lease;
mod reader;
#[cfg(test)]
mod tests;

pub use buffer::{Buffer, BufferPool};
pub use lease::{Chunk, TensorLease};

use crate::{Budget, Error, Result};
use lsb_format::{DType, Tiling};
use reader::{Reader, Window};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Where the bytes of tensors come from.
pub trait TensorBytes: Send + Sync {
    /// Fills `out` with bytes of tensor `tensor`, starting `offset` bytes into it.
    ///
    /// # Errors
    /// If the file cannot be read or has become shorter.
    fn read(&self, tensor: usize, offset: u64, out: &mut [u8]) -> Result<()>;
}

/// One tensor to hand out.
#[derive(Clone, Debug)]
pub struct WorkItem {
    /// Number of the tensor in its [`TensorBytes`].
    pub tensor: usize,
    /// Layer it belongs to; items of one layer are consecutive.
    pub layer: usize,
    /// Element type.
    pub dtype: DType,
    /// Its partition: chunks are whole tiles.
    pub tiling: Tiling,
}

impl WorkItem {
    /// Bytes of the tensor.
    pub fn bytes(&self) -> u64 {
        self.byte_range(0..self.tiling.len()).end
    }

    fn byte_range(&self, tiles: Range<u64>) -> Range<u64> {
        let run = self.tiling.elements(tiles);
        run.start * self.dtype.bits() / 8..run.end * self.dtype.bits() / 8
    }

    /// Tiles per chunk: as many whole spans as fit into [`CHUNK_BYTES`], at least one.
    fn chunk_tiles(&self) -> u64 {
        let unit = self.tiling.span_unit();
        let tile = self.tiling.tile_rows() * self.tiling.tile_cols().min(self.tiling.cols().max(1));
        let unit_bytes = (tile * unit * self.dtype.bits() / 8).max(1);
        unit * (CHUNK_BYTES / unit_bytes).max(1)
    }

    /// Bytes of the largest chunk.
    pub fn chunk_bytes(&self) -> u64 {
        let tiles = self.chunk_tiles().min(self.tiling.len());
        self.byte_range(0..tiles).end
    }

    /// The chunks of the tensor, in order.
    fn chunks(&self) -> impl Iterator<Item = Range<u64>> + use<> {
        let (step, len) = (self.chunk_tiles(), self.tiling.len());
        (0..len.div_ceil(step)).map(move |i| i * step..((i + 1) * step).min(len))
    }
}

/// Bytes read at once: large enough for the disk, small enough for a tight budget.
pub const CHUNK_BYTES: u64 = 4 << 20;

/// How a [`StreamingManager`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagerOptions {
    /// How many layers may have weights in memory at once; 0 means any number.
    pub max_layers_in_ram: usize,
    /// Read ahead on a thread of its own.
    pub prefetch: bool,
    /// Keep tensors that fit between passes, and buffers between tensors.
    pub caching: bool,
    /// Bytes of weights that may be in memory at once; a tensor above this is read again for each pass.
    pub resident_bytes: u64,
}

/// Hands out tensors in order, holding at most so many layers and bytes, reading ahead.
#[derive(Debug)]
pub struct StreamingManager {
    source: Source,
    window: Arc<Window>,
    budget: Budget,
}

#[derive(Debug)]
enum Source {
    Ahead { leases: Option<Receiver<Result<TensorLease>>>, thread: Option<JoinHandle<()>> },
    OnDemand { reader: Reader, next: usize },
}

impl StreamingManager {
    /// A manager for `items`, which are in the order they will be handed out.
    ///
    /// Buffers come from `budget`. The manager needs room for two chunks at the least.
    pub fn new(
        bytes: Arc<dyn TensorBytes>,
        items: Vec<WorkItem>,
        budget: Budget,
        options: ManagerOptions,
    ) -> Self {
        let window = Arc::new(Window::new(options.max_layers_in_ram));
        let pool = BufferPool::new(budget.clone(), options.caching);
        let reader = Reader::new(bytes, Arc::new(items), pool, Arc::clone(&window), options);
        let source = if options.prefetch {
            // The channel holds leases, not weights: those are bounded by budget and window.
            let (send, leases) = sync_channel(1);
            let thread = std::thread::Builder::new()
                .name("lsb-read".into())
                .spawn({
                    let reader = reader.clone();
                    move || reader.run_ahead(&send)
                })
                .ok();
            if thread.is_some() {
                Source::Ahead { leases: Some(leases), thread }
            } else {
                tracing::warn!("no thread could be started; reading on demand instead of ahead");
                Source::OnDemand { reader, next: 0 }
            }
        } else {
            Source::OnDemand { reader, next: 0 }
        };
        StreamingManager { source, window, budget }
    }

    /// The next tensor, or `None` after the last. Give back the one before first: dropping its lease is what
    /// lets the reader go on.
    ///
    /// # Errors
    /// If reading failed. Nothing more comes after an error.
    pub fn next_tensor(&mut self) -> Option<Result<TensorLease>> {
        match &mut self.source {
            Source::Ahead { leases, .. } => leases.as_ref()?.recv().ok(),
            Source::OnDemand { reader, next } => {
                let lease = reader.on_demand(*next)?;
                *next += 1;
                Some(Ok(lease))
            }
        }
    }

    /// How many layers have weights in memory now.
    pub fn layers_in_ram(&self) -> usize {
        self.window.open_layers()
    }

    /// Most layers that had weights in memory at once.
    pub fn peak_layers_in_ram(&self) -> usize {
        self.window.peak_layers()
    }
}

impl Drop for StreamingManager {
    fn drop(&mut self) {
        self.window.close();
        if let Source::Ahead { leases, thread } = &mut self.source {
            // Order matters: without a receiver the reader's next send fails, and a closed budget ends its
            // waiting for memory.
            drop(leases.take());
            if thread.as_ref().is_some_and(|t| !t.is_finished()) {
                self.budget.close();
            }
            if let Some(thread) = thread.take()
                && thread.join().is_err()
            {
                tracing::error!("the reader thread panicked");
            }
        }
    }
}

/// An error that says the reader is gone.
fn reader_gone() -> Error {
    Error::Config("the reader stopped unexpectedly; this is a bug in lsb, please report it".into())
}
