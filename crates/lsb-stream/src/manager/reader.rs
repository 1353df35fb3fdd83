//! The one place that reads weights: ahead on a thread, or when asked.

use super::{BufferPool, Chunk, ManagerOptions, TensorBytes, TensorLease, WorkItem};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Counts the layers that have weights in memory, and holds the reader back at the limit.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    state: Mutex<Open>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    /// Leases handed out or being read, per layer.
    leases: BTreeMap<usize, usize>,
    peak: usize,
    closed: bool,
}

impl Window {
    pub(super) fn new(limit: usize) -> Self {
        let limit = if limit == 0 { usize::MAX } else { limit };
        Window { limit, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a lease of `layer` is allowed.
    fn enter(self: &Arc<Self>, layer: usize) -> Result<LayerGuard> {
        let mut open = self.lock();
        while !open.closed && !open.leases.contains_key(&layer) && open.leases.len() >= self.limit {
            open = self.changed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        if open.closed {
            return Err(Error::Interrupted);
        }
        *open.leases.entry(layer).or_default() += 1;
        open.peak = open.peak.max(open.leases.len());
        Ok(LayerGuard { window: Arc::clone(self), layer })
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn open_layers(&self) -> usize {
        self.lock().leases.len()
    }

    pub(super) fn peak_layers(&self) -> usize {
        self.lock().peak
    }
}

/// A layer is open as long as one of its guards lives.
#[derive(Debug)]
pub(super) struct LayerGuard {
    window: Arc<Window>,
    layer: usize,
}

impl Drop for LayerGuard {
    fn drop(&mut self) {
        let mut open = self.window.lock();
        if let Some(n) = open.leases.get_mut(&self.layer) {
            *n -= 1;
            if *n == 0 {
                open.leases.remove(&self.layer);
            }
        }
        drop(open);
        self.window.changed.notify_all();
    }
}

/// Reads chunks of one tensor.
#[derive(Clone)]
pub(super) struct ChunkReader {
    bytes: Arc<dyn TensorBytes>,
    pool: BufferPool,
    item: WorkItem,
}

impl std::fmt::Debug for ChunkReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkReader").field("item", &self.item).finish_non_exhaustive()
    }
}

impl ChunkReader {
    pub(super) fn read(&self, tiles: Range<u64>) -> Result<Chunk> {
        let run = self.item.byte_range(tiles.clone());
        let len = (run.end - run.start) as usize;
        // Full-size buffers for large tensors, so that one size is used over and over; small tensors take
        // what they need.
        let capacity = self.item.chunk_bytes().min(len.next_multiple_of(4096).max(4096) as u64);
        let mut bytes = self.pool.take(len, capacity as usize)?;
        self.bytes.read(self.item.tensor, run.start, &mut bytes)?;
        Ok(Chunk { tiles, bytes })
    }
}

#[derive(Clone)]
pub(super) struct Reader {
    bytes: Arc<dyn TensorBytes>,
    items: Arc<Vec<WorkItem>>,
    pool: BufferPool,
    window: Arc<Window>,
    options: ManagerOptions,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

/// Chunks of a streamed tensor that may wait for their consumer.
const CHUNKS_AHEAD: usize = 1;

impl Reader {
    pub(super) fn new(
        bytes: Arc<dyn TensorBytes>,
        items: Arc<Vec<WorkItem>>,
        pool: BufferPool,
        window: Arc<Window>,
        options: ManagerOptions,
    ) -> Self {
        Reader { bytes, items, pool, window, options }
    }

    fn fits(&self, item: &WorkItem) -> bool {
        self.options.caching && item.bytes() <= self.options.resident_bytes
    }

    fn chunk_reader(&self, item: &WorkItem) -> ChunkReader {
        ChunkReader { bytes: Arc::clone(&self.bytes), pool: self.pool.clone(), item: item.clone() }
    }

    /// The lease of item `position`, which reads when it is asked to.
    pub(super) fn on_demand(&self, position: usize) -> Option<TensorLease> {
        let item = self.items.get(position)?.clone();
        let guard = self.window.enter(item.layer).ok()?;
        let (reader, keep) = (self.chunk_reader(&item), self.fits(&item));
        Some(TensorLease::on_demand(item, position, reader, keep, guard))
    }

    /// Reads all items in order, until told to stop or the receiver is gone.
    pub(super) fn run_ahead(&self, leases: &SyncSender<Result<TensorLease>>) {
        for (position, item) in self.items.iter().enumerate() {
            let Ok(guard) = self.window.enter(item.layer) else { return };
            let reader = self.chunk_reader(item);
            if self.fits(item) {
                // Every chunk is reserved from the budget before it is sent, so this channel needs no bound.
                let (send, arriving) = channel();
                let lease = TensorLease::resident_ahead(item.clone(), position, arriving, guard);
                if leases.send(Ok(lease)).is_err() {
                    return;
                }
                feed(&reader, item, |chunk| send.send(chunk).is_ok());
            } else {
                let (send, arriving) = sync_channel(CHUNKS_AHEAD);
                let lease = TensorLease::streamed_ahead(item.clone(), position, arriving, guard);
                if leases.send(Ok(lease)).is_err() {
                    return;
                }
                // Pass after pass, until the consumer has had enough and drops its end.
                while item.tiling.len() > 0 && feed(&reader, item, |chunk| send.send(chunk).is_ok()) {}
            }
        }
    }
}

/// Reads every chunk of the tensor once and sends it. False if reading failed or nobody listens any more.
fn feed(reader: &ChunkReader, item: &WorkItem, send: impl Fn(Result<Chunk>) -> bool) -> bool {
    item.chunks().all(|tiles| {
        let chunk = reader.read(tiles);
        let good = chunk.is_ok();
        send(chunk) && good
    })
}
