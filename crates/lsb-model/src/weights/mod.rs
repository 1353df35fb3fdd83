//! Gives blocks their weights: maps from the stream, vectors and embedding rows as they are needed.

mod resident;
mod rows;

use crate::linear::{Bands, Coded, Dense, Linear};
use crate::spec::{MapSpec, ModelSpec};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use lsb_stream::{
    Budget, Reservation, Scratch, StreamFigures, StreamOptions, TensorFacts, TensorWeights, WeightSource,
    WeightStream,
};
use rayon::prelude::*;
use resident::{Form, Resident};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The weights of a model that is being run.
#[derive(Debug)]
pub(crate) struct Weights {
    source: Arc<dyn WeightSource>,
    numbers: HashMap<String, usize>,
    stream: WeightStream,
    bands: Arc<Bands>,
    budget: Budget,
    /// Norms and biases by name and whether one was added to them, once they were used.
    vectors: Mutex<HashMap<(String, bool), Tensor>>,
    /// Maps that stay, where the budget holds all of them.
    resident: Option<Resident>,
    /// Maps kept until [`Weights::release`].
    kept: Mutex<Option<HashMap<String, Arc<dyn Linear>>>>,
    /// Weights that stand in for those of the source.
    replaced: Mutex<HashMap<String, Arc<dyn TensorWeights>>>,
    _memory: Reservation,
}

impl Weights {
    /// The weights of `spec` in `source`.
    pub(crate) fn new(
        spec: &ModelSpec,
        source: Arc<dyn WeightSource>,
        budget: &Budget,
        options: StreamOptions,
        unpacked: bool,
    ) -> Result<Weights> {
        let widest = widest_row(spec);
        let room = (budget.limit() - budget.used()).saturating_sub(vector_bytes(&*source));
        // Few threads have a band each; where there are many, some memory is left for what else is read.
        let bands = Bands::new(widest, room / 4 * 3);
        let bytes = bands.bytes(widest);
        Weights::with_bands(spec, source, budget, options, unpacked, (Arc::new(bands), bytes))
    }

    /// Bytes without which nothing can be run: norms, biases and one buffer for maps, of which no weights stay in memory.
    pub(crate) fn least_bytes(spec: &ModelSpec, source: &dyn WeightSource) -> u64 {
        let row = widest_row(spec);
        vector_bytes(source) + Bands::new(row, 0).bytes(row)
    }

    /// The weights of `spec` in `source` beside these, which are never used at the same time: the buffers of these do for
    /// both.
    pub(crate) fn beside(
        &self,
        spec: &ModelSpec,
        budget: &Budget,
        options: StreamOptions,
    ) -> Result<Weights> {
        let bands = (Arc::clone(&self.bands), 0);
        Weights::with_bands(spec, Arc::clone(&self.source), budget, options, false, bands)
    }

    fn with_bands(
        spec: &ModelSpec,
        source: Arc<dyn WeightSource>,
        budget: &Budget,
        options: StreamOptions,
        unpacked: bool,
        (bands, band_bytes): (Arc<Bands>, u64),
    ) -> Result<Weights> {
        let numbers: HashMap<String, usize> =
            source.tensors().iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        let memory = budget.reserve(vector_bytes(&*source) + band_bytes, "norms, biases and buffers")?;
        // An eighth is left for rows of the head that are decoded for many tokens, and the like.
        let room = (budget.limit() - budget.used()).saturating_sub(budget.limit() / 8);
        let numbers_of = |name: &str| numbers.get(name).copied();
        let number = |m: &MapSpec| numbers_of(&m.tensor);
        let mut resident = None;
        if options.caching {
            let dense: u64 = spec.every_map().map(|m| 4 * (m.inputs * m.outputs) as u64).sum();
            let mut wanted: Vec<usize> = spec.every_map().filter_map(number).collect();
            // Rows of the embedding are read for every token; where it is tied, it is the head's tensor.
            let embedding = numbers_of(&spec.embedding.tokens);
            wanted.extend(embedding.filter(|n| !wanted.contains(n)));
            if unpacked && resident::unpacked_bytes(&*source, &wanted)?.is_some_and(|bytes| bytes <= room) {
                resident = Some(Resident::new(Form::Unpacked));
            } else if dense <= room {
                resident = Some(Resident::new(Form::Dense));
            }
        }
        let stored: u64 = spec.every_map().filter_map(number).map(|n| source.held_bytes(n)).sum();
        // Experts are in the order only where everything stays: else those that are not chosen would be read.
        let order: Vec<usize> = match (resident.is_some(), options.caching && stored <= room) {
            (true, _) => Vec::new(),
            (false, true) => spec.every_map().filter_map(number).collect(),
            (false, false) => spec.maps().filter_map(number).collect(),
        };
        Ok(Weights {
            stream: WeightStream::new(Arc::clone(&source), order, budget, options)?,
            source,
            numbers,
            bands,
            budget: budget.clone(),
            vectors: Mutex::default(),
            resident,
            kept: Mutex::new(None),
            replaced: Mutex::default(),
            _memory: memory,
        })
    }

    /// The map.
    pub(crate) fn map(&self, spec: &MapSpec) -> Result<Arc<dyn Linear>> {
        if let Some(resident) = &self.resident {
            return resident.map(&spec.tensor, |form| match form {
                Form::Dense => self.read_dense(spec),
                Form::Unpacked => self.read_unpacked(resident, spec),
            });
        }
        if let Some(map) = lock(&self.kept).as_ref().and_then(|kept| kept.get(&spec.tensor)) {
            return Ok(Arc::clone(map));
        }
        let replaced = lock(&self.replaced).get(&spec.tensor).cloned();
        let weights = match replaced {
            Some(weights) => weights,
            None => self.stream.tensor(self.number(&spec.tensor)?)?,
        };
        let bias = self.bias(spec)?;
        let map: Arc<dyn Linear> = Arc::new(Coded::new(spec.clone(), weights, bias, Arc::clone(&self.bands)));
        if let Some(kept) = lock(&self.kept).as_mut() {
            kept.insert(spec.tensor.clone(), Arc::clone(&map));
        }
        Ok(map)
    }

    /// Rows of a map as a map of its own with f32 weights; `None` where it is in f32 already, or the budget has
    /// no room.
    pub(crate) fn decoded_rows(&self, spec: &MapSpec, rows: Range<usize>) -> Result<Option<Arc<dyn Linear>>> {
        let bytes = 4 * (rows.len() * spec.inputs) as u64;
        let replaced = lock(&self.replaced).contains_key(&spec.tensor);
        if self.resident.as_ref().is_some_and(Resident::is_dense) || spec.inputs_first || replaced {
            return Ok(None);
        }
        let Ok(memory) = self.budget.reserve(bytes, &spec.tensor) else { return Ok(None) };
        let weights = self.stream.tensor(self.number(&spec.tensor)?)?;
        let mut values = vec![0.0; rows.len() * spec.inputs];
        let step = Bands::rows_at_once(spec.inputs);
        values.par_chunks_mut(step * spec.inputs).enumerate().try_for_each(|(i, part)| {
            let first = ((rows.start + i * step) * spec.inputs) as u64;
            weights.read_f32(first..first + part.len() as u64, part, &mut Scratch::default())
        })?;
        let failed = || Error::compute(&spec.tensor);
        let shape = (rows.len(), spec.inputs);
        let values = Tensor::from_vec(values, shape, &Device::Cpu).map_err(failed())?;
        let bias = match self.bias(spec)? {
            Some(bias) => Some(bias.narrow(0, rows.start, rows.len()).map_err(failed())?),
            None => None,
        };
        let part = MapSpec { outputs: rows.len(), ..spec.clone() };
        Ok(Some(Arc::new(Dense::new(part, values, bias, Some(memory)))))
    }

    /// Lets `weights` stand in for those of the source.
    pub(crate) fn replace(&self, name: &str, weights: Arc<dyn TensorWeights>) {
        lock(&self.replaced).insert(name.to_owned(), weights);
        if let Some(resident) = &self.resident {
            resident.forget(name);
        }
        lock(&self.vectors).retain(|(vector, _), _| vector != name);
    }

    /// Keeps every map from now on until [`Weights::release`]: the block will be run on more chunks.
    pub(crate) fn keep(&self) {
        lock(&self.kept).get_or_insert_default();
    }

    /// Lets go of kept maps.
    pub(crate) fn release(&self) {
        *lock(&self.kept) = None;
    }

    /// Norm weights or a bias, with one added to them where `plus_one` says so.
    pub(crate) fn vector(&self, name: &str, plus_one: bool) -> Result<Tensor> {
        let key = (name.to_owned(), plus_one);
        if let Some(vector) = lock(&self.vectors).get(&key) {
            return Ok(vector.clone());
        }
        let values = self.read(name)?;
        let length = values.len();
        let vector = Tensor::from_vec(values, length, &Device::Cpu)
            .and_then(|v| if plus_one { v + 1.0 } else { Ok(v) })
            .map_err(Error::compute(name))?;
        lock(&self.vectors).insert(key, vector.clone());
        Ok(vector)
    }

    /// Row `i` of `rows` of the matrix `name`, whose rows are `width` wide, for every i, one behind the other.
    pub(crate) fn rows(&self, name: &str, rows: &[usize], width: usize) -> Result<Vec<f32>> {
        let replaced = lock(&self.replaced).get(name).cloned();
        if let Some(weights) = replaced {
            return rows::gather(&*weights, rows, width);
        }
        match self.resident.as_ref().filter(|resident| !resident.is_dense()) {
            Some(resident) => rows::gather(&*self.unpacked(resident, name)?, rows, width),
            None => rows::gather(&*self.source.open(self.number(name)?)?, rows, width),
        }
    }

    /// Whether another pass over the maps follows this one.
    pub(crate) fn expect_another_pass(&self, expected: bool) {
        self.stream.expect_another_pass(expected);
    }

    pub(crate) fn figures(&self) -> StreamFigures {
        self.stream.figures()
    }

    pub(crate) fn source(&self) -> &Arc<dyn WeightSource> {
        &self.source
    }

    fn read_dense(&self, spec: &MapSpec) -> Result<Arc<dyn Linear>> {
        let elements = spec.inputs * spec.outputs;
        let memory = self.budget.reserve(4 * elements as u64, &spec.tensor)?;
        let values = self.read(&spec.tensor)?;
        let shape = if spec.inputs_first { (spec.inputs, spec.outputs) } else { (spec.outputs, spec.inputs) };
        let weights = Tensor::from_vec(values, shape, &Device::Cpu).map_err(Error::compute(&spec.tensor))?;
        Ok(Arc::new(Dense::new(spec.clone(), weights, self.bias(spec)?, Some(memory))))
    }

    /// A map whose levels lie in memory, or, where its codec has none, its stored bytes.
    fn read_unpacked(&self, resident: &Resident, spec: &MapSpec) -> Result<Arc<dyn Linear>> {
        let replaced = lock(&self.replaced).get(&spec.tensor).cloned();
        let weights = match replaced {
            Some(weights) => weights,
            None => self.unpacked(resident, &spec.tensor)?,
        };
        Ok(Arc::new(Coded::new(spec.clone(), weights, self.bias(spec)?, Arc::clone(&self.bands))))
    }

    fn unpacked(&self, resident: &Resident, name: &str) -> Result<Arc<dyn TensorWeights>> {
        let number = self.number(name)?;
        resident.tensor(name, || resident::unpack(&*self.source, number, &self.budget))
    }

    fn bias(&self, spec: &MapSpec) -> Result<Option<Tensor>> {
        spec.bias.as_ref().map(|name| self.vector(name, false)).transpose()
    }

    /// A whole tensor.
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let number = self.number(name)?;
        let elements = self.source.tensors().get(number).map_or(0, TensorFacts::weights);
        let mut values = vec![0.0; elements as usize];
        let replaced = lock(&self.replaced).get(name).cloned();
        match replaced {
            Some(weights) => weights.read_f32(0..elements, &mut values, &mut Scratch::default())?,
            None => self.source.open(number)?.read_f32(0..elements, &mut values, &mut Scratch::default())?,
        }
        Ok(values)
    }

    fn number(&self, name: &str) -> Result<usize> {
        let missing = || lsb_format::Error::argument("there is no tensor of that name").in_tensor(name);
        Ok(self.numbers.get(name).copied().ok_or_else(missing)?)
    }
}

/// Weights in the widest row that is stored as one.
fn widest_row(spec: &ModelSpec) -> usize {
    spec.maps().map(|m| if m.inputs_first { m.outputs } else { m.inputs }).max().unwrap_or(0)
}

/// Bytes of norms and biases.
fn vector_bytes(source: &dyn WeightSource) -> u64 {
    source.tensors().iter().filter(|t| t.shape.len() < 2).map(|t| 4 * t.weights()).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single insert or replacement: a panic elsewhere leaves the contents valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
