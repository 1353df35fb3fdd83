//! How much memory activations take.

use crate::block::SCORES;
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
