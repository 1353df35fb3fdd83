//! Gathers the inputs of the maps of a block.

use super::moments::{Drift, DriftKept, InputMoments, Kept, Spilled};
use super::original::Originals;
use super::products::{add_products, add_products_of};
use super::stages::Stage;
use crate::sensitivity::not_finite;
use crate::spec::MapSpec;
use crate::tap::Tap;
use crate::{Error, Result};
use candle_core::{Device, Tensor, TensorId};
use lsb_quant::calibrate::LastFactor;
use lsb_stream::{ActivationStore, Budget};
use std::collections::HashMap;
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
    /// What the original's maps are fed with, where drift is made up for, and the share of it that is.
    pub(super) originals: Option<(Originals, f32)>,
    /// Where the factor of moments is kept for maps that share them.
    pub(super) last: Arc<LastFactor>,
}

/// Inputs of a block, of `n` in all, whose moments and factor fit into `bytes`: a block's moments are 4 bytes per entry and
/// the matrix that is factored 8, beside the factors of all blocks, 4, and what makes up for `drift`, 2.
pub(super) fn block_limit(n: usize, bytes: u64, drift: bool) -> usize {
    let (n, bytes, kept) = (n as f64, bytes as f64, if drift { 6.0 } else { 4.0 });
    let limit = ((kept * kept * n * n + 48.0 * bytes).sqrt() - kept * n) / 24.0;
    limit.max(32.0) as usize
}

/// Sees the inputs of maps of a block.
pub(super) struct Gather<'a> {
    place: &'a Place,
    /// Whether sums of products are kept rather than inputs.
    in_memory: bool,
    /// Tensors whose inputs are gathered, and the number of their stage.
    wanted: HashMap<String, usize>,
    /// For each stage of experts: where inputs of all of them go.
    shared: Vec<Option<Shared>>,
    groups: Vec<Group>,
    /// The group of each tensor.
    of: HashMap<String, usize>,
    /// The input that was seen last, and its group.
    last: Option<(TensorId, usize)>,
    /// Whether what lies behind the last of the maps is of no use.
    only_inputs: bool,
    /// Maps whose inputs were seen of the tokens that go through the block.
    seen: usize,
}

struct Group {
    /// The map by which the others are recognised.
    leader: String,
    stage: usize,
    inputs: usize,
    tokens: usize,
    squares: Vec<f64>,
    kept: Kept,
    /// How far the original's inputs are from these.
    drift: Option<Drift>,
    /// Chunks that were seen.
    chunks: usize,
    /// Inputs of an expert that do not fill a slot yet.
    waiting: Vec<f32>,
}

/// Slots for the inputs of all experts: which sees how many is not known beforehand, but how many they see together.
struct Shared {
    experts: usize,
    per_token: usize,
    /// Made when the first input comes.
    store: Option<Arc<ActivationStore>>,
    /// Inputs of a slot.
    rows: usize,
    /// The first slot that is free.
    free: usize,
}

/// Share of the memory for moments that inputs of experts may take before they go to their slots.
const WAITING: u64 = 8;

/// Inputs of a slot at most.
const SLOT: u64 = 512;

impl Shared {
    fn store(&mut self, place: &Place, n: usize) -> Result<Arc<ActivationStore>> {
        if let Some(store) = &self.store {
            return Ok(Arc::clone(store));
        }
        let room = place.budget.limit() / WAITING / (4 * n * self.experts).max(1) as u64;
        self.rows = room.clamp(1, SLOT) as usize;
        let tokens: usize = place.chunks.iter().sum();
        let slots = (tokens * self.per_token).div_ceil(self.rows) + self.experts;
        let store =
            ActivationStore::new(&Budget::new(0), vec![self.rows * n; slots], place.spill.as_deref())?;
        Ok(Arc::clone(self.store.insert(Arc::new(store))))
    }
}

impl<'a> Gather<'a> {
    /// Gathers for the maps of `stages`.
    pub(super) fn new(place: &'a Place, stages: &[Stage<'_>]) -> Self {
        // Maps that share an input are counted more than once: never too little.
        let bytes = |m: &MapSpec| 4 * (m.inputs * m.inputs) as u64;
        let all: u64 = stages.iter().flat_map(Stage::every_map).map(bytes).sum();
        let widest = stages.iter().flat_map(Stage::every_map).map(bytes).max().unwrap_or(0);
        let free = place.budget.limit() - place.budget.used();
        // Sums of drift are as large as moments.
        let sums = if place.originals.is_some() { 2 } else { 1 };
        let in_memory = sums * all + 2 * widest < free / 2;
        let mut wanted = HashMap::new();
        for (i, stage) in stages.iter().enumerate() {
            wanted.extend(stage.every_map().map(|m| (m.tensor.clone(), i)));
        }
        let shared = |s: &Stage<'_>| {
            let (experts, per_token) = (s.maps.len(), s.per_token?);
            Some(Shared { experts, per_token, store: None, rows: 0, free: 0 })
        };
        let shared = stages.iter().map(shared).collect();
        Gather {
            place,
            in_memory,
            wanted,
            shared,
            groups: Vec::new(),
            of: HashMap::new(),
            last: None,
            only_inputs: false,
            seen: 0,
        }
    }

    /// What was seen of every map, by tensor.
    ///
    /// # Errors
    /// If inputs cannot be kept.
    pub(super) fn finish(mut self) -> Result<HashMap<String, Arc<InputMoments>>> {
        let mut groups = Vec::with_capacity(self.groups.len());
        for mut g in self.groups {
            if let (Kept::Inputs(kept), Some(shared)) = (&mut g.kept, &mut self.shared[g.stage]) {
                put(&mut g.waiting, g.inputs, kept, shared)?;
            }
            let limit = block_limit(g.inputs, self.place.factor_bytes, g.drift.is_some());
            let last = Arc::clone(&self.place.last);
            groups.push(Arc::new(InputMoments::new(g.tokens, &g.squares, g.kept, g.drift, limit, last)));
        }
        Ok(self.of.into_iter().map(|(tensor, g)| (tensor, Arc::clone(&groups[g]))).collect())
    }

    fn group(&mut self, map: &MapSpec, stage: usize, x: &Tensor) -> Result<usize> {
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
        } else if let Some(shared) = &mut self.shared[stage] {
            Kept::Inputs(Spilled { store: shared.store(self.place, n)?, slots: Vec::new() })
        } else {
            // No budget of its own: it goes to a file.
            let slots = self.place.chunks.iter().map(|t| t * n).collect();
            let store = ActivationStore::new(&Budget::new(0), slots, self.place.spill.as_deref())?;
            Kept::Inputs(Spilled { store: Arc::new(store), slots: Vec::new() })
        };
        let originals = self.place.originals.as_ref().filter(|_| self.shared[stage].is_none());
        let drift = match originals.and_then(|(o, share)| Some((o.of(&map.tensor)?, *share))) {
            None => None,
            Some((inputs, share)) => {
                let inputs = Arc::clone(inputs);
                let kept = if self.in_memory {
                    let memory = self.place.budget.reserve(4 * (n * n) as u64, "drift of inputs")?;
                    DriftKept::Sums { sums: vec![0.0; n * n], inputs, _memory: memory }
                } else {
                    DriftKept::Inputs(inputs)
                };
                Some(Drift { share, kept })
            }
        };
        let group = Group {
            leader: map.tensor.clone(),
            stage,
            inputs: n,
            tokens: 0,
            squares: vec![0.0; n],
            kept,
            drift,
            chunks: 0,
            waiting: Vec::new(),
        };
        self.groups.push(group);
        self.of.insert(map.tensor.clone(), self.groups.len() - 1);
        Ok(self.groups.len() - 1)
    }
}

/// Puts inputs of `n` values that wait, at most a slot's, into the next slot.
fn put(waiting: &mut Vec<f32>, n: usize, kept: &mut Spilled, shared: &mut Shared) -> Result<()> {
    if waiting.is_empty() {
        return Ok(());
    }
    kept.slots.push((shared.free, waiting.len() / n.max(1)));
    waiting.resize(shared.rows * n, 0.0);
    kept.store.put(shared.free, waiting)?;
    shared.free += 1;
    waiting.clear();
    Ok(())
}

impl Tap for Gather<'_> {
    fn input(&mut self, _: usize, map: &MapSpec, x: &Tensor) -> Result<bool> {
        if !self.wanted.contains_key(&map.tensor) {
            return Ok(true);
        }
        self.take(map, x)?;
        self.seen += 1;
        // Which experts are still to come depends on tokens.
        if !self.only_inputs || self.seen < self.wanted.len() || self.shared.iter().any(Option::is_some) {
            return Ok(true);
        }
        self.seen = 0;
        Ok(false)
    }
}

impl Gather<'_> {
    /// The same for a block of which nothing else is wanted.
    pub(super) fn only_inputs(self) -> Self {
        Gather { only_inputs: true, ..self }
    }

    /// Takes in inputs of a map.
    pub(super) fn take(&mut self, map: &MapSpec, x: &Tensor) -> Result<()> {
        let stage = self.wanted.get(&map.tensor).copied().unwrap_or(0);
        let g = self.group(map, stage, x)?;
        self.last = Some((x.id(), g));
        let group = &mut self.groups[g];
        if group.leader != map.tensor {
            return Ok(());
        }
        let failed = || Error::compute(&map.tensor);
        let mut values = x.flatten_all().and_then(|x| x.to_vec1::<f32>()).map_err(failed())?;
        let n = group.inputs.max(1);
        if let Some(x) = values.iter().find(|x| !x.is_finite()) {
            return Err(not_finite(&map.tensor, format!("an input is {x}")).into());
        }
        for row in values.chunks(n) {
            for (sum, &x) in group.squares.iter_mut().zip(row) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        let tokens = values.len() / n;
        group.tokens += tokens;
        if let Some(DriftKept::Sums { sums, inputs, .. }) = group.drift.as_mut().map(|d| &mut d.kept) {
            let mut original = Vec::new();
            inputs.get(group.chunks, &mut original)?;
            original.iter_mut().zip(&values).for_each(|(o, x)| *o -= x);
            let apart = Tensor::from_vec(original, (tokens, n), &Device::Cpu).map_err(failed())?;
            add_products_of(&apart, x, sums)?;
        }
        group.chunks += 1;
        match (&mut group.kept, &mut self.shared[stage]) {
            (Kept::Sums { sums, .. }, _) => add_products(x, sums)?,
            (Kept::Inputs(kept), None) => {
                let slot = kept.slots.len();
                values.resize(self.place.chunks.get(slot).map_or(0, |t| t * n), 0.0);
                kept.store.put(slot, &values)?;
                kept.slots.push((slot, tokens));
            }
            (Kept::Inputs(kept), Some(shared)) => {
                for row in values.chunks(n) {
                    group.waiting.extend_from_slice(row);
                    if group.waiting.len() == shared.rows * n {
                        put(&mut group.waiting, n, kept, shared)?;
                    }
                }
            }
        }
        Ok(())
    }
}
