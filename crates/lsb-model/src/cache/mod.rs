//! Keys and values of the tokens seen so far.

mod step;

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// 4 bytes each, without loss.
    F32,
    /// 2 bytes each.
    #[default]
    F16,
    /// 1 byte each and 4 bytes for each head and token: levels of the largest magnitude / 127.
    Q8,
}

impl CacheType {
    /// Bytes of keys and values of `tokens` tokens in one layer.
    pub fn bytes(self, kv_heads: usize, head_dim: usize, tokens: usize) -> u64 {
        let head = match self {
            CacheType::F32 => 4 * head_dim,
            CacheType::F16 => 2 * head_dim,
            CacheType::Q8 => head_dim + 4,
        };
        2 * (head * kv_heads * tokens) as u64
    }

    /// How many times the keys, or the values, of a layer lie in memory in f32 while both are read.
    pub(crate) fn copies(self) -> usize {
        match self {
            CacheType::F32 => 0,
            CacheType::F16 => 2,
            // Those read second, and a step on the way to them.
            CacheType::Q8 => 3,
        }
    }
}

/// Keys and values of one sequence in one layer, for a number of tokens fixed beforehand.
#[derive(Debug)]
pub(crate) struct KvCache {
    keys: Half,
    values: Half,
    length: usize,
}

/// Keys, or values: [kv heads, capacity, width].
#[derive(Debug)]
struct Half {
    levels: Tensor,
    /// For [`CacheType::Q8`], what a level is worth: [kv heads, capacity, 1].
    scales: Option<Tensor>,
}

impl KvCache {
    pub(crate) fn new(kind: CacheType, kv_heads: usize, head_dim: usize, capacity: usize) -> Result<KvCache> {
        let half = || -> candle_core::Result<Half> {
            let zeros = |width, dtype| Tensor::zeros((kv_heads, capacity, width), dtype, &Device::Cpu);
            Ok(match kind {
                CacheType::F32 => Half { levels: zeros(head_dim, DType::F32)?, scales: None },
                CacheType::F16 => Half { levels: zeros(head_dim, DType::F16)?, scales: None },
                CacheType::Q8 => {
                    Half { levels: zeros(head_dim, DType::U8)?, scales: Some(zeros(1, DType::F32)?) }
                }
            })
        };
        let failed = || Error::compute("cache of keys and values");
        Ok(KvCache { keys: half().map_err(failed())?, values: half().map_err(failed())?, length: 0 })
    }

    /// Forgets all tokens but the first `length`.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Adds keys and values of more tokens, each [kv heads, tokens, width].
    pub(crate) fn append(&mut self, keys: &Tensor, values: &Tensor) -> candle_core::Result<()> {
        self.keys.append(keys, self.length)?;
        self.values.append(values, self.length)?;
        self.length += keys.dim(1)?;
        Ok(())
    }

    /// Keys and values of the tokens at positions `from..to`, as f32.
    pub(crate) fn read(&self, from: usize, to: usize) -> candle_core::Result<(Tensor, Tensor)> {
        if to > self.length {
            candle_core::bail!("positions {from}..{to} of {} in the cache", self.length);
        }
        Ok((self.keys.read(from, to)?, self.values.read(from, to)?))
    }
}

impl Half {
    fn append(&self, x: &Tensor, at: usize) -> candle_core::Result<()> {
        let Some(scales) = &self.scales else {
            return self.levels.slice_set(&x.to_dtype(self.levels.dtype())?.contiguous()?, 1, at);
        };
        let scale = (x.abs()?.max_keepdim(2)? / 127.0)?;
        // A head of zeros has level 0 whatever its scale.
        let divisor = scale.maximum(f32::MIN_POSITIVE)?;
        let levels = (x.broadcast_div(&divisor)?.round()? + 128.0)?.to_dtype(DType::U8)?;
        scales.slice_set(&scale.contiguous()?, 1, at)?;
        self.levels.slice_set(&levels.contiguous()?, 1, at)
    }

    fn read(&self, from: usize, to: usize) -> candle_core::Result<Tensor> {
        let levels = self.levels.narrow(1, from, to - from)?;
        match &self.scales {
            Some(scales) => {
                let levels = (levels.to_dtype(DType::F32)? - 128.0)?;
                levels.broadcast_mul(&scales.narrow(1, from, to - from)?)
            }
            None if levels.dtype() == DType::F32 => Ok(levels),
            None => levels.to_dtype(DType::F32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_gives_back_what_it_took_within_its_precision() {
        let values: Vec<f32> = (0..2 * 5 * 8).map(|i| ((i * 37 % 101) as f32 - 50.0) / 10.0).collect();
        let x = Tensor::from_vec(values, (2, 5, 8), &Device::Cpu).unwrap();
        for (kind, tolerance) in [(CacheType::F32, 0.0), (CacheType::F16, 0.003), (CacheType::Q8, 0.021)] {
            let mut cache = KvCache::new(kind, 2, 8, 7).unwrap();
            cache
                .append(
                    &x.narrow(1, 0, 3).unwrap().contiguous().unwrap(),
                    &x.narrow(1, 0, 3).unwrap().contiguous().unwrap(),
                )
                .unwrap();
            cache
                .append(
                    &x.narrow(1, 3, 2).unwrap().contiguous().unwrap(),
                    &x.narrow(1, 3, 2).unwrap().contiguous().unwrap(),
                )
                .unwrap();
            let (keys, values) = cache.read(1, 5).unwrap();
            let expected = x.narrow(1, 1, 4).unwrap();
            for got in [keys, values] {
                let error = (got - &expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                assert!(error.to_scalar::<f32>().unwrap() <= tolerance, "{kind:?}");
            }
            assert!(cache.read(0, 6).is_err());
            cache.truncate(0);
            assert!(cache.read(0, 1).is_err());
        }
    }
}
