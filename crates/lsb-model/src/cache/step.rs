//! Attention of a single token, straight from the cache: keys and values become f32 a few at a time, and are never all
//! written out.

use super::{Half, KvCache};
use candle_core::{CpuStorage, Storage, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use std::ops::Range;

/// Positions that become f32 together.
const BLOCK: usize = 16;

/// Sums side by side in a product of two vectors: their order does not depend on the processor.
const LANES: usize = 16;

impl KvCache {
    /// The queries `q`, [heads, 1, width], of one token against keys and values at `positions`: [1, heads x width]. `softmax`
    /// turns the scores of one query into weights.
    pub(crate) fn attend(
        &self,
        q: &Tensor,
        positions: Range<usize>,
        softmax: impl Fn(&mut [f32]) + Sync,
    ) -> candle_core::Result<Tensor> {
        if positions.end > self.length {
            candle_core::bail!("positions {positions:?} of {} in the cache", self.length);
        }
        let (heads, _, width) = q.dims3()?;
        let (kv_heads, capacity, _) = self.keys.levels.dims3()?;
        let q = q.flatten_all()?.to_vec1::<f32>()?;
        let mut mixed = vec![0.0; heads * width];
        let per_kv_head = heads / kv_heads.max(1) * width;
        self.keys.with_rows(|keys| {
            self.values.with_rows(|values| {
                let parts = mixed.par_chunks_mut(per_kv_head.max(1)).zip(q.par_chunks(per_kv_head.max(1)));
                parts.enumerate().for_each_init(Vec::new, |scores, (head, (mixed, q))| {
                    let rows = head * capacity + positions.start..head * capacity + positions.end;
                    Head { keys, values, rows, width }.mix(q, &softmax, mixed, scores);
                });
            })
        })??;
        Tensor::from_vec(mixed, (1, heads * width), self.keys.levels.device())
    }
}

/// Keys and values of one head: `rows` of all of them, which are `width` wide.
struct Head<'a> {
    keys: Rows<'a>,
    values: Rows<'a>,
    rows: Range<usize>,
    width: usize,
}

impl Head<'_> {
    /// Adds to `mixed`, for each query of `q`, the values in the proportions that its scores come to.
    fn mix(&self, q: &[f32], softmax: impl Fn(&mut [f32]), mixed: &mut [f32], scratch: &mut Vec<f32>) {
        let Head { keys, values, rows, width } = self;
        let width = *width;
        let (queries, seen) = (q.len() / width, rows.len());
        scratch.clear();
        scratch.resize(queries * seen + BLOCK * width, 0.0);
        let (scores, block) = scratch.split_at_mut(queries * seen);
        for first in (0..seen).step_by(BLOCK) {
            let n = BLOCK.min(seen - first);
            let block = &mut block[..n * width];
            keys.read(rows.start + first, width, block);
            for (q, scores) in q.chunks(width).zip(scores.chunks_mut(seen)) {
                for (score, key) in scores[first..first + n].iter_mut().zip(block.chunks(width)) {
                    *score = dot(q, key);
                }
            }
        }
        scores.chunks_mut(seen).for_each(softmax);
        for first in (0..seen).step_by(BLOCK) {
            let n = BLOCK.min(seen - first);
            let block = &mut block[..n * width];
            values.read(rows.start + first, width, block);
            for (mixed, weights) in mixed.chunks_mut(width).zip(scores.chunks(seen)) {
                for (weight, value) in weights[first..first + n].iter().zip(block.chunks(width)) {
                    mixed.iter_mut().zip(value).for_each(|(mixed, value)| *mixed += weight * value);
                }
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Keys or values as they are kept: rows of one width, those of a head one behind the other.
#[derive(Clone, Copy)]
enum Rows<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    /// Levels, and what a level of each row is worth.
    Q8(&'a [u8], &'a [f32]),
}

impl Rows<'_> {
    /// As many rows as `out` holds, from row `first` on.
    fn read(self, first: usize, width: usize, out: &mut [f32]) {
        let range = first * width..first * width + out.len();
        match self {
            Rows::F32(rows) => out.copy_from_slice(&rows[range]),
            Rows::F16(rows) => rows[range].convert_to_f32_slice(out),
            Rows::Q8(levels, scales) => {
                let rows = out.chunks_mut(width).zip(levels[range].chunks(width));
                for ((out, levels), scale) in rows.zip(&scales[first..]) {
                    out.iter_mut()
                        .zip(levels)
                        .for_each(|(x, level)| *x = (f32::from(*level) - 128.0) * scale);
                }
            }
        }
    }
}

impl Half {
    /// Shows all rows to `work`.
    fn with_rows<R>(&self, work: impl FnOnce(Rows<'_>) -> R) -> candle_core::Result<R> {
        let (levels, layout) = self.levels.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("the cache is in one piece");
        };
        match (&*levels, &self.scales) {
            (Storage::Cpu(CpuStorage::F32(rows)), None) => Ok(work(Rows::F32(&rows[start..end]))),
            (Storage::Cpu(CpuStorage::F16(rows)), None) => Ok(work(Rows::F16(&rows[start..end]))),
            (Storage::Cpu(CpuStorage::U8(levels)), Some(scales)) => {
                let (scales, layout) = scales.storage_and_layout();
                match (&*scales, layout.contiguous_offsets()) {
                    (Storage::Cpu(CpuStorage::F32(scales)), Some((first, last))) => {
                        Ok(work(Rows::Q8(&levels[start..end], &scales[first..last])))
                    }
                    _ => candle_core::bail!("scales of the cache are f32 in one piece"),
                }
            }
            _ => candle_core::bail!("a cache of another type"),
        }
    }
}
