//! Outputs of layers and linear maps, beside those of the original.

use crate::activation::{SignalReport, SignalTable};
use candle_core::Tensor;
use lsb_model::spec::MapSpec;
use lsb_model::{Batch, Error, ModelRunner, NoTap, Result, Tap};
use std::collections::HashMap;

fn values(x: &Tensor) -> Result<Vec<f32>> {
    let values = x.flatten_all().and_then(|x| x.to_vec1());
    values.map_err(|source| Error::Compute { what: "outputs".to_owned(), source })
}

/// Outputs of all layers and linear maps of a model and its original, while the two go through a text.
#[derive(Debug)]
pub(super) struct Outputs<'m> {
    layers: SignalTable,
    maps: MapOutputs<'m>,
    /// Tokens of the batches that were run.
    tokens: usize,
}

impl<'m> Outputs<'m> {
    /// Those of `model`; of linear maps for the first `map_tokens` tokens.
    pub(super) fn new(model: &'m ModelRunner, map_tokens: usize) -> Self {
        Outputs { layers: SignalTable::default(), maps: MapOutputs::new(model, map_tokens), tokens: 0 }
    }

    /// Runs two batches of the same windows and chunks to their ends, a block of each at a time, and compares what
    /// comes out. Calls `done` after each block.
    pub(super) fn run(
        &mut self,
        original: &mut Batch<'_>,
        other: &mut Batch<'_>,
        mut done: impl FnMut(),
    ) -> Result<()> {
        let blocks: Vec<usize> = original.model().spec().blocks.iter().map(|block| block.layer).collect();
        let maps = self.tokens < self.maps.tokens;
        for (index, &layer) in blocks.iter().enumerate() {
            if maps {
                self.maps.other.keep_maps();
                original.step(&mut self.maps)?;
            } else {
                original.step(&mut NoTap)?;
            }
            other.step(&mut NoTap)?;
            if blocks.get(index + 1) != Some(&layer) {
                compare_streams(&mut self.layers, layer, original, other)?;
            }
            done();
        }
        self.tokens += original.windows().last().map_or(0, |window| window.end);
        Ok(())
    }

    /// The figures of layers and of linear maps.
    pub(super) fn finish(self) -> [SignalReport; 2] {
        [self.layers.report(), self.maps.table.report()]
    }
}

/// Adds the residual streams behind layer `layer` of two models to `table`.
fn compare_streams(
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
struct MapOutputs<'m> {
    other: &'m ModelRunner,
    tokens: usize,
    table: SignalTable,
    /// Tokens seen by each map.
    seen: HashMap<String, usize>,
}

impl<'m> MapOutputs<'m> {
    /// Compares the first `tokens` tokens of each map.
    fn new(other: &'m ModelRunner, tokens: usize) -> Self {
        MapOutputs { other, tokens, table: SignalTable::default(), seen: HashMap::new() }
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
