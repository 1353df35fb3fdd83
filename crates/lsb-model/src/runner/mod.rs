//! Runs a model: many windows of tokens a block at a time, or one sequence a token at a time.

mod backward;
mod batch;
mod embedding;
mod head;
mod memory;
mod session;
#[cfg(test)]
mod tests;

pub use backward::{GradientTap, MapGradient, Objective, Piece, backward};
pub use batch::Batch;
use batch::Handle;
pub(crate) use batch::Sibling;
pub use head::{Head, HeadTile};
pub use session::Session;

use crate::block::Rotary;
use crate::cache::CacheType;
use crate::spec::{MapSpec, ModelSpec};
use crate::weights::Weights;
use crate::{ModelConfig, Result};
use candle_core::Tensor;
use lsb_format::Error;
use lsb_quant::Registry;
use lsb_stream::source::OpenOptions;
use lsb_stream::{
    ActivationStore, Budget, Reservation, StreamFigures, StreamOptions, TensorWeights, WeightSource,
    open_weights,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a model is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// How many layers may have weights in memory at once; 0 means any number.
    pub max_layers_in_ram: usize,
    /// Read the next weights while the current ones are used.
    pub prefetch: bool,
    /// Keep weights in memory from pass to pass where the budget holds all of them.
    pub caching: bool,
    /// Keep weights unpacked where their codec and the budget allow it, to generate text: they are multiplied as fast as
    /// memory gives them, for a token at a time. Where many tokens go through the model, f32 is faster.
    pub unpacked: bool,
    /// Tokens that go through a block at once; more of them use each decoded weight more often and take more
    /// memory. Halved until the memory for activations is enough.
    pub chunk_tokens: usize,
    /// Bytes of the budget that are set aside for activations; `None` means half of it, of a session half of what its keys
    /// and values leave. What does not fit there takes what weights leave, or goes to a file.
    pub activation_bytes: Option<u64>,
    /// The only thing to be run is one session of so many tokens: what it takes is set aside, no more, so that more weights
    /// can stay in memory, and no less, so that it is not refused later.
    pub session: Option<(usize, CacheType)>,
    /// Where activations go that do not fit the budget; `None` means the system's temporary directory.
    pub spill: Option<PathBuf>,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            max_layers_in_ram: 1,
            prefetch: true,
            caching: true,
            unpacked: false,
            chunk_tokens: 512,
            activation_bytes: None,
            session: None,
            spill: None,
        }
    }
}

impl RunOptions {
    fn stream(&self) -> StreamOptions {
        let RunOptions { max_layers_in_ram, prefetch, caching, .. } = *self;
        StreamOptions { max_layers_in_ram, prefetch, caching }
    }
}

/// A model whose forward pass can be run, with its weights wherever they are.
#[derive(Debug)]
pub struct ModelRunner {
    config: ModelConfig,
    spec: ModelSpec,
    weights: Weights,
    budget: Budget,
    /// The part of the budget that weights cannot take.
    activations: Budget,
    options: RunOptions,
    _set_aside: Reservation,
}

impl ModelRunner {
    /// The model or package at `path`, inside `budget`.
    ///
    /// # Errors
    /// If it cannot be opened, has no `config.json`, or if its architecture has no forward pass.
    pub fn open(
        path: &Path,
        registry: &Registry,
        budget: &Budget,
        options: &RunOptions,
    ) -> Result<ModelRunner> {
        let source: Arc<dyn WeightSource> = open_weights(path, registry, &OpenOptions::default())?.into();
        let file = path.join("config.json");
        let bytes = std::fs::read(&file).map_err(|e| {
            Error::argument(format!("{}: {e}", file.display()))
                .advise("a forward pass needs the model's config.json beside the weights")
        })?;
        ModelRunner::new(source, ModelConfig::parse(&bytes)?, budget, options)
    }

    /// The model that `config` describes and `source` holds.
    ///
    /// # Errors
    /// If its architecture has no forward pass, tensors are missing, or the budget is too small.
    pub fn new(
        source: Arc<dyn WeightSource>,
        config: ModelConfig,
        budget: &Budget,
        options: &RunOptions,
    ) -> Result<ModelRunner> {
        let spec = ModelSpec::new(&config, &*source)?;
        let mut bytes = options.activation_bytes.unwrap_or(budget.limit() / 2);
        // One that is refused for another reason sets nothing aside.
        let planned = options.session.filter(|(capacity, _)| session::check(&spec, *capacity).is_ok());
        if let Some((capacity, cache)) = planned {
            // All of it, before weights take what is left: they can do with less, a session cannot.
            let least = Weights::least_bytes(&spec, &*source);
            let room = budget.limit().saturating_sub(least);
            let kept = memory::kept(&spec, capacity, cache).min(room);
            let limit = options.activation_bytes.unwrap_or(kept + (room - kept) / 2).min(room);
            bytes = session::plan(&spec, options.chunk_tokens, capacity, cache, limit).1;
            budget.reserve(bytes + least, &format!("a session of {capacity} tokens"))?;
        }
        let set_aside = budget.reserve(bytes, "activations")?;
        let weights = Weights::new(&spec, source, budget, options.stream(), options.unpacked)?;
        Ok(ModelRunner {
            config,
            spec,
            weights,
            budget: budget.clone(),
            activations: Budget::new(bytes),
            options: options.clone(),
            _set_aside: set_aside,
        })
    }

    /// The same model with weights of its own, of which [`ModelRunner::replace`] changes none here. The two are never run at
    /// the same time, so that buffers do for both; what `budget` holds is weights.
    ///
    /// # Errors
    /// If the budget is too small.
    pub(crate) fn beside(&self, budget: &Budget) -> Result<ModelRunner> {
        let options = RunOptions { activation_bytes: Some(0), ..self.options.clone() };
        Ok(ModelRunner {
            config: self.config.clone(),
            spec: self.spec.clone(),
            weights: self.weights.beside(&self.spec, budget, options.stream())?,
            budget: budget.clone(),
            activations: Budget::new(0),
            options,
            _set_aside: budget.reserve(0, "activations")?,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What is computed.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The weights.
    pub fn source(&self) -> &Arc<dyn WeightSource> {
        self.weights.source()
    }

    /// What was read, and how long that took.
    pub fn figures(&self) -> StreamFigures {
        self.weights.figures()
    }

    /// Many windows of token ids, to be run block by block.
    ///
    /// # Errors
    /// If an id is not in the vocabulary, a window is longer than learned positions allow, or the budget is too
    /// small.
    pub fn batch(&self, windows: &[Vec<u32>]) -> Result<Batch<'_>> {
        Batch::new(Handle::Borrowed(self), windows, None)
    }

    /// The same with every window in one chunk, in which short ones may lie together. Memory for intermediate values is
    /// reserved for the longest window.
    ///
    /// # Errors
    /// As [`ModelRunner::batch`].
    pub(crate) fn whole_batch(&self, windows: &[Vec<u32>]) -> Result<Batch<'_>> {
        let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
        Batch::new(Handle::Borrowed(self), windows, Some(longest.max(1)))
    }

    /// The same, for whoever keeps the batch beside other things.
    ///
    /// # Errors
    /// As [`ModelRunner::batch`].
    pub fn shared_batch(self: &Arc<Self>, windows: &[Vec<u32>]) -> Result<Batch<'static>> {
        Batch::new(Handle::Shared(Arc::clone(self)), windows, None)
    }

    /// From now on the weights of tensor `name` are these. What a pass has read already stays as it was: a caller replaces
    /// between blocks.
    pub fn replace(&self, name: &str, weights: Arc<dyn TensorWeights>) {
        self.weights.replace(name, weights);
    }

    /// The same with tokens cut into chunks like those of `other`, so that the two can be compared.
    ///
    /// # Errors
    /// As [`ModelRunner::batch`].
    pub fn batch_like(&self, windows: &[Vec<u32>], other: &Batch<'_>) -> Result<Batch<'_>> {
        Batch::new(Handle::Borrowed(self), windows, Some(other.chunk_tokens()))
    }

    /// Keeps every map that is used from now on in memory, where the budget allows, until the next block of a
    /// [`Batch`] has ended: somebody else uses the maps of that block too.
    pub fn keep_maps(&self) {
        self.weights.keep();
    }

    /// One sequence of up to `capacity` tokens, to be run token by token.
    ///
    /// # Errors
    /// If the budget does not hold its keys and values.
    pub fn session(&self, capacity: usize, cache: CacheType) -> Result<Session<'_>> {
        Session::new(self, capacity, cache)
    }

    /// One linear map, to be applied to other inputs than a pass gives it.
    ///
    /// # Errors
    /// If its weights cannot be read.
    pub fn map(&self, map: &MapSpec) -> Result<Arc<dyn crate::Linear>> {
        self.weights.map(map)
    }

    /// A bias or other vector.
    pub(crate) fn vector(&self, name: &str) -> Result<Tensor> {
        self.weights.vector(name, false)
    }

    /// Rows of the embedding's matrix as it is now, unscaled, one behind the other.
    pub(crate) fn embedding_rows(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let rows: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        self.weights.rows(&self.spec.embedding.tokens, &rows, self.spec.hidden)
    }

    /// A store for activations of such sizes, in numbers of values, that lives beside the batches of this model.
    pub(crate) fn store(&self, slots: Vec<usize>) -> Result<ActivationStore> {
        Ok(ActivationStore::new(&self.activations, slots, self.options.spill.as_deref())?)
    }

    /// Where activations go that do not fit the budget; `None` means the system's temporary directory.
    pub(crate) fn spill(&self) -> Option<&Path> {
        self.options.spill.as_deref()
    }

    /// The memory that all of it shares.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Memory for activations.
    fn reserve(&self, bytes: u64, what: &str) -> Result<Reservation> {
        self.activations.reserve(bytes, what).or_else(|_| Ok(self.budget.reserve(bytes, what)?))
    }

    /// Tokens per chunk of a batch, whose windows are up to `length` tokens long.
    fn chunk_tokens(&self, length: usize) -> usize {
        let limit = self.activations.limit().saturating_sub(self.rotary_bytes(length));
        let attention = self.spec.attentions().next();
        let kept = attention.map_or(0, |a| CacheType::F32.bytes(a.kv_heads, a.head_dim, length));
        let needed = |tokens: usize| {
            // Keys and values of a window that is cut are kept beside it.
            let kept = if tokens < length { kept } else { 0 };
            memory::workspace(&self.spec, tokens.min(length), length, CacheType::F32) + kept
        };
        memory::chunk(self.options.chunk_tokens, limit, needed)
    }

    /// Rotary tables for sequences of up to `positions` tokens, and the memory they take.
    fn rotary(&self, positions: usize) -> Result<(Vec<Rotary>, Reservation)> {
        let memory = self.reserve(self.rotary_bytes(positions), "tables of rotary embeddings")?;
        let tables = self
            .spec
            .rotaries()
            .into_iter()
            .map(|spec| Rotary::new(spec, positions))
            .collect::<Result<_>>()?;
        Ok((tables, memory))
    }
    fn rotary_bytes(&self, positions: usize) -> u64 {
        memory::rotary(&self.spec, positions)
    }
}
