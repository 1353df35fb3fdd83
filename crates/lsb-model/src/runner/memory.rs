//! How much memory activations take.

use crate::block::{Rotary, SCORES};
use crate::cache::CacheType;
use crate::spec::{ModelSpec, PartSpec};

/// Bytes that a chunk of `tokens` tokens takes at most on its way through a block, where sequences are up to
/// `length` tokens long and their keys and values are kept as `cache` says.
pub(super) fn workspace(spec: &ModelSpec, tokens: usize, length: usize, cache: CacheType) -> u64 {
    let stream = spec.hidden * tokens;
    let parts = spec.blocks.iter().flat_map(|b| &b.branches).map(|branch| match &branch.part {
        PartSpec::Attention(a) => {
            let (queries, keys) = (a.heads * a.head_dim * tokens, a.kv_heads * a.head_dim * tokens);
            let read = cache.copies() * a.kv_heads * a.head_dim * length;
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
    // Twice what goes from block to block: with 1132 tokens, 16 at a time, memory that was freed and is still the heap's took
    // nearly as much.
    let stream = 2 * 4 * (capacity * spec.hidden) as u64;
    let work = workspace(spec, chunk.min(capacity.max(1)), capacity, cache);
    kept(spec, capacity, cache) + stream + work + rotary(spec, capacity)
}

/// The most tokens up to `most` that can go through a block at once for `bytes` of `needed` for so many: `most` halved
/// until it is so, or until there is nothing to be gained.
pub(super) fn chunk(most: usize, bytes: u64, needed: impl Fn(usize) -> u64) -> usize {
    let mut tokens = most.max(1);
    while tokens > FEWEST_TOKENS && needed(tokens) > bytes {
        tokens /= 2;
    }
    tokens
}

/// Fewer tokens at once save little memory and decode weights more often.
const FEWEST_TOKENS: usize = 16;
