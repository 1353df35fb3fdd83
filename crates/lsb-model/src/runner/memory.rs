//! How much memory activations take.

use crate::block::{Rotary, SCORES};
use crate::cache::CacheType;
use crate::spec::{ModelSpec, PartSpec};

/// Bytes that a chunk of `tokens` tokens takes at most on its way through a block, where sequences are up to
/// `length` tokens long and `copied` says that keys and values are turned into f32 when they are used.
pub(super) fn workspace(spec: &ModelSpec, tokens: usize, length: usize, copied: bool) -> u64 {
    let stream = spec.hidden * tokens;
    let parts = spec.blocks.iter().flat_map(|b| &b.branches).map(|branch| match &branch.part {
        PartSpec::Attention(a) => {
            let (queries, keys) = (a.heads * a.head_dim * tokens, a.kv_heads * a.head_dim * tokens);
            let read = if copied { 2 * a.kv_heads * a.head_dim * length } else { 0 };
            // Queries, keys and values before and after heads are put first; scores; the mixed values likewise.
            let scores = SCORES.max(a.heads * length).min(a.heads * length * tokens);
            2 * (queries + 2 * keys) + 2 * queries + scores + read
        }
        PartSpec::FeedForward(block) => 2 * block.down.inputs * tokens,
        PartSpec::Experts(experts) => {
            let inner = experts.experts.iter().map(|e| e.down.inputs).max().unwrap_or(0);
            (2 * inner + 3 * spec.hidden) * tokens
        }
    });
    // The stream itself, its norm, the output of the branch, and their sum.
    4 * (4 * stream + parts.max().unwrap_or(0)) as u64
}

/// Bytes of the rotary tables for sequences of up to `positions` tokens.
pub(super) fn rotary(spec: &ModelSpec, positions: usize) -> u64 {
    spec.rotaries().iter().map(|spec| Rotary::bytes(spec, positions)).sum()
}

/// Bytes of the keys and values of `capacity` tokens, in all layers.
pub(super) fn kept(spec: &ModelSpec, capacity: usize, cache: CacheType) -> u64 {
    spec.attentions().map(|a| cache.bytes(a.kv_heads, a.head_dim, capacity)).sum()
}

/// Bytes that a session of `capacity` tokens takes, fed with up to `chunk` tokens at a time.
pub(super) fn session(spec: &ModelSpec, chunk: usize, capacity: usize, cache: CacheType) -> u64 {
    let chunk = chunk.min(capacity.max(1));
    // A chunk is chosen as if keys and values of one layer were in f32 beside it.
    let layer = spec.attentions().next();
    let layer = layer.map_or(0, |a| CacheType::F32.bytes(a.kv_heads, a.head_dim, capacity));
    let stream = 4 * (capacity * spec.hidden) as u64;
    let work = workspace(spec, chunk, capacity, cache != CacheType::F32);
    kept(spec, capacity, cache) + layer + stream + work + rotary(spec, capacity)
}
