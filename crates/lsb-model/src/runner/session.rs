//! One sequence, token by token, with keys and values of all earlier tokens kept.

use super::ModelRunner;
use super::batch::{cut, flat};
use super::memory;
use crate::Result;
use crate::block::{self, Pass, Rotary, Segment};
use crate::cache::{CacheType, KvCache};
use crate::spec::ModelSpec;
use crate::tap::NoTap;
use candle_core::Tensor;
use lsb_format::Error;
use lsb_stream::Reservation;

/// Tokens that a session can have: more than any model has a context for, and so few that no size overflows.
const MAX_TOKENS: usize = 1 << 24;

/// Refuses what can never be a session.
pub(super) fn check(spec: &ModelSpec, capacity: usize) -> Result<()> {
    if spec.head.is_none() {
        return Err(Error::argument("an encoder does not generate text").into());
    }
    if capacity > MAX_TOKENS {
        let message = format!("a session of {capacity} tokens; it can have {MAX_TOKENS}");
        return Err(Error::argument(message).advise("ask for fewer new tokens").into());
    }
    Ok(())
}

/// How many tokens go through a block at once, at most `most`, and the bytes that all of a session takes then: no more than
/// `limit`, if few tokens at once are enough for that.
pub(super) fn plan(
    spec: &ModelSpec,
    most: usize,
    capacity: usize,
    kind: CacheType,
    limit: u64,
) -> (usize, u64) {
    let bytes = |chunk| memory::session(spec, chunk, capacity, kind);
    let chunk = memory::chunk(most.min(capacity), limit, bytes);
    (chunk, bytes(chunk))
}

/// A sequence that grows.
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m ModelRunner,
    /// One for each attention of the model, in order.
    caches: Vec<KvCache>,
    rotary: Vec<Rotary>,
    length: usize,
    capacity: usize,
    chunk: usize,
    _memory: [Reservation; 2],
}

impl<'m> Session<'m> {
    pub(super) fn new(model: &'m ModelRunner, capacity: usize, kind: CacheType) -> Result<Session<'m>> {
        check(&model.spec, capacity)?;
        model.check_ids(&[], capacity)?;
        let limit = model.activations.limit();
        let (chunk, bytes) = plan(&model.spec, model.options.chunk_tokens, capacity, kind, limit);
        let (rotary, tables) = model.rotary(capacity)?;
        let memory = model.reserve(bytes - tables.bytes(), "keys, values and activations")?;
        let caches = model
            .spec
            .attentions()
            .map(|a| KvCache::new(kind, a.kv_heads, a.head_dim, capacity))
            .collect::<Result<_>>()?;
        Ok(Session { model, caches, rotary, length: 0, capacity, chunk, _memory: [tables, memory] })
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Tokens that it has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all tokens but the first `length`.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        self.caches.iter_mut().for_each(|c| c.truncate(length));
    }

    /// Adds tokens and returns the logits behind the last of them, one for each row of the head. `more` says that
    /// further tokens will follow: weights for them are then read ahead.
    ///
    /// # Errors
    /// If there is no token or no room for all of them, an id is not in the vocabulary, or weights cannot be read.
    pub fn feed(&mut self, ids: &[u32], more: bool) -> Result<Vec<f32>> {
        let model = self.model;
        let end = self.length + ids.len();
        if ids.is_empty() || end > self.capacity {
            let message = format!("{end} tokens in a session for 1 to {}", self.capacity);
            return Err(Error::argument(message).into());
        }
        model.check_ids(ids, end)?;
        let chunks: Vec<Segment> = cut(&[ids.len()], self.chunk)
            .into_iter()
            .map(|c| Segment { sequence: 0, first: self.length + c.tokens.start, tokens: c.tokens.len() })
            .collect();
        let mut stream = Vec::with_capacity(chunks.len());
        for s in &chunks {
            let positions: Vec<usize> = (s.first..s.first + s.tokens).collect();
            let at = s.first - self.length;
            stream.push(model.embed(&ids[at..at + s.tokens], &positions)?);
        }
        model.weights.expect_another_pass(more);
        let mut caches = self.caches.iter_mut();
        for block in &model.spec.blocks {
            let mut cache = if block.attention().is_some() { caches.next() } else { None };
            if chunks.len() > 1 {
                model.weights.keep();
            }
            for (segment, x) in chunks.iter().zip(&mut stream) {
                let mut pass = Pass {
                    weights: &model.weights,
                    rotary: &self.rotary,
                    segments: std::slice::from_ref(segment),
                    caches: cache.as_deref_mut().map(std::slice::from_mut).unwrap_or_default(),
                    tap: &mut NoTap,
                    layer: block.layer,
                    tape: None,
                    step: true,
                };
                *x = block::run(block, x.clone(), &mut pass)?;
            }
            model.weights.release();
        }
        self.length = end;
        let last = stream.last().map(|x| x.narrow(0, x.dim(0)? - 1, 1)?.contiguous()).transpose();
        let last: Option<Tensor> = last.map_err(crate::Error::compute("the last token"))?;
        let Some(last) = last else { return Ok(Vec::new()) };
        let logits = model.head()?.step_logits(&model.last_norm(last)?)?;
        flat(&logits)
    }
}
