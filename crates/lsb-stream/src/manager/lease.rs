//! One tensor handed out: its chunks, as often as its consumer wants to see them.

use super::reader::{ChunkReader, LayerGuard};
use super::{Buffer, WorkItem, reader_gone};
use crate::Result;
use std::ops::{ControlFlow, Range};
use std::sync::mpsc::Receiver;

/// Consecutive tiles of a tensor with their bytes.
#[derive(Debug)]
pub struct Chunk {
    /// Which tiles.
    pub tiles: Range<u64>,
    /// Their source bytes.
    pub bytes: Buffer,
}

/// A tensor whose bytes can be seen in passes. Dropping it gives its memory back.
#[derive(Debug)]
pub struct TensorLease {
    item: WorkItem,
    position: usize,
    chunks: Chunks,
    hasher: Hasher,
    _layer: LayerGuard,
}

#[derive(Debug)]
enum Chunks {
    /// In memory, or still arriving.
    Resident { cached: Vec<Chunk>, arriving: Option<Receiver<Result<Chunk>>>, on_demand: Option<ChunkReader> },
    /// Arriving again and again, one pass after the other.
    StreamedAhead { arriving: Receiver<Result<Chunk>> },
    /// Read when asked for.
    StreamedOnDemand { reader: ChunkReader },
}

/// Hash of the source bytes, taken while they pass for the first time.
#[derive(Debug)]
struct Hasher {
    state: blake3::Hasher,
    done: bool,
}

impl TensorLease {
    pub(super) fn resident_ahead(
        item: WorkItem,
        position: usize,
        arriving: Receiver<Result<Chunk>>,
        layer: LayerGuard,
    ) -> Self {
        let chunks = Chunks::Resident { cached: Vec::new(), arriving: Some(arriving), on_demand: None };
        Self::new(item, position, chunks, layer)
    }

    pub(super) fn streamed_ahead(
        item: WorkItem,
        position: usize,
        arriving: Receiver<Result<Chunk>>,
        layer: LayerGuard,
    ) -> Self {
        Self::new(item, position, Chunks::StreamedAhead { arriving }, layer)
    }

    pub(super) fn on_demand(
        item: WorkItem,
        position: usize,
        reader: ChunkReader,
        keep: bool,
        layer: LayerGuard,
    ) -> Self {
        let chunks = if keep {
            Chunks::Resident { cached: Vec::new(), arriving: None, on_demand: Some(reader) }
        } else {
            Chunks::StreamedOnDemand { reader }
        };
        Self::new(item, position, chunks, layer)
    }

    fn new(item: WorkItem, position: usize, chunks: Chunks, layer: LayerGuard) -> Self {
        let hasher = Hasher { state: blake3::Hasher::new(), done: false };
        TensorLease { item, position, chunks, hasher, _layer: layer }
    }

    /// The tensor.
    pub fn item(&self) -> &WorkItem {
        &self.item
    }

    /// Its place in the work list.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Waits until the whole tensor is in memory; does nothing for a tensor that is read for each pass.
    ///
    /// # Errors
    /// If reading failed.
    pub fn load(&mut self) -> Result<()> {
        match self.chunks {
            Chunks::Resident { .. } => self.pass(|_| Ok(ControlFlow::Continue(()))).map(drop),
            _ => Ok(()),
        }
    }

    /// Shows every chunk in order, once. `see` may end the pass early with [`ControlFlow::Break`]; the next
    /// pass starts at the first chunk again. Returns whether the pass was seen to its end.
    ///
    /// # Errors
    /// What `see` returns, or that reading failed.
    pub fn pass(&mut self, mut see: impl FnMut(&Chunk) -> Result<ControlFlow<()>>) -> Result<bool> {
        let hasher = &mut self.hasher;
        let expected: Vec<Range<u64>> = self.item.chunks().collect();
        match &mut self.chunks {
            Chunks::Resident { cached, arriving, on_demand } => {
                for (i, tiles) in expected.iter().enumerate() {
                    if i == cached.len() {
                        let chunk = match (arriving.as_ref(), on_demand.as_ref()) {
                            (Some(arriving), _) => arriving.recv().map_err(|_| reader_gone())??,
                            (None, Some(reader)) => reader.read(tiles.clone())?,
                            (None, None) => return Err(reader_gone()),
                        };
                        hasher.update(i, expected.len(), &chunk);
                        cached.push(chunk);
                    }
                    if see(&cached[i])?.is_break() {
                        return Ok(false);
                    }
                }
            }
            Chunks::StreamedAhead { arriving } => {
                let mut broken = false;
                for i in 0..expected.len() {
                    // A pass that was left early is drained: the reader works in whole passes.
                    let chunk = arriving.recv().map_err(|_| reader_gone())??;
                    hasher.update(i, expected.len(), &chunk);
                    if !broken && see(&chunk)?.is_break() {
                        broken = true;
                    }
                }
                return Ok(!broken);
            }
            Chunks::StreamedOnDemand { reader } => {
                for (i, tiles) in expected.iter().enumerate() {
                    let chunk = reader.read(tiles.clone())?;
                    hasher.update(i, expected.len(), &chunk);
                    if see(&chunk)?.is_break() {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// BLAKE3 of the source bytes, once a pass was seen to its end.
    pub fn digest(&self) -> Option<[u8; 32]> {
        (self.hasher.done || self.item.tiling.len() == 0).then(|| *self.hasher.state.finalize().as_bytes())
    }
}

impl Hasher {
    fn update(&mut self, index: usize, chunks: usize, chunk: &Chunk) {
        if self.done {
            return;
        }
        if index == 0 {
            self.state.reset();
        }
        self.state.update(&chunk.bytes);
        self.done = index + 1 == chunks;
    }
}
