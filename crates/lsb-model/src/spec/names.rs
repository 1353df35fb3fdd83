//! Finds tensors by name, with or without the prefix their publisher chose.

use super::{MapSpec, NormSpec};
use crate::Result;
use lsb_format::Error;
use lsb_stream::{TensorFacts, WeightSource};
use std::collections::HashMap;

/// The tensors of a source by name.
pub(super) struct Names<'a> {
    facts: HashMap<&'a str, &'a TensorFacts>,
}

impl<'a> Names<'a> {
    pub(super) fn new(source: &'a dyn WeightSource) -> Self {
        Names { facts: source.tensors().iter().map(|t| (t.name.as_str(), t)).collect() }
    }

    /// The first of `prefixes` under which there is a tensor called `name`.
    pub(super) fn prefix(&self, prefixes: &[&str], name: &str) -> Result<String> {
        let found = prefixes.iter().find(|p| self.facts.contains_key(format!("{p}{name}").as_str()));
        found.map(|p| (*p).to_owned()).ok_or_else(|| missing(&format!("{}{name}", prefixes[0])).into())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.facts.contains_key(name)
    }

    /// `name`, once it is known to be there with that shape.
    pub(super) fn tensor(&self, name: String, shape: &[usize]) -> Result<String> {
        let facts = self.facts.get(name.as_str()).ok_or_else(|| missing(&name))?;
        let same = facts.shape.len() == shape.len()
            && facts.shape.iter().zip(shape).all(|(&have, &want)| have == want as u64);
        if !same || !facts.dtype.is_float() {
            let message = format!(
                "a forward pass needs a tensor of floats of shape {shape:?}; this is {} of shape {:?}",
                facts.dtype, facts.shape
            );
            return Err(Error::corruption("B75", message).in_tensor(&name).into());
        }
        Ok(name)
    }

    /// Rows of a matrix with `columns` columns, at least `rows`: embeddings are often padded.
    pub(super) fn rows(&self, name: &str, rows: usize, columns: usize) -> Result<usize> {
        let facts = self.facts.get(name).ok_or_else(|| missing(name))?;
        let found = facts.shape.first().map_or(0, |&n| usize::try_from(n).unwrap_or(0)).max(rows);
        self.tensor(name.to_owned(), &[found, columns])?;
        Ok(found)
    }

    /// The linear map `stem.weight`, with its bias where there is one.
    pub(super) fn map(
        &self,
        stem: &str,
        inputs: usize,
        outputs: usize,
        inputs_first: bool,
    ) -> Result<MapSpec> {
        let shape = if inputs_first { [inputs, outputs] } else { [outputs, inputs] };
        let tensor = self.tensor(format!("{stem}.weight"), &shape)?;
        let bias = format!("{stem}.bias");
        let bias = if self.has(&bias) { Some(self.tensor(bias, &[outputs])?) } else { None };
        Ok(MapSpec { tensor, bias, inputs, outputs, inputs_first })
    }

    /// A root-mean-square norm.
    pub(super) fn rms_norm(&self, stem: &str, width: usize, eps: f32, plus_one: bool) -> Result<NormSpec> {
        let weight = self.tensor(format!("{stem}.weight"), &[width])?;
        Ok(NormSpec { weight, bias: None, plus_one, eps })
    }

    /// A layer norm. Old files call its parts gamma and beta.
    pub(super) fn layer_norm(&self, stem: &str, width: usize, eps: f32) -> Result<NormSpec> {
        let old = self.has(&format!("{stem}.gamma"));
        let (weight, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        let weight = self.tensor(format!("{stem}.{weight}"), &[width])?;
        let bias = Some(self.tensor(format!("{stem}.{bias}"), &[width])?);
        Ok(NormSpec { weight, bias, plus_one: false, eps })
    }
}

fn missing(name: &str) -> Error {
    Error::corruption("B79", "the forward pass needs this tensor and it is missing")
        .in_tensor(name)
        .advise("the configuration and the weights are from different models, or shards are missing")
}
