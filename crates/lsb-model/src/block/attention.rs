//! Attention.

use super::softmax::MaskedSoftmax;
use super::{Pass, Segment};
use crate::cache::KvCache;
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
        if pass.step && segment.tokens == 1 {
            return step(spec, &q, segment.first, cache).map_err(failed());
        }
        let read = |from, to| cache.read(from, to);
        return queries(spec, &q, segment.first, differentiable, read).map_err(failed());
    }
    queries(spec, &q, segment.first, differentiable, |from, to| {
        Ok((k.narrow(1, from, to - from)?, v.narrow(1, from, to - from)?))
    })
    .map_err(failed())
}

/// The queries `q`, [heads, 1, width], of the token at position `position`, whose key and value are in the cache.
fn step(spec: &AttentionSpec, q: &Tensor, position: usize, cache: &KvCache) -> candle_core::Result<Tensor> {
    let from = spec.window.map_or(0, |w| (position + 1).saturating_sub(w));
    let softmax = softmax(spec, 1, position, from);
    cache.attend(q, from..position + 1, |scores| softmax.row(0, scores))
}

/// What turns the scores of `queries` queries, of which the first is at position `first`, against keys from position `from` on
/// into weights.
fn softmax(spec: &AttentionSpec, queries: usize, first: usize, from: usize) -> MaskedSoftmax {
    let &AttentionSpec { scale, soft_cap, causal, window, .. } = spec;
    MaskedSoftmax { scale, soft_cap, queries, first: first as isize - from as isize, causal, window }
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
        let softmax = softmax(spec, n, first + start, from);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CacheType;
    use crate::spec::MapSpec;
    use candle_core::Device;

    fn spec(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionSpec {
        let map = |inputs, outputs| MapSpec {
            tensor: "w".into(),
            bias: None,
            inputs,
            outputs,
            inputs_first: false,
        };
        AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            qkv: QkvSpec::Blocks(map(8, (heads + 2 * kv_heads) * head_dim)),
            out: map(heads * head_dim, 8),
            head_norms: None,
            rotary: None,
            scale: 0.3,
            soft_cap: None,
            window: None,
            causal: true,
        }
    }

    #[test]
    fn a_single_token_sees_the_same_straight_from_the_cache() {
        // Two queries a head, a width that is no multiple of anything, and more positions than are read at once.
        let (heads, kv, width, length) = (4, 2, 19, 37);
        let values = |n: usize, seed: usize| -> Vec<f32> {
            (0..n).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect()
        };
        let tensor = |heads: usize, tokens: usize, seed| {
            Tensor::from_vec(values(heads * tokens * width, seed), (heads, tokens, width), &Device::Cpu)
                .unwrap()
        };
        for kind in [CacheType::F32, CacheType::F16, CacheType::Q8] {
            let mut cache = KvCache::new(kind, kv, width, 40).unwrap();
            cache.append(&tensor(kv, length, 1), &tensor(kv, length, 2)).unwrap();
            for (window, soft_cap) in [(None, None), (Some(7), Some(0.5))] {
                let spec = AttentionSpec { window, soft_cap, ..spec(heads, kv, width) };
                let q = tensor(heads, 1, 3);
                let read = |from, to| cache.read(from, to);
                let expected = queries(&spec, &q, length - 1, false, read).unwrap();
                let found = step(&spec, &q, length - 1, &cache).unwrap();
                assert_eq!(found.dims(), expected.dims());
                let off = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                assert!(off.to_scalar::<f32>().unwrap() < 1e-5, "{kind:?}, window {window:?}");
            }
        }
    }
}
