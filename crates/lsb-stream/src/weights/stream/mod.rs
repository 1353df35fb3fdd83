//! The tensors of a source for passes over a model, held in memory ahead of their use.
//!
//! A pass asks for the same tensors in the same order each time. Where all of them fit into the budget, each
//! is read once and kept. Elsewhere a reader thread runs ahead of the pass, no further than the budget and a
//! number of layers allow, and over the end of the order only while another pass is expected. Nothing here
//! waits for memory but that thread: a tensor it could not hold in time is read when asked for, or handed out
//! open, so that a small budget makes a pass slow and never stops it.

mod order;
mod reader;
mod state;
#[cfg(test)]
mod tests;

use super::{TensorWeights, WeightSource};
use crate::{Budget, Result};
use order::Order;
use state::{Found, Shared};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// How a [`WeightStream`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Layers that may be held beyond the one last asked for, so that with 1 the layer in use and the next one
    /// are in memory; 0 means any number. Does not count where everything stays in memory.
    pub max_layers_in_ram: usize,
    /// Read ahead on a thread of its own.
    pub prefetch: bool,
    /// Keep all tensors of the order in memory if all of them fit.
    pub caching: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions { max_layers_in_ram: 1, prefetch: true, caching: true }
    }
}

/// What a [`WeightStream`] did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamFigures {
    /// Stored bytes read from the source's files since the stream was made, by whomever.
    pub bytes_read: u64,
    /// Seconds spent on holding tensors, on any thread.
    pub seconds_reading: f64,
    /// Seconds that [`WeightStream::tensor`] took because the tensor was not there yet.
    pub seconds_waited: f64,
    /// Every tensor of the order stays in memory once read.
    pub resident: bool,
    /// Requests that were answered with an open tensor, which reads its file when used.
    pub not_held: u64,
}

/// Tensors for one pass after the other over a model.
#[derive(Debug)]
pub struct WeightStream {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    /// What the source had read before this stream.
    bytes_before: u64,
}

impl WeightStream {
    /// A stream of the tensors with the numbers `order` of `source`, in the order one pass asks for them, each
    /// once. List every tensor that each pass uses whole; leave out what only some passes use (sparse experts)
    /// and what is better read in parts (rows of an embedding: see [`WeightSource::open`]).
    ///
    /// If `options` allow caching and all of `order` fits into what `budget` has left, an eighth of its limit
    /// kept free, memory for all of it is reserved now and each tensor stays once it is read. Make other
    /// lasting reservations first.
    ///
    /// Reading ahead begins at once.
    ///
    /// # Errors
    /// If a number does not exist or is there twice.
    pub fn new(
        source: Arc<dyn WeightSource>,
        order: Vec<usize>,
        budget: &Budget,
        options: StreamOptions,
    ) -> Result<Self> {
        let order = Order::new(order, source.tensors())?;
        let bytes_before = source.bytes_read();
        let shared = Arc::new(Shared::new(source, order, budget.clone(), options));
        let reader = options.prefetch.then(|| reader::spawn(&shared)).flatten();
        Ok(WeightStream { shared, reader, bytes_before })
    }

    /// The tensor with number `index`: held in memory where the budget has room for it, else open, so that its
    /// tiles are read from the file when used. An eighth of the budget's limit is left to others, and a tensor
    /// that alone takes more than half of the limit is never held. While somebody has a tensor, asking for it
    /// again gives the same one. A held tensor's memory goes back to the budget when the last user drops it.
    ///
    /// Tensors that are not next in the order, or not in it, are read at once. May be called from any number of
    /// threads.
    ///
    /// # Errors
    /// As [`WeightSource::hold`] and [`WeightSource::open`], also where reading failed ahead of time; asking
    /// again tries again.
    pub fn tensor(&self, index: usize) -> Result<Arc<dyn TensorWeights>> {
        let (claim, memory) = match self.shared.find(index) {
            Found::Ready(result) => return result,
            Found::Missing(claim, memory) => (claim, memory),
        };
        let start = Instant::now();
        let result = self.shared.read_now(claim, memory);
        self.shared.waited(start.elapsed());
        result
    }

    /// Says whether another pass follows the current one (the one the last tensor asked for belongs to), so
    /// that the reader may go on over the end of the order. It may not until told so: a single pass reads
    /// nothing that it does not use.
    pub fn expect_another_pass(&self, expected: bool) {
        self.shared.expect_another_pass(expected);
    }

    /// What was done so far.
    pub fn figures(&self) -> StreamFigures {
        StreamFigures {
            bytes_read: self.shared.source.bytes_read().saturating_sub(self.bytes_before),
            ..self.shared.figures()
        }
    }

    /// Where the tensors come from.
    pub fn source(&self) -> &Arc<dyn WeightSource> {
        &self.shared.source
    }
}

/// Stops the reader; waits for the tensor it is reading at most.
impl Drop for WeightStream {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            tracing::error!("the reader thread panicked");
        }
    }
}
