//! The original model beside the compressed one, on the same text: what its maps are fed with.

use super::stages::Stage;
use crate::runner::{Batch, Sibling};
use crate::spec::MapSpec;
use crate::tap::{NoTap, Tap};
use crate::{Error, ModelRunner, Result};
use candle_core::{Tensor, TensorId};
use lsb_stream::{ActivationStore, Budget};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Inputs of the original's maps by tensor, chunk by chunk of the batch they came from. Maps that share an input share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Originals {
    stores: HashMap<String, Arc<ActivationStore>>,
}

impl Originals {
    /// The inputs of the map of tensor `tensor`.
    pub(super) fn of(&self, tensor: &str) -> Option<&Arc<ActivationStore>> {
        self.stores.get(tensor)
    }

    #[cfg(test)]
    pub(super) fn for_tests(tensor: &str, store: ActivationStore) -> Self {
        Originals { stores: HashMap::from([(tensor.to_owned(), Arc::new(store))]) }
    }
}

/// The original on its way through its blocks.
#[derive(Debug)]
pub(super) struct Original {
    stream: Sibling,
    /// Inputs of the maps of the block it has run last, and the number of that.
    inputs: Option<(usize, Originals)>,
}

impl Original {
    /// Beside `batch`, which has not begun.
    pub(super) fn new(
        batch: &mut Batch<'static>,
        model: Arc<ModelRunner>,
        windows: &[Vec<u32>],
    ) -> Result<Self> {
        Ok(Original { stream: batch.sibling(model, windows)?, inputs: None })
    }

    /// What the maps of `stages`, those of block `block`, are fed with. Blocks come in order; those between are run.
    ///
    /// # Errors
    /// If weights cannot be read or inputs cannot be kept.
    pub(super) fn inputs(
        &mut self,
        batch: &mut Batch<'static>,
        block: usize,
        stages: &[Stage<'_>],
    ) -> Result<Originals> {
        if let Some((_, inputs)) = self.inputs.as_ref().filter(|(at, _)| *at == block) {
            return Ok(inputs.clone());
        }
        self.inputs = None;
        let mut keep = Keep::new(batch, stages);
        batch.exchange(&mut self.stream);
        let done = (|| -> Result<()> {
            while batch.next_block() < block {
                batch.step(&mut NoTap)?;
            }
            batch.step(&mut keep).map(|_| ())
        })();
        batch.exchange(&mut self.stream);
        done?;
        let inputs = keep.finish();
        self.inputs = Some((block, inputs.clone()));
        Ok(inputs)
    }

    /// What `head` is fed with.
    ///
    /// # Errors
    /// As [`Original::inputs`].
    pub(super) fn head(&mut self, batch: &mut Batch<'static>, head: &MapSpec) -> Result<Originals> {
        self.inputs = None;
        let mut keep = Keep::new(batch, &[Stage::alone(vec![head])]);
        batch.exchange(&mut self.stream);
        let done = (|| -> Result<()> {
            batch.run(&mut NoTap)?;
            (0..keep.tokens.len()).try_for_each(|i| {
                let x = batch.output(i)?;
                keep.take(head, &x)
            })
        })();
        batch.exchange(&mut self.stream);
        done.map(|()| keep.finish())
    }
}

/// Keeps the inputs of maps that see every token.
struct Keep {
    /// Tensors whose inputs are kept.
    wanted: Vec<String>,
    /// Tokens of each chunk.
    tokens: Vec<usize>,
    spill: Option<PathBuf>,
    /// Stores, the map that fills each, and how many chunks it has filled.
    stores: Vec<(Arc<ActivationStore>, String, usize)>,
    of: HashMap<String, usize>,
    /// The input that was seen last, and its store.
    last: Option<(TensorId, usize)>,
}

impl Keep {
    fn new(batch: &Batch<'_>, stages: &[Stage<'_>]) -> Keep {
        // An expert of the original sees other tokens than the same expert of the compressed model.
        let everywhere = stages.iter().filter(|s| s.per_token.is_none());
        Keep {
            wanted: everywhere.flat_map(Stage::every_map).map(|m| m.tensor.clone()).collect(),
            tokens: batch.chunks().iter().map(|c| c.len()).collect(),
            spill: batch.model().spill().map(std::borrow::ToOwned::to_owned),
            stores: Vec::new(),
            of: HashMap::new(),
            last: None,
        }
    }

    fn take(&mut self, map: &MapSpec, x: &Tensor) -> Result<()> {
        if !self.of.contains_key(&map.tensor) {
            let shared = self.last.filter(|(id, _)| *id == x.id()).map(|(_, at)| at);
            let at = match shared {
                Some(at) => at,
                None => {
                    let slots = self.tokens.iter().map(|t| t * map.inputs).collect();
                    // No budget of its own: it goes to a file.
                    let store = ActivationStore::new(&Budget::new(0), slots, self.spill.as_deref())?;
                    self.stores.push((Arc::new(store), map.tensor.clone(), 0));
                    self.stores.len() - 1
                }
            };
            self.of.insert(map.tensor.clone(), at);
        }
        let at = self.of[&map.tensor];
        self.last = Some((x.id(), at));
        let (store, leader, filled) = &mut self.stores[at];
        if *leader == map.tensor {
            let values = x.flatten_all().and_then(|x| x.to_vec1::<f32>());
            store.put(*filled, &values.map_err(Error::compute(&map.tensor))?)?;
            *filled += 1;
        }
        Ok(())
    }

    fn finish(self) -> Originals {
        let store = |(tensor, at): (String, usize)| (tensor, Arc::clone(&self.stores[at].0));
        Originals { stores: self.of.into_iter().map(store).collect() }
    }
}

impl Tap for Keep {
    fn input(&mut self, _: usize, map: &MapSpec, x: &Tensor) -> Result<bool> {
        if self.wanted.contains(&map.tensor) {
            self.take(map, x)?;
        }
        Ok(true)
    }
}
