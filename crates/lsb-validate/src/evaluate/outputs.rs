//! Outputs of layers and linear maps, beside those of the original.

use crate::metric::WeightError;
use candle_core::Tensor;
use lsb_model::spec::MapSpec;
use lsb_model::{Batch, Error, ModelRunner, Result, Tap};
use lsb_quant::Distortion;
use serde::Serialize;
use std::collections::HashMap;

/// How far outputs are from the original's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputError {
    /// The layer or the weights of the map.
    pub name: String,
    /// Values compared: tokens x outputs.
    pub values: u64,
    /// `10 log10(sum y² / sum (y - y')²)` in dB; infinite where equal, and then `null` in JSON.
    #[serde(serialize_with = "crate::metric::finite_or_null")]
    pub snr_db: f64,
    /// Pearson correlation; `None` where one side is constant.
    pub correlation: Option<f64>,
}

impl OutputError {
    fn new(name: String, sums: &Distortion) -> OutputError {
        let error = WeightError::from(sums);
        OutputError {
            name,
            values: sums.weights,
            snr_db: error.weight_snr_db,
            correlation: error.correlation,
        }
    }
}

fn values(x: &Tensor) -> Result<Vec<f32>> {
    let values = x.flatten_all().and_then(|x| x.to_vec1());
    values.map_err(|source| Error::Compute { what: "outputs".to_owned(), source })
}

/// The residual streams behind each layer.
#[derive(Debug, Default)]
pub(super) struct LayerOutputs(Vec<OutputError>);

impl LayerOutputs {
    pub(super) fn compare(&mut self, layer: usize, a: &mut Batch<'_>, b: &mut Batch<'_>) -> Result<()> {
        let mut sums = Distortion::default();
        for chunk in 0..a.chunks().len() {
            sums.merge(&Distortion::measure(&values(&a.hidden(chunk)?)?, &values(&b.hidden(chunk)?)?));
        }
        self.0.push(OutputError::new(format!("layer {layer}"), &sums));
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<OutputError> {
        self.0
    }
}

/// Gives the inputs of the original's maps to those of another model.
#[derive(Debug)]
pub(super) struct MapOutputs<'m> {
    other: &'m ModelRunner,
    tokens: usize,
    /// In the order they were first used.
    names: Vec<String>,
    /// Tokens seen, and sums.
    sums: HashMap<String, (usize, Distortion)>,
}

impl<'m> MapOutputs<'m> {
    /// Compares the first `tokens` tokens of each map.
    pub(super) fn new(other: &'m ModelRunner, tokens: usize) -> Self {
        MapOutputs { other, tokens, names: Vec::new(), sums: HashMap::new() }
    }

    pub(super) fn finish(self) -> Vec<OutputError> {
        let sums = &self.sums;
        let error = |name: String| sums.get(&name).map(|(_, sums)| OutputError::new(name, sums));
        self.names.into_iter().filter_map(error).collect()
    }
}

impl Tap for MapOutputs<'_> {
    fn linear(&mut self, _: usize, map: &MapSpec, x: &Tensor, y: &Tensor) -> Result<()> {
        let failed = || |source| Error::Compute { what: map.tensor.clone(), source };
        if !self.sums.contains_key(&map.tensor) {
            self.names.push(map.tensor.clone());
        }
        let (seen, sums) = self.sums.entry(map.tensor.clone()).or_default();
        let rows = x.dim(0).map_err(failed())?.min(self.tokens.saturating_sub(*seen));
        if rows == 0 {
            return Ok(());
        }
        let part = |t: &Tensor| t.narrow(0, 0, rows).and_then(|t| t.contiguous());
        let theirs = self.other.map(map)?.forward(&part(x).map_err(failed())?)?;
        sums.merge(&Distortion::measure(&values(&part(y).map_err(failed())?)?, &values(&theirs)?));
        *seen += rows;
        Ok(())
    }
}
