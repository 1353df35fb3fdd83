//! The passes of a calibration: the original's once, then one that follows the compression block by block.

use super::gather::{Gather, Place};
use super::original::{Original, Originals};
use super::stages::{Stage, stages};
use super::starved::{self, Known, Starved};
use super::text::stream_error;
use super::weighting::{self, Weighting};
use crate::cache::CacheType;
use crate::runner::Batch;
use crate::spec::MapSpec;
use crate::tap::NoTap;
use crate::{ModelConfig, ModelRunner, ModelSpec, Result, RunOptions, Sensitivity};
use lsb_quant::calibrate::{Calibration, LastFactor, Moments};
use lsb_stream::{Budget, Calibrator, TensorWeights, WeightSource, give_back_now};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Calibrates by running the model on windows of text.
pub(super) struct PassCalibrator {
    config: ModelConfig,
    spec: ModelSpec,
    source: Arc<dyn WeightSource>,
    budget: Budget,
    windows: Vec<Vec<u32>>,
    /// Seed of gradients; `None` where all outputs count the same.
    seed: Option<u64>,
    /// Share of the drift of inputs that weights make up for.
    drift: f32,
    interrupt: Arc<AtomicBool>,
    /// What outputs bear, once it was estimated.
    weighting: Option<Weighting>,
    notes: Vec<String>,
    /// The pass that follows the compression, once it has begun.
    follower: Option<Follower>,
    /// Tensors that were finished before it began.
    waiting: Vec<(String, Arc<dyn TensorWeights>)>,
    /// Moments of hidden states behind the last norm of the original.
    head: Option<Arc<dyn Moments>>,
    /// The factor that was made last of what was gathered last.
    last: Arc<LastFactor>,
    /// What experts lacked.
    starved: Starved,
    /// Whether the original was surveyed, which counts them.
    surveyed: bool,
}

/// How a model is calibrated.
pub(super) struct Manner<'a> {
    /// What its text is called.
    pub(super) what: &'a str,
    /// Seed of gradients; `None` where all outputs count the same.
    pub(super) seed: Option<u64>,
    /// Share of the drift of inputs that weights make up for.
    pub(super) drift: f32,
}

struct Follower {
    model: Arc<ModelRunner>,
    batch: Batch<'static>,
    /// The original beside it, where drift is made up for.
    original: Option<Original>,
    /// Moments of the stage that is compressed, by tensor.
    gathered: Known,
    /// The block and the stage in it of each tensor.
    stage_of: HashMap<String, (usize, usize)>,
}

/// Percent of the calibration's budget for the pass; the rest is for moments and factors.
const PASS_SHARE: u64 = 58;

fn pass_bytes(budget: &Budget) -> u64 {
    budget.limit() / 100 * PASS_SHARE
}

/// Of the bytes of the pass that follows the compression, those for weights of the original that runs beside it: one over
/// this.
const BESIDE: u64 = 8;

/// Of the bytes of a pass, those for activations: weights are used a band at a time.
fn activation_bytes(pass: u64) -> u64 {
    pass / 3 * 2
}

/// The windows, cut to a length whose keys and values leave half of `bytes` for what is computed with them. What is cut off
/// becomes a window of its own.
fn cut_to_fit(windows: Vec<Vec<u32>>, spec: &ModelSpec, bytes: u64) -> Vec<Vec<u32>> {
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
    let kept = |length: usize| {
        let each = spec.attentions().map(|a| CacheType::F32.bytes(a.kv_heads, a.head_dim, length));
        each.max().unwrap_or(0)
    };
    let mut length = longest;
    // A sentence has to stay whole.
    while spec.is_causal() && length > 64 && kept(length) > bytes / 2 {
        length = length.div_ceil(2);
    }
    if length == longest {
        return windows;
    }
    windows.iter().flat_map(|w| w.chunks(length).map(<[u32]>::to_vec)).collect()
}

impl PassCalibrator {
    pub(super) fn new(
        config: ModelConfig,
        source: Arc<dyn WeightSource>,
        budget: &Budget,
        windows: Vec<Vec<u32>>,
        Manner { what, seed, drift }: Manner<'_>,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Self> {
        let spec = ModelSpec::new(&config, &*source)?;
        let windows = cut_to_fit(windows, &spec, activation_bytes(pass_bytes(budget)));
        let tokens: usize = windows.iter().map(Vec::len).sum();
        let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
        let mut notes = vec![format!(
            "Calibrated on {tokens} tokens of {what}, in {} sequences of up to {longest}, {}.",
            windows.len(),
            seed.map_or("all outputs of a map counting the same".to_owned(), |seed| format!("seed {seed}"))
        )];
        if drift > 0.0 {
            let percent = (100.0 * drift).round();
            notes.push(format!("Weights make up for {percent} % of the drift of their inputs."));
        }
        Ok(PassCalibrator {
            config,
            spec,
            source,
            budget: budget.clone(),
            windows,
            seed,
            drift,
            interrupt,
            weighting: None,
            notes,
            follower: None,
            waiting: Vec::new(),
            head: None,
            last: Arc::default(),
            starved: Starved::default(),
            surveyed: false,
        })
    }

    /// Tokens of all sequences.
    pub(super) fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }

    /// Tokens of the longest sequence.
    pub(super) fn longest(&self) -> usize {
        self.windows.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Bytes that are left for rows of moments beside what is gathered in memory.
    pub(super) fn strip_bytes(&self) -> u64 {
        self.budget.limit() / 100 * (100 - PASS_SHARE) / 2
    }

    fn runner(&self) -> Result<Arc<ModelRunner>> {
        self.runner_in(pass_bytes(&self.budget))
    }

    /// A runner with `bytes`, and activations for the whole of a pass.
    fn runner_in(&self, bytes: u64) -> Result<Arc<ModelRunner>> {
        // Weights change while the pass goes on: nothing is read ahead.
        let activation_bytes = Some(activation_bytes(pass_bytes(&self.budget)));
        let options = RunOptions { prefetch: false, activation_bytes, ..RunOptions::default() };
        let (source, config) = (Arc::clone(&self.source), self.config.clone());
        Ok(Arc::new(ModelRunner::new(source, config, &Budget::new(bytes), &options)?))
    }

    /// The model that follows the compression, and the original beside it where drift is made up for.
    fn runners(&self) -> Result<(Arc<ModelRunner>, Option<Arc<ModelRunner>>)> {
        if self.drift == 0.0 {
            return Ok((self.runner()?, None));
        }
        let pass = pass_bytes(&self.budget);
        let model = self.runner_in(pass - pass / BESIDE)?;
        let original = model.beside(&Budget::new(pass / BESIDE))?;
        Ok((model, Some(Arc::new(original))))
    }

    fn place(&self, batch: &Batch<'_>) -> Place {
        let bytes = self.budget.limit() / 100 * (100 - PASS_SHARE);
        Place {
            budget: Budget::new(bytes),
            spill: None,
            factor_bytes: bytes,
            chunks: batch.chunks().iter().map(|c| c.len()).collect(),
            originals: None,
            last: Arc::clone(&self.last),
        }
    }

    fn check_interrupt(&self) -> Result<()> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(lsb_stream::Error::Interrupted.into());
        }
        Ok(())
    }

    fn survey_all(
        &mut self,
        visit: &mut dyn FnMut(&str, &Calibration) -> lsb_stream::Result<()>,
    ) -> Result<()> {
        self.weigh()?;
        let model = self.runner()?;
        let mut batch = model.shared_batch(&self.windows)?;
        for block in 0..model.spec().blocks.len() {
            self.check_interrupt()?;
            let stages = stages(&model.spec().blocks[block]);
            let gathered = self.gather(&model, &mut batch, &stages, true, None)?;
            for map in stages.iter().flat_map(Stage::every_map) {
                if let Some(inputs) = gathered.get(&map.tensor) {
                    visit(&map.tensor, &self.known(&map.tensor, inputs)?)?;
                }
            }
        }
        let embedding = &model.spec().embedding.tokens;
        let head = model.spec().head.as_ref().map(|h| &h.map);
        if let Some(head) = head {
            let moments = self.gather_head(head, &mut batch, None)?;
            self.head = Some(moments.clone());
            visit(&head.tensor, &self.known(&head.tensor, &moments)?)?;
        }
        if let Some(weighting) =
            self.weighting.as_ref().filter(|_| head.is_none_or(|h| h.tensor != *embedding))
        {
            visit(embedding, &weighting.embedding(embedding, None)?)?;
        }
        Ok(())
    }

    /// What some stages of the next block are fed with. With `advance` the pass goes on behind it.
    fn gather(
        &mut self,
        model: &ModelRunner,
        batch: &mut Batch<'_>,
        stages: &[Stage<'_>],
        advance: bool,
        originals: Option<Originals>,
    ) -> Result<Known> {
        // Its memory is wanted.
        self.last.clear();
        give_back_now();
        let mut place = self.place(batch);
        place.originals = originals.map(|o| (o, self.drift));
        let layer = model.spec().blocks[batch.next_block()].layer;
        let mut gather = Gather::new(&place, stages);
        if advance {
            batch.step(&mut gather)?;
        } else {
            gather = gather.only_inputs();
            batch.peek(&mut gather)?;
        }
        let mut seen = gather.finish()?;
        let mut known = Known::new();
        for stage in stages {
            let found = self.starved.known(layer, stage, &mut seen, &place.budget);
            known.extend(found.map_err(|e| lsb_stream::Error::codec("")(e))?);
        }
        Ok(known)
    }

    fn gather_head(
        &self,
        map: &MapSpec,
        batch: &mut Batch<'_>,
        originals: Option<Originals>,
    ) -> Result<Arc<dyn Moments>> {
        self.last.clear();
        let mut place = self.place(batch);
        place.originals = originals.map(|o| (o, self.drift));
        let mut gather = Gather::new(&place, &[Stage::alone(vec![map])]);
        for i in 0..batch.chunks().len() {
            let x = batch.output(i)?;
            gather.take(map, &x)?;
        }
        let moments = gather.finish()?.remove(&map.tensor);
        let moments = moments.map(|m| m as Arc<dyn Moments>);
        moments.ok_or_else(|| lsb_format::Error::argument("the calibration text has no tokens").into())
    }

    /// What is known of a map with these inputs.
    fn known(&self, tensor: &str, inputs: &Arc<dyn Moments>) -> Result<Calibration> {
        let inputs = Arc::clone(inputs);
        match &self.weighting {
            None => Ok(Calibration { inputs, outputs: None, relative: false }),
            Some(weighting) if tensor == self.spec.embedding.tokens => {
                weighting.embedding(tensor, Some(inputs))
            }
            Some(weighting) => {
                let (outputs, relative) = weighting.outputs(tensor);
                Ok(Calibration { inputs, outputs, relative })
            }
        }
    }

    /// Estimates what outputs bear, once.
    fn weigh(&mut self) -> Result<()> {
        let Some(seed) = self.seed.filter(|_| self.weighting.is_none()) else { return Ok(()) };
        let _phase = tracing::debug_span!("gradients").entered();
        let model = self.runner()?;
        // Nothing else is in memory yet.
        let (windows, length) = weighting::windows(&self.windows, model.spec(), self.budget.limit());
        let tokens: usize = windows.iter().map(Vec::len).sum();
        let sensitivity = Sensitivity::estimate(&model, &windows, seed)?;
        self.notes.push(format!(
            "What outputs bear was estimated from gradients on {tokens} tokens in sequences of up to {length}."
        ));
        let weighting = Weighting::new(sensitivity, &self.spec);
        self.notes.extend(weighting.notes());
        self.weighting = Some(weighting);
        Ok(())
    }

    /// Brings the following pass to the block of `tensor` and returns what it is fed with there.
    fn inputs(&mut self, tensor: &str) -> Result<Option<Arc<dyn Moments>>> {
        self.check_interrupt()?;
        if self.spec.embedding.tokens == tensor {
            // Only an embedding that is the head too is a map. The pass begins behind it, with what it was made of.
            let tied = self.spec.head.as_ref().is_some_and(|h| h.map.tensor == tensor);
            if self.head.is_none() && tied {
                self.survey_all(&mut |_, _| Ok(()))?;
            }
            return Ok(self.head.clone().filter(|_| tied));
        }
        if self.follower.is_none() {
            let (model, original) = self.runners()?;
            for (name, weights) in self.waiting.drain(..) {
                model.replace(&name, weights);
            }
            let mut batch = model.shared_batch(&self.windows)?;
            let beside = |original| Original::new(&mut batch, original, &self.windows);
            let original = original.map(beside).transpose()?;
            let mut stage_of = HashMap::new();
            for (i, block) in model.spec().blocks.iter().enumerate() {
                for (k, stage) in stages(block).iter().enumerate() {
                    stage_of.extend(stage.every_map().map(|m| (m.tensor.clone(), (i, k))));
                }
            }
            self.follower = Some(Follower { model, batch, original, gathered: Known::new(), stage_of });
        }
        let Some(mut follower) = self.follower.take() else { return Ok(None) };
        let found = self.follow(&mut follower, tensor);
        self.follower = Some(follower);
        found
    }

    fn follow(&mut self, f: &mut Follower, tensor: &str) -> Result<Option<Arc<dyn Moments>>> {
        let model = Arc::clone(&f.model);
        let spec = model.spec();
        let head = spec.head.as_ref().filter(|h| h.map.tensor == tensor);
        let (block, stage) = match (f.stage_of.get(tensor), head) {
            (Some(&place), _) => place,
            (None, Some(_)) => (spec.blocks.len(), 0),
            (None, None) => return Ok(None),
        };
        while f.batch.next_block() < block {
            self.check_interrupt()?;
            f.gathered.clear();
            self.last.clear();
            give_back_now();
            f.batch.step(&mut NoTap)?;
        }
        if let Some(head) = head {
            let beside = f.original.as_mut().map(|o| o.head(&mut f.batch, &head.map)).transpose()?;
            return self.gather_head(&head.map, &mut f.batch, beside).map(Some);
        }
        if !f.gathered.contains_key(tensor) {
            f.gathered.clear();
            let stages = stages(&spec.blocks[block]);
            let beside = f.original.as_mut().map(|o| o.inputs(&mut f.batch, block, &stages)).transpose()?;
            f.gathered = self.gather(&model, &mut f.batch, &stages[stage..=stage], false, beside)?;
        }
        Ok(f.gathered.get(tensor).cloned())
    }
}

impl Calibrator for PassCalibrator {
    fn survey(
        &mut self,
        visit: &mut dyn FnMut(&str, &Calibration) -> lsb_stream::Result<()>,
    ) -> lsb_stream::Result<()> {
        (self.surveyed, self.starved.counted) = (true, true);
        let done = self.survey_all(visit).map_err(stream_error);
        self.starved.counted = false;
        done
    }

    fn calibration(&mut self, tensor: &str) -> lsb_stream::Result<Option<Calibration>> {
        let mut known = || -> Result<Option<Calibration>> {
            self.weigh()?;
            match (self.inputs(tensor)?, &self.weighting) {
                (Some(inputs), _) => self.known(tensor, &inputs).map(Some),
                (None, Some(weighting)) if tensor == self.spec.embedding.tokens => {
                    weighting.embedding(tensor, None).map(Some)
                }
                (None, _) => Ok(None),
            }
        };
        known().map_err(stream_error)
    }

    fn finished(&mut self, tensor: &str, weights: Arc<dyn TensorWeights>) {
        match &mut self.follower {
            Some(f) => {
                // The other maps of its stage are fed with the same as before.
                f.model.replace(tensor, weights);
            }
            None => self.waiting.push((tensor.to_owned(), weights)),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        notes.extend(self.starved.notes());
        let experts = self.spec.blocks.iter().flat_map(stages).any(|s| s.per_token.is_some());
        if experts && !self.surveyed {
            notes.push(starved::GENERAL.to_owned());
        }
        notes
    }
}
