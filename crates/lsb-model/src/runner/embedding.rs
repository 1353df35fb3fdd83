//! From token ids to the residual stream.

use crate::Result;
use crate::block::normalize;
use crate::error::Error;
use crate::runner::ModelRunner;
use candle_core::{Device, Tensor};

impl ModelRunner {
    /// The residual stream of tokens with these ids and positions, [tokens, hidden].
    pub(super) fn embed(&self, ids: &[u32], positions: &[usize]) -> Result<Tensor> {
        let (spec, hidden) = (&self.spec.embedding, self.spec.hidden);
        let rows: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let mut x = self.weights.rows(&spec.tokens, &rows, hidden)?;
        if spec.scale != 1.0 {
            let scale = spec.scale as f32;
            x.iter_mut().for_each(|x| *x *= scale);
        }
        if let Some(name) = &spec.positions {
            let rows = self.weights.rows(name, positions, hidden)?;
            x.iter_mut().zip(rows).for_each(|(x, p)| *x += p);
        }
        if let Some(name) = &spec.token_types {
            let row = self.weights.rows(name, &[0], hidden)?;
            x.chunks_mut(hidden).for_each(|x| x.iter_mut().zip(&row).for_each(|(x, t)| *x += t));
        }
        let x =
            Tensor::from_vec(x, (ids.len(), hidden), &Device::Cpu).map_err(Error::compute("embedding"))?;
        match &spec.norm {
            Some(norm) => normalize(norm, &x, &self.weights),
            None => Ok(x),
        }
    }

    /// Checks that there is an embedding for every id and every position below `length`.
    pub(super) fn check_ids(&self, ids: &[u32], length: usize) -> Result<()> {
        let vocab = self.spec.vocab;
        if let Some((at, id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= vocab) {
            let message = format!("token {at} has id {id} and the model's vocabulary has {vocab} ids");
            return Err(lsb_format::Error::argument(message)
                .advise("use the tokenizer that was published with this model")
                .into());
        }
        if self.spec.embedding.positions.is_some()
            && let Some(context) = self.spec.context
            && length > context
        {
            let message = format!("{length} tokens, and the model has embeddings for {context} positions");
            return Err(lsb_format::Error::argument(message).advise("use shorter windows").into());
        }
        Ok(())
    }
}
