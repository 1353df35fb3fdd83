//! From the residual stream to logits, a part of the vocabulary at a time.

use super::{Batch, ModelRunner};
use crate::block::normalize;
use crate::spec::{HeadSpec, MapSpec};
use crate::{Error, Linear, Result};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;

/// The head of a model: a linear map from hidden states to logits.
#[derive(Debug)]
pub struct Head<'m> {
    model: &'m ModelRunner,
    spec: &'m HeadSpec,
    map: Arc<dyn Linear>,
}

/// Some rows of a head, to be used for many tokens.
#[derive(Debug)]
pub struct HeadTile<'h> {
    spec: &'h HeadSpec,
    map: Arc<dyn Linear>,
    /// The ids of the tokens.
    ids: Range<usize>,
    /// Their rows in the map.
    rows: Range<usize>,
}

/// Weights of a tile of the head, where the rows allow it.
const TILE_WEIGHTS: usize = 1 << 22;

/// Rows of a tile at most: the logits of a chunk of tokens lie in memory at once.
const TILE_ROWS: usize = 1 << 12;

impl ModelRunner {
    /// The head.
    ///
    /// # Errors
    /// If the model is an encoder, or the weights cannot be read.
    pub fn head(&self) -> Result<Head<'_>> {
        let Some(spec) = &self.spec.head else {
            return Err(lsb_format::Error::argument("an encoder has no logits")
                .advise("its embeddings are what `lsb embed` prints")
                .into());
        };
        Ok(Head { model: self, spec, map: self.weights.map(&spec.map)? })
    }

    /// Number of logits: rows of the head, 0 for an encoder.
    pub fn logits(&self) -> usize {
        self.spec.head.as_ref().map_or(0, |h| h.map.outputs)
    }

    /// The last norm.
    pub(super) fn last_norm(&self, x: Tensor) -> Result<Tensor> {
        match &self.spec.norm {
            Some(norm) => normalize(norm, &x, &self.weights),
            None => Ok(x),
        }
    }
}

impl<'m> Head<'m> {
    /// The vocabulary in parts for [`Head::tile`].
    pub fn tiles(&self) -> Vec<Range<usize>> {
        let all = self.spec.map.outputs;
        let rows = (TILE_WEIGHTS / self.spec.map.inputs.max(1)).clamp(1, TILE_ROWS);
        (0..all).step_by(rows).map(|first| first..(first + rows).min(all)).collect()
    }

    /// Logits of the tokens with ids `ids`, for many calls: their weights are decoded once where the budget has
    /// room for them.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn tile(&self, ids: Range<usize>) -> Result<HeadTile<'m>> {
        let dense = self.model.weights.decoded_rows(&self.spec.map, ids.clone())?;
        let (map, rows) = match dense {
            Some(map) => (map, 0..ids.len()),
            None => (Arc::clone(&self.map), ids.clone()),
        };
        Ok(HeadTile { spec: self.spec, map, ids, rows })
    }

    /// The linear map.
    pub(crate) fn map_spec(&self) -> &'m MapSpec {
        &self.spec.map
    }

    /// What logits are capped by.
    pub(crate) fn soft_cap(&self) -> Option<f32> {
        self.spec.soft_cap
    }

    /// Outputs of the linear map, [tokens, vocabulary]: logits before their cap.
    pub(crate) fn outputs(&self, x: &Tensor) -> Result<Tensor> {
        self.map.forward(x)
    }

    /// Logits of what [`Head::outputs`] returned.
    pub(crate) fn capped(&self, outputs: Tensor) -> Result<Tensor> {
        cap(outputs, self.spec)
    }

    /// Gradients at the hidden states for gradients at the outputs of the map.
    pub(crate) fn backward(&self, gradient: &Tensor) -> Result<Tensor> {
        self.map.backward(gradient)
    }

    /// All logits, [tokens, vocabulary], of hidden states [tokens, hidden] behind the last norm.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        cap(self.map.forward(x)?, self.spec)
    }

    /// The same in a step of generation: see [`Linear::forward_step`].
    pub(crate) fn step_logits(&self, x: &Tensor) -> Result<Tensor> {
        cap(self.map.forward_step(x)?, self.spec)
    }
}

impl HeadTile<'_> {
    /// Logits, [tokens, ids], of hidden states [tokens, hidden] behind the last norm.
    ///
    /// # Errors
    /// If the weights cannot be read.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        cap(self.map.forward_rows(x, self.rows.clone())?, self.spec)
    }

    /// The ids of the tokens.
    pub fn ids(&self) -> Range<usize> {
        self.ids.clone()
    }
}

fn cap(logits: Tensor, spec: &HeadSpec) -> Result<Tensor> {
    let Some(cap) = spec.soft_cap.map(f64::from) else { return Ok(logits) };
    let capped = (logits / cap).and_then(|y| y.tanh()).and_then(|y| y * cap);
    capped.map_err(Error::compute("logits"))
}

impl Batch<'_> {
    /// The hidden states of chunk `index` behind the last norm, [tokens, hidden].
    ///
    /// # Errors
    /// If they cannot be read back.
    pub fn output(&mut self, index: usize) -> Result<Tensor> {
        let x = self.hidden(index)?;
        self.model().last_norm(x)
    }
}
