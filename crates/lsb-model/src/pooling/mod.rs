//! Sentence embeddings: one vector for each text, from the hidden states of its tokens.

#[cfg(test)]
mod tests;

use crate::fields::Fields;
use crate::{Batch, Error, ModelRunner, NoTap, Result};
use candle_core::Tensor;
use lsb_format::Error as InputError;
use serde::Serialize;
use std::ops::Range;
use std::path::Path;

/// How hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pooling {
    /// Which of them are used.
    pub kind: PoolingKind,
    /// Whether the vector is divided by its length.
    pub normalize: bool,
}

/// Which hidden states are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolingKind {
    /// The mean over all tokens, special ones included.
    Mean,
    /// The first token's.
    First,
}

impl Default for Pooling {
    fn default() -> Self {
        Pooling { kind: PoolingKind::Mean, normalize: true }
    }
}

impl Pooling {
    /// What a model's folder says in the files of sentence-transformers (`1_Pooling/config.json`, `modules.json`);
    /// the mean, normalized, where there are none.
    ///
    /// # Errors
    /// If a file is there and cannot be used, or asks for a kind of pooling that is not known.
    pub fn open(folder: &Path) -> Result<Pooling> {
        let mut pooling = Pooling::default();
        if let Some(modules) = read(folder, "modules.json")? {
            let types = modules.as_array().into_iter().flatten().filter_map(|m| m.get("type")?.as_str());
            pooling.normalize = types.into_iter().any(|t| t.ends_with(".Normalize"));
        }
        let Some(config) = read(folder, "1_Pooling/config.json")? else { return Ok(pooling) };
        let empty = serde_json::Map::new();
        let fields = Fields(config.as_object().unwrap_or(&empty));
        let set = |name: &'static str| -> Result<bool> {
            let flag = fields.flag(&[name]).map_err(|e| e.in_file("1_Pooling/config.json"))?;
            Ok(flag.is_some_and(|(_, set)| set))
        };
        let others = ["pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens"];
        pooling.kind = match (set("pooling_mode_mean_tokens")?, set("pooling_mode_cls_token")?) {
            (true, false) => PoolingKind::Mean,
            (false, true) => PoolingKind::First,
            _ => return Err(unknown()),
        };
        for other in others {
            if set(other)? {
                return Err(unknown());
            }
        }
        Ok(pooling)
    }

    /// The vector of hidden states `x`, [tokens, hidden].
    fn apply(self, x: &Tensor) -> Result<Vec<f32>> {
        let pooled = || match self.kind {
            PoolingKind::Mean => x.mean(0),
            PoolingKind::First => x.get(0),
        };
        let mut vector = pooled().and_then(|v| v.to_vec1::<f32>()).map_err(Error::compute("pooling"))?;
        if self.normalize {
            let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
            vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        }
        Ok(vector)
    }
}

fn unknown() -> Error {
    InputError::argument("only pooling by the mean or by the first token is known")
        .in_file("1_Pooling/config.json")
        .into()
}

/// A JSON file of the folder, if it is there. It is small: more than 1 MB is not read.
fn read(folder: &Path, name: &str) -> Result<Option<serde_json::Value>> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let bad = |e: String| InputError::argument(e).in_file(name);
    let size = std::fs::metadata(&path).map_err(|e| bad(e.to_string()))?.len();
    if size > 1 << 20 {
        return Err(bad(format!("{size} bytes are too many for this file")).into());
    }
    let bytes = std::fs::read(&path).map_err(|e| bad(e.to_string()))?;
    Ok(Some(serde_json::from_slice(&bytes).map_err(|e| bad(format!("not readable as JSON: {e}")))?))
}

impl ModelRunner {
    /// One vector for each text, given as token ids with the special ones.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, a text has no tokens or too many, or weights cannot be read.
    pub fn embeddings(&self, texts: &[Vec<u32>], pooling: Pooling) -> Result<Vec<Vec<f32>>> {
        // Before the work.
        check_lengths(texts.iter().map(Vec::len))?;
        let mut batch = self.batch(texts)?;
        batch.run(&mut NoTap)?;
        batch.pooled(pooling)
    }
}

impl Batch<'_> {
    /// One vector of `hidden` numbers for each window, in their order, from the hidden states behind the blocks that
    /// were run.
    ///
    /// # Errors
    /// If a window has no tokens, or is cut into several chunks, which happens with causal attention only; if hidden
    /// states cannot be read back.
    pub fn pooled(&mut self, pooling: Pooling) -> Result<Vec<Vec<f32>>> {
        let windows = self.windows().to_vec();
        check_lengths(windows.iter().map(Range::len))?;
        let mut vectors = Vec::with_capacity(windows.len());
        for (index, chunk) in self.chunks().into_iter().enumerate() {
            let x = self.output(index)?;
            for window in windows.iter().filter(|w| chunk.contains(&w.start)) {
                if window.end > chunk.end {
                    let message = format!("a text of {} tokens was cut into chunks", window.len());
                    return Err(InputError::argument(message).advise("use shorter texts").into());
                }
                let part = x.narrow(0, window.start - chunk.start, window.len());
                vectors.push(pooling.apply(&part.map_err(Error::compute("pooling"))?)?);
            }
        }
        Ok(vectors)
    }
}

fn check_lengths(lengths: impl IntoIterator<Item = usize>) -> Result<()> {
    match lengths.into_iter().position(|n| n == 0) {
        Some(empty) => Err(InputError::argument(format!("text {empty} has no tokens")).into()),
        None => Ok(()),
    }
}
