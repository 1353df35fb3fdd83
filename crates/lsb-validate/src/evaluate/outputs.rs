//! Outputs of layers and linear maps, beside those of the original.

use crate::activation::{SignalReport, SignalTable};
use candle_core::Tensor;
use lsb_model::spec::MapSpec;
use lsb_model::{Batch, Error, ModelRunner, Result, Tap};
use std::collections::HashMap;

fn values(x: &Tensor) -> Result<Vec<f32>> {
    let values = x.flatten_all().and_then(|x| x.to_vec1());
    values.map_err(|source| Error::Compute { what: "outputs".to_owned(), source })
}

/// Adds the residual streams behind layer `layer` of two models to `table`.
pub(super) fn compare_streams(
    table: &mut SignalTable,
    layer: usize,
    original: &mut Batch<'_>,
    other: &mut Batch<'_>,
) -> Result<()> {
    for chunk in 0..original.chunks().len() {
        table.observe(
            &format!("layer {layer}"),
            &values(&original.hidden(chunk)?)?,
            &values(&other.hidden(chunk)?)?,
        );
    }
    Ok(())
}

/// Gives the inputs of the original's maps to those of another model.
#[derive(Debug)]
pub(super) struct MapOutputs<'m> {
    other: &'m ModelRunner,
    tokens: usize,
    table: SignalTable,
    /// Tokens seen by each map.
    seen: HashMap<String, usize>,
}

impl<'m> MapOutputs<'m> {
    /// Compares the first `tokens` tokens of each map.
    pub(super) fn new(other: &'m ModelRunner, tokens: usize) -> Self {
        MapOutputs { other, tokens, table: SignalTable::default(), seen: HashMap::new() }
    }

    pub(super) fn finish(self) -> SignalReport {
        self.table.report()
    }
}

impl Tap for MapOutputs<'_> {
    fn linear(&mut self, _: usize, map: &MapSpec, x: &Tensor, y: &Tensor) -> Result<()> {
        let failed = || |source| Error::Compute { what: map.tensor.clone(), source };
        let seen = self.seen.entry(map.tensor.clone()).or_default();
        let rows = x.dim(0).map_err(failed())?.min(self.tokens.saturating_sub(*seen));
        if rows == 0 {
            return Ok(());
        }
        *seen += rows;
        let part = |t: &Tensor| t.narrow(0, 0, rows).and_then(|t| t.contiguous());
        let theirs = self.other.map(map)?.forward(&part(x).map_err(failed())?)?;
        self.table.observe(&map.tensor, &values(&part(y).map_err(failed())?)?, &values(&theirs)?);
        Ok(())
    }
}
