//! Attention.

use super::softmax::MaskedSoftmax;
use super::{Pass, Segment};
use crate::spec::{AttentionSpec, QkvSpec};
use crate::{Error, Result};
use candle_core::Tensor;

/// Scores held at once, in f32: queries are taken in pieces so that no more are needed.
pub(crate) const SCORES: usize = 1 << 21;

/// Attention of a chunk `x`, [tokens, hidden], normed already.
pub(super) fn attend(spec: &AttentionSpec, x: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
    let [q, k, v] = project(spec, &x, pass)?;
    drop(x);
    let mut outputs = Vec::with_capacity(pass.segments.len());
    let mut start = 0;
    let segments = pass.segments;
    for &segment in segments {
        let part = |x: &Tensor| x.narrow(1, start, segment.tokens)?.contiguous();
        let failed = || Error::compute(format!("attention of layer {}", pass.layer));
        let parts = (part(&q).map_err(failed())?, part(&k).map_err(failed())?, part(&v).map_err(failed())?);
        outputs.push(sequence(spec, segment, parts, pass)?);
        start += segment.tokens;
    }
    drop((q, k, v));
    let joined = if outputs.len() == 1 { outputs.swap_remove(0) } else { join(&outputs, pass.layer)? };
    pass.map(&spec.out, &joined)
}

fn join(outputs: &[Tensor], layer: usize) -> Result<Tensor> {
    Tensor::cat(outputs, 0).map_err(Error::compute(format!("attention of layer {layer}")))
}

/// Queries, keys and values, each [heads, tokens, width of a head].
fn project(spec: &AttentionSpec, x: &Tensor, pass: &mut Pass<'_>) -> Result<[Tensor; 3]> {
    let (heads, kv, width) = (spec.heads, spec.kv_heads, spec.head_dim);
    let layer = pass.layer;
    let failed = || Error::compute(format!("attention of layer {layer}"));
    let split = |x: Tensor, heads: usize| -> candle_core::Result<Tensor> {
        let tokens = x.dim(0)?;
        x.reshape((tokens, heads, width))?.transpose(0, 1)?.contiguous()
    };
    match &spec.qkv {
        QkvSpec::Separate([q, k, v]) => Ok([
            split(pass.map(q, x)?, heads).map_err(failed())?,
            split(pass.map(k, x)?, kv).map_err(failed())?,
            split(pass.map(v, x)?, kv).map_err(failed())?,
        ]),
        QkvSpec::Blocks(map) => {
            let all = pass.map(map, x)?;
            let part = |start: usize, heads: usize| {
                split(all.narrow(1, start * width, heads * width)?.contiguous()?, heads)
            };
            Ok([
                part(0, heads).map_err(failed())?,
                part(heads, kv).map_err(failed())?,
                part(heads + kv, kv).map_err(failed())?,
            ])
        }
        QkvSpec::Interleaved(map) => {
            let all = pass.map(map, x)?;
            let part = |which: usize| -> candle_core::Result<Tensor> {
                let tokens = all.dim(0)?;
                all.reshape((tokens, heads, 3, width))?
                    .narrow(2, which, 1)?
                    .squeeze(2)?
                    .transpose(0, 1)?
                    .contiguous()
            };
            Ok([part(0).map_err(failed())?, part(1).map_err(failed())?, part(2).map_err(failed())?])
        }
    }
}

/// Attention of the tokens of one sequence: [tokens, heads x width].
fn sequence(
    spec: &AttentionSpec,
    segment: Segment,
    (mut q, mut k, v): (Tensor, Tensor, Tensor),
    pass: &mut Pass<'_>,
) -> Result<Tensor> {
    let layer = pass.layer;
    let failed = || Error::compute(format!("attention of layer {layer}"));
    if let Some([q_norm, k_norm]) = &spec.head_norms {
        q = pass.normalize(q_norm, &q)?;
        k = pass.normalize(k_norm, &k)?;
    }
    if let Some(rotary) = spec.rotary.as_ref().and_then(|r| pass.rotary.iter().find(|t| t.is_for(r))) {
        let slow = pass.tape.is_some();
        q = rotary.apply(&q, segment.first, slow).map_err(failed())?;
        k = rotary.apply(&k, segment.first, slow).map_err(failed())?;
    }
    let differentiable = pass.tape.is_some();
    let cache = pass.caches.get_mut(segment.sequence);
    if let Some(cache) = cache {
        cache.append(&k, &v).map_err(failed())?;
        drop((k, v));
        let read = |from, to| cache.read(from, to);
        return queries(spec, &q, segment.first, differentiable, read).map_err(failed());
    }
    queries(spec, &q, segment.first, differentiable, |from, to| {
        Ok((k.narrow(1, from, to - from)?, v.narrow(1, from, to - from)?))
    })
    .map_err(failed())
}

/// Runs queries `q`, [heads, tokens, width], whose first is at position `first`, against keys and values at the
/// positions that `read(from, to)` gives, each [kv heads, positions, width].
fn queries(
    spec: &AttentionSpec,
    q: &Tensor,
    first: usize,
    differentiable: bool,
    read: impl Fn(usize, usize) -> candle_core::Result<(Tensor, Tensor)>,
) -> candle_core::Result<Tensor> {
    let (heads, tokens, width) = q.dims3()?;
    let (kv, group) = (spec.kv_heads, heads / spec.kv_heads);
    let all = first + tokens;
    let step = (SCORES / (heads * all).max(1)).clamp(1, tokens.max(1));
    let mut outputs = Vec::with_capacity(tokens.div_ceil(step));
    for start in (0..tokens).step_by(step) {
        let n = step.min(tokens - start);
        let to = if spec.causal { first + start + n } else { all };
        let from = spec.window.map_or(0, |w| (first + start + 1).saturating_sub(w));
        let (k, v) = read(from, to)?;
        let piece = if n == tokens { q.clone() } else { q.narrow(1, start, n)?.contiguous()? };
        let scores = piece.reshape((kv, group * n, width))?.matmul(&k.transpose(1, 2)?)?;
        let softmax = MaskedSoftmax {
            scale: spec.scale,
            soft_cap: spec.soft_cap,
            queries: n,
            first: (first + start) as isize - from as isize,
            causal: spec.causal,
            window: spec.window,
        };
        let scores = if differentiable {
            softmax.differentiable(&scores)?
        } else {
            scores.inplace_op1(&softmax)?;
            scores
        };
        let mixed = scores.matmul(&v)?.reshape((heads, n, width))?;
        outputs.push(mixed.transpose(0, 1)?.contiguous()?.reshape((n, heads * width))?);
    }
    if outputs.len() == 1 { Ok(outputs.swap_remove(0)) } else { Tensor::cat(&outputs, 0) }
}
