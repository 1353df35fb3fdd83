//! Many windows, block by block: each block's weights are read once for all of them.

use super::ModelRunner;
use super::memory::workspace;
use crate::block::{self, Pass, Rotary, Segment, Tape};
use crate::cache::{CacheType, KvCache};
use crate::spec::BlockSpec;
use crate::tap::{NoTap, Tap};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use lsb_stream::ActivationStore;
use lsb_stream::Reservation;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Windows of tokens on their way through the blocks of a model.
///
/// Tokens are cut into chunks: several whole windows, or a part of one. Between blocks the residual stream of
/// every chunk lies in memory where the budget allows, else in a temporary file.
#[derive(Debug)]
pub struct Batch<'m> {
    model: Handle<'m>,
    windows: Vec<Range<usize>>,
    chunks: Vec<Chunk>,
    stream: ActivationStore,
    buffer: Vec<f32>,
    next: usize,
    chunk_tokens: usize,
    rotary: Vec<Rotary>,
    /// Keys and values of the window that is being run, where windows are cut. All layers have the same shape.
    cache: Option<KvCache>,
    _memory: [Reservation; 2],
}

/// The model of a batch.
#[derive(Clone, Debug)]
pub(super) enum Handle<'m> {
    Borrowed(&'m ModelRunner),
    Shared(Arc<ModelRunner>),
}

impl Deref for Handle<'_> {
    type Target = ModelRunner;

    fn deref(&self) -> &ModelRunner {
        match self {
            Handle::Borrowed(model) => model,
            Handle::Shared(model) => model,
        }
    }
}

/// Tokens that go through a block at once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chunk {
    /// Where they lie among all tokens.
    pub(super) tokens: Range<usize>,
    /// The sequences they belong to.
    pub(super) segments: Vec<Segment>,
    /// Whether they are only a part of their window.
    pub(super) part: bool,
}

/// The residual stream of another model with the same windows and chunks, to change places with that of a batch.
#[derive(Debug)]
pub(crate) struct Sibling {
    model: Handle<'static>,
    stream: ActivationStore,
    next: usize,
}

impl Batch<'static> {
    /// The stream of `model`, which has the shapes of this batch's and reads the same `windows`, before its first block. It
    /// takes the memory for intermediate values from this batch, and lies in a file where the budget of `model` for
    /// activations has no room.
    ///
    /// # Errors
    /// If weights cannot be read or activations cannot be kept.
    pub(crate) fn sibling(&self, model: Arc<ModelRunner>, windows: &[Vec<u32>]) -> Result<Sibling> {
        let model = Handle::Shared(model);
        let stream = embedded(&model, windows, &self.chunks)?;
        Ok(Sibling { model, stream, next: 0 })
    }

    /// Changes places.
    pub(crate) fn exchange(&mut self, other: &mut Sibling) {
        std::mem::swap(&mut self.model, &mut other.model);
        std::mem::swap(&mut self.stream, &mut other.stream);
        std::mem::swap(&mut self.next, &mut other.next);
    }
}

/// The residual stream of chunks of `windows` before the first block.
fn embedded(model: &ModelRunner, windows: &[Vec<u32>], chunks: &[Chunk]) -> Result<ActivationStore> {
    let slots = chunks.iter().map(|c| c.tokens.len() * model.spec.hidden).collect();
    let stream = ActivationStore::new(&model.activations, slots, model.options.spill.as_deref())?;
    let ids: Vec<u32> = windows.concat();
    for (i, chunk) in chunks.iter().enumerate() {
        let positions: Vec<usize> = chunk.segments.iter().flat_map(|s| s.first..s.first + s.tokens).collect();
        let x = model.embed(&ids[chunk.tokens.clone()], &positions)?;
        stream.put(i, &flat(&x)?)?;
    }
    Ok(stream)
}

impl<'m> Batch<'m> {
    pub(super) fn new(
        model: Handle<'m>,
        windows: &[Vec<u32>],
        chunk_tokens: Option<usize>,
    ) -> Result<Batch<'m>> {
        let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
        for window in windows {
            model.check_ids(window, window.len())?;
        }
        let causal = model.spec.is_causal();
        // Where every token sees every other, a window cannot be cut.
        let least = if causal { 1 } else { longest };
        let size = chunk_tokens.unwrap_or_else(|| model.chunk_tokens(longest).max(least));
        let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
        let chunks = cut(&lengths, size);
        let (rotary, tables) = model.rotary(longest)?;
        let largest = chunks.iter().map(|c| c.tokens.len()).max().unwrap_or(0);
        let attention = model.spec.attentions().next().filter(|_| longest > size);
        let kept = attention.map_or(0, |a| CacheType::F32.bytes(a.kv_heads, a.head_dim, longest));
        let memory =
            model.reserve(workspace(&model.spec, largest, longest, CacheType::F32) + kept, "activations")?;
        let cache =
            attention.map(|a| KvCache::new(CacheType::F32, a.kv_heads, a.head_dim, longest)).transpose()?;
        let stream = embedded(&model, windows, &chunks)?;
        let mut starts = Vec::with_capacity(windows.len());
        let mut at = 0;
        for window in windows {
            starts.push(at..at + window.len());
            at += window.len();
        }
        Ok(Batch {
            model,
            windows: starts,
            chunks,
            stream,
            buffer: Vec::new(),
            next: 0,
            chunk_tokens: size,
            rotary,
            cache,
            _memory: [tables, memory],
        })
    }

    /// Runs all windows through the next block. Returns its number, or `None` where all blocks were run.
    ///
    /// # Errors
    /// If weights cannot be read or activations cannot be kept.
    pub fn step(&mut self, tap: &mut dyn Tap) -> Result<Option<usize>> {
        let model = self.model.clone();
        let Some(block) = model.spec.blocks.get(self.next) else { return Ok(None) };
        let _phase = tracing::debug_span!("forward").entered();
        if self.chunks.len() > 1 {
            model.weights.keep();
        }
        let done = (0..self.chunks.len()).try_for_each(|i| self.run_chunk(block, i, tap));
        model.weights.release();
        done?;
        self.next += 1;
        Ok(Some(self.next - 1))
    }

    /// Runs all windows through the next block, as far as `tap` wants, shows its maps to it, and forgets what came out.
    ///
    /// # Errors
    /// As [`Batch::step`].
    pub fn peek(&mut self, tap: &mut dyn Tap) -> Result<()> {
        let model = self.model.clone();
        let Some(block) = model.spec.blocks.get(self.next) else { return Ok(()) };
        let _phase = tracing::debug_span!("forward").entered();
        if self.chunks.len() > 1 {
            model.weights.keep();
        }
        let done = (0..self.chunks.len()).try_for_each(|i| match self.through(block, i, tap) {
            Ok(_) | Err(crate::Error::Ended) => Ok(()),
            Err(error) => Err(error),
        });
        model.weights.release();
        done
    }

    /// Number of the block that is run next.
    pub fn next_block(&self) -> usize {
        self.next
    }

    /// Runs all blocks that are left.
    ///
    /// # Errors
    /// As [`Batch::step`].
    pub fn run(&mut self, tap: &mut dyn Tap) -> Result<()> {
        while self.step(tap)?.is_some() {}
        Ok(())
    }

    fn run_chunk(&mut self, block: &BlockSpec, index: usize, tap: &mut dyn Tap) -> Result<()> {
        let x = self.through(block, index, tap)?;
        self.stream.put(index, &flat(&x)?)?;
        Ok(())
    }

    /// What chunk `index` becomes in `block`.
    fn through(&mut self, block: &BlockSpec, index: usize, tap: &mut dyn Tap) -> Result<Tensor> {
        let x = self.hidden(index)?;
        let chunk = &self.chunks[index];
        let mut cache = self.cache.as_mut().filter(|_| chunk.part);
        if let Some(cache) = cache.as_mut().filter(|_| chunk.segments[0].first == 0) {
            cache.truncate(0);
        }
        let mut pass = Pass {
            weights: &self.model.weights,
            rotary: &self.rotary,
            segments: &chunk.segments,
            caches: cache.map(std::slice::from_mut).unwrap_or_default(),
            tap,
            layer: block.layer,
            tape: None,
            step: false,
        };
        block::run(block, x, &mut pass)
    }

    /// What chunk `index` of whole windows becomes in the next block, in operations that have gradients at its inputs
    /// and at `x`, which has the values of [`Batch::hidden`].
    pub(super) fn differentiable(
        &self,
        block: &BlockSpec,
        index: usize,
        x: &Tensor,
        tape: &Tape,
    ) -> Result<Tensor> {
        let mut pass = Pass {
            weights: &self.model.weights,
            rotary: &self.rotary,
            segments: &self.chunks[index].segments,
            caches: &mut [],
            tap: &mut NoTap,
            layer: block.layer,
            tape: Some(tape),
            step: false,
        };
        block::run(block, x.clone(), &mut pass)
    }

    /// Sequences of chunk `index`, as ranges among its tokens.
    pub(super) fn sequences(&self, index: usize) -> Vec<Range<usize>> {
        let mut at = 0;
        let lengths = self.chunks[index].segments.iter().map(|s| s.tokens);
        lengths
            .map(|n| {
                at += n;
                at - n..at
            })
            .collect()
    }

    /// The model.
    pub fn model(&self) -> &ModelRunner {
        &self.model
    }

    /// The windows, as ranges among all tokens.
    pub fn windows(&self) -> &[Range<usize>] {
        &self.windows
    }

    /// The chunks, as ranges among all tokens.
    pub fn chunks(&self) -> Vec<Range<usize>> {
        self.chunks.iter().map(|c| c.tokens.clone()).collect()
    }

    /// Tokens that a chunk has at most.
    pub fn chunk_tokens(&self) -> usize {
        self.chunk_tokens
    }

    /// The residual stream of chunk `index`, [tokens, hidden], behind the blocks that were run.
    ///
    /// # Errors
    /// If it cannot be read back.
    pub fn hidden(&mut self, index: usize) -> Result<Tensor> {
        self.stream.get(index, &mut self.buffer)?;
        let shape = (self.buffer.len() / self.model.spec.hidden.max(1), self.model.spec.hidden);
        Tensor::from_slice(&self.buffer, shape, &Device::Cpu).map_err(Error::compute("residual stream"))
    }

    /// True where the residual stream lies in a file.
    pub fn is_spilled(&self) -> bool {
        self.stream.is_spilled()
    }
}

/// The values of a tensor.
pub(super) fn flat(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all().and_then(|x| x.to_vec1()).map_err(Error::compute("residual stream"))
}

/// Cuts windows into chunks of at most `size` tokens: whole windows together, longer ones into parts.
pub(super) fn cut(windows: &[usize], size: usize) -> Vec<Chunk> {
    let size = size.max(1);
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut at = 0;
    for &window in windows {
        let mut first = 0;
        while first < window {
            let tokens = size.min(window - first);
            let part = tokens < window;
            let open = chunks.last_mut().filter(|c| !part && !c.part && c.tokens.len() + tokens <= size);
            match open {
                Some(chunk) => {
                    chunk.segments.push(Segment { sequence: chunk.segments.len(), first, tokens });
                    chunk.tokens.end = at + tokens;
                }
                None => chunks.push(Chunk {
                    tokens: at..at + tokens,
                    segments: vec![Segment { sequence: 0, first, tokens }],
                    part,
                }),
            }
            first += tokens;
            at += tokens;
        }
    }
    chunks
}
