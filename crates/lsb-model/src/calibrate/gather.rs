//! Gathers the inputs of the maps of a block.

use super::moments::{InputMoments, Kept, add_products};
use crate::sensitivity::not_finite;
use crate::spec::MapSpec;
use crate::tap::Tap;
use crate::{Error, Result};
use candle_core::{Tensor, TensorId};
use lsb_stream::{ActivationStore, Budget};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Where inputs go, and how large blocks of moments may be.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) budget: Budget,
    pub(super) spill: Option<PathBuf>,
    /// Bytes that moments and their factor may take together.
    pub(super) factor_bytes: u64,
    /// Tokens of each chunk.
    pub(super) chunks: Vec<usize>,
}

/// Inputs of a block, of `n` in all, whose moments and factor fit into `bytes`: a block's moments are 4 bytes per entry and
/// the matrix that is factored 8, beside the factors of all blocks, 4.
pub(super) fn block_limit(n: usize, bytes: u64) -> usize {
    let (n, bytes) = (n as f64, bytes as f64);
    let limit = ((16.0 * n * n + 48.0 * bytes).sqrt() - 4.0 * n) / 24.0;
    limit.max(32.0) as usize
}

/// Sees the inputs of maps of a block.
pub(super) struct Gather<'a> {
    place: &'a Place,
    /// Whether sums of products are kept rather than inputs.
    in_memory: bool,
    /// Tensors whose inputs are gathered.
    wanted: HashSet<String>,
    groups: Vec<Group>,
    /// The group of each tensor.
    of: HashMap<String, usize>,
    /// The input that was seen last, and its group.
    last: Option<(TensorId, usize)>,
}

struct Group {
    /// The map by which the others are recognised.
    leader: String,
    inputs: usize,
    tokens: usize,
    squares: Vec<f64>,
    kept: Kept,
    /// Tokens of each slot that was filled.
    filled: Vec<usize>,
}

impl<'a> Gather<'a> {
    pub(super) fn new(place: &'a Place, maps: &[&MapSpec]) -> Self {
        // Maps that share an input are counted more than once: never too little.
        let bytes: u64 = maps.iter().map(|m| 4 * (m.inputs * m.inputs) as u64).sum();
        let widest = maps.iter().map(|m| 4 * (m.inputs * m.inputs) as u64).max().unwrap_or(0);
        let free = place.budget.limit() - place.budget.used();
        let in_memory = bytes + 2 * widest < free / 2;
        let wanted = maps.iter().map(|m| m.tensor.clone()).collect();
        Gather { place, in_memory, wanted, groups: Vec::new(), of: HashMap::new(), last: None }
    }

    /// What was seen of every map, by tensor.
    pub(super) fn finish(self) -> HashMap<String, Arc<InputMoments>> {
        let groups: Vec<Arc<InputMoments>> = self
            .groups
            .into_iter()
            .map(|g| {
                let kept = match g.kept {
                    Kept::Inputs { store, .. } => Kept::Inputs { store, chunks: g.filled },
                    sums => sums,
                };
                let limit = block_limit(g.inputs, self.place.factor_bytes);
                Arc::new(InputMoments::new(g.tokens, &g.squares, kept, limit))
            })
            .collect();
        self.of.into_iter().map(|(tensor, g)| (tensor, Arc::clone(&groups[g]))).collect()
    }

    fn group(&mut self, map: &MapSpec, x: &Tensor) -> Result<usize> {
        if let Some(&g) = self.of.get(&map.tensor) {
            return Ok(g);
        }
        if let Some((_, g)) = self.last.filter(|(id, _)| *id == x.id()) {
            self.of.insert(map.tensor.clone(), g);
            return Ok(g);
        }
        let n = map.inputs;
        let kept = if self.in_memory {
            let memory = self.place.budget.reserve(4 * (n * n) as u64, "second moments")?;
            Kept::Sums { sums: vec![0.0; n * n], _memory: memory }
        } else {
            // No budget of its own: it goes to a file.
            let slots = self.place.chunks.iter().map(|t| t * n).collect();
            let store = ActivationStore::new(&Budget::new(0), slots, self.place.spill.as_deref())?;
            Kept::Inputs { store, chunks: Vec::new() }
        };
        let group = Group {
            leader: map.tensor.clone(),
            inputs: n,
            tokens: 0,
            squares: vec![0.0; n],
            kept,
            filled: Vec::new(),
        };
        self.groups.push(group);
        self.of.insert(map.tensor.clone(), self.groups.len() - 1);
        Ok(self.groups.len() - 1)
    }
}

impl Tap for Gather<'_> {
    fn linear(&mut self, _: usize, map: &MapSpec, x: &Tensor, _: &Tensor) -> Result<()> {
        if self.wanted.contains(&map.tensor) { self.input(map, x) } else { Ok(()) }
    }
}

impl Gather<'_> {
    /// Takes in inputs of a map.
    pub(super) fn input(&mut self, map: &MapSpec, x: &Tensor) -> Result<()> {
        let g = self.group(map, x)?;
        self.last = Some((x.id(), g));
        let group = &mut self.groups[g];
        if group.leader != map.tensor {
            return Ok(());
        }
        let failed = || Error::compute(&map.tensor);
        let values = x.flatten_all().and_then(|x| x.to_vec1::<f32>()).map_err(failed())?;
        let tokens = values.len() / group.inputs.max(1);
        if let Some(x) = values.iter().find(|x| !x.is_finite()) {
            return Err(not_finite(&map.tensor, format!("an input is {x}")).into());
        }
        for row in values.chunks(group.inputs.max(1)) {
            for (sum, &x) in group.squares.iter_mut().zip(row) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        group.tokens += tokens;
        match &mut group.kept {
            Kept::Sums { sums, .. } => add_products(x, sums)?,
            Kept::Inputs { store, .. } => {
                let slot = group.filled.len();
                let mut padded = values;
                // An expert sees fewer tokens than the chunk has.
                padded.resize(self.place.chunks.get(slot).map_or(0, |t| t * group.inputs), 0.0);
                store.put(slot, &padded)?;
                group.filled.push(tokens);
            }
        }
        Ok(())
    }
}
