//! Runs a model over a text, alone or beside its original, and sums up how well it predicts.
//!
//! Two models go through the text side by side, a block of each at a time; their logits meet a part of the
//! vocabulary at a time. So neither whole models nor logits ever lie in memory, or in a file.

mod embeddings;
mod outputs;
mod saved;
mod scored;
#[cfg(test)]
mod tests;

use crate::Measurement;
pub use embeddings::{EmbeddingEvaluation, evaluate_embeddings};
pub use saved::{evaluate_against_reference, save_reference};

use crate::activation::SignalReport;
use crate::logits::{LogitComparison, LogitTally, PairTally, PerplexityFigures};
use crate::protocol::{Protocol, ProtocolError, ProtocolRecord, Window};
use candle_core::Tensor;
use lsb_model::{Batch, ModelRunner, NoTap};
use outputs::Outputs;
use scored::{Piece, Scored};
use serde::Serialize;
use std::ops::Range;

/// Tokens whose logits lie in memory at once.
const LOGIT_TOKENS: usize = 128;

/// What is measured beyond perplexity and logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluateOptions {
    /// How many tokens the outputs of each linear map are compared for, given the original's inputs: 0 compares
    /// none. This takes one more product and one more decoding of each map of the compressed model.
    pub map_tokens: usize,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        EvaluateOptions { map_tokens: 2048 }
    }
}

/// How well a model predicts a text.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// How the text was cut and scored.
    pub protocol: ProtocolRecord,
    /// The model's own figures.
    pub perplexity: PerplexityFigures,
    /// The same text beside the original.
    pub against: Option<Against>,
}

/// A model beside its original.
#[derive(Clone, Debug, Serialize)]
pub struct Against {
    /// What their logits say.
    pub logits: LogitComparison,
    /// The residual stream behind each layer of the two, each with its own inputs: errors add up.
    pub layers: SignalReport,
    /// Outputs of each linear map, given the original's inputs; empty where none were compared.
    pub maps: SignalReport,
}

impl Evaluation {
    /// The figures by name, for limits on them. `docs/metrics.md` defines each.
    pub fn measurements(&self) -> Vec<Measurement> {
        let protocol =
            format!("{} tokens in windows of {}", self.protocol.scored_tokens, self.protocol.protocol.window);
        let of = |name: &str, value: f64, unit: &str| {
            // A figure that is not defined meets no limit.
            (!value.is_nan()).then(|| Measurement::new(name, value, unit, protocol.clone()))
        };
        let mut all = vec![of("perplexity", self.perplexity.perplexity, "")];
        if let Some(against) = &self.against {
            let logits = &against.logits;
            let some = |x: Option<f64>| x.unwrap_or(f64::NAN);
            all.extend([
                of("perplexity_loss_percent", logits.loss_percent(), "%"),
                of("ln_ratio", logits.ln_ratio, ""),
                of("kl_mean", logits.kl_mean, "nats"),
                of("kl_p99", logits.kl_p99, "nats"),
                of("top1_agreement", logits.top1, ""),
                of("top5_agreement", logits.top5, ""),
                of("logit_correlation", some(logits.logit_correlation), ""),
                of("logit_cosine", some(logits.logit_cosine), ""),
                of("output_correlation", some(against.maps.mean_correlation), ""),
                of("output_snr_db", some(against.maps.mean_snr_db), "dB"),
                of("layer_correlation", some(against.layers.mean_correlation), ""),
            ]);
        }
        all.into_iter().flatten().collect()
    }
}

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// A model could not be run.
    #[error(transparent)]
    Model(#[from] lsb_model::Error),
    /// The text cannot be cut that way.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// There is no sentence to compare.
    #[error("there is no sentence to compare; use a text with a sentence in a line")]
    NoSentences,
    /// A sentence has no tokens.
    #[error("sentence {0} has no tokens")]
    EmptySentence(usize),
    /// A reference could not be read or written.
    #[error(transparent)]
    Reference(#[from] lsb_stream::Error),
    /// The two models cannot be compared.
    #[error("the two models cannot be compared: {0}")]
    Different(String),
}

/// A step of an evaluation that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluateProgress {
    /// Steps done: blocks of each model, then parts of the vocabulary.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// What was done.
    pub what: &'static str,
}

/// A text as bytes and as the ids of its tokens, special ones not added.
#[derive(Clone, Copy, Debug)]
pub struct TokenizedText<'a> {
    /// The bytes, for the protocol's hash.
    pub bytes: &'a [u8],
    /// The ids.
    pub ids: &'a [u32],
}

/// Runs `model` over `text`, beside `original` where there is one.
///
/// # Errors
/// If the text is too short for the protocol, a model cannot be run, or the two have different vocabularies.
pub fn evaluate(
    model: &ModelRunner,
    original: Option<&ModelRunner>,
    text: TokenizedText<'_>,
    protocol: &Protocol,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(EvaluateProgress),
) -> Result<Evaluation, EvaluateError> {
    let windows = protocol.windows(text.ids)?;
    let record = protocol.record(text.bytes, text.ids, &windows);
    let feeds: Vec<Vec<u32>> = windows.iter().map(|w| w.feed.clone()).collect();
    let scored = Scored::new(&windows);
    let (perplexity, against) = match original {
        None => (alone(model, &feeds, &scored, progress)?, None),
        Some(original) => {
            let against = beside([original, model], &feeds, &scored, &windows, options, progress)?;
            (against.logits.model, Some(against))
        }
    };
    Ok(Evaluation { protocol: record, perplexity, against })
}

fn alone(
    model: &ModelRunner,
    feeds: &[Vec<u32>],
    scored: &Scored,
    progress: &mut dyn FnMut(EvaluateProgress),
) -> Result<PerplexityFigures, EvaluateError> {
    let mut tally = LogitTally::new(scored.targets.clone());
    stream_logits(model, feeds, scored, progress, |tokens, first, logits| {
        tally.observe(tokens, first, logits)
    })?;
    Ok(PerplexityFigures::of(tally.finish().iter().map(|t| t.nll)))
}

/// Runs one model over all windows and shows its logits of all scored tokens, a part of the vocabulary at a time.
fn stream_logits(
    model: &ModelRunner,
    feeds: &[Vec<u32>],
    scored: &Scored,
    progress: &mut dyn FnMut(EvaluateProgress),
    mut observe: impl FnMut(Range<usize>, usize, &[f32]),
) -> Result<(), EvaluateError> {
    let head = model.head()?;
    let tiles = head.tiles();
    let mut steps = Steps { done: 0, total: (model.spec().blocks.len() + tiles.len()) as u64, progress };
    let mut batch = model.batch(feeds)?;
    while batch.step(&mut NoTap)?.is_some() {
        steps.done("layers");
    }
    let pieces = scored.pieces(&batch, LOGIT_TOKENS);
    for ids in tiles {
        let tile = head.tile(ids.clone())?;
        for_each_piece(&mut batch, &pieces, |piece, x| {
            observe(piece.tokens.clone(), ids.start, &values(&tile.logits(x)?)?);
            Ok(())
        })?;
        steps.done("logits");
    }
    Ok(())
}

fn beside(
    [original, model]: [&ModelRunner; 2],
    feeds: &[Vec<u32>],
    scored: &Scored,
    windows: &[Window],
    options: EvaluateOptions,
    progress: &mut dyn FnMut(EvaluateProgress),
) -> Result<Against, EvaluateError> {
    check_alike(original, model)?;
    let heads = [original.head()?, model.head()?];
    let tiles = heads[0].tiles();
    let blocks = original.spec().blocks.len();
    let mut steps = Steps { done: 0, total: (blocks + tiles.len()) as u64, progress };
    let mut first = original.batch(feeds)?;
    let mut second = model.batch_like(feeds, &first)?;
    let mut outputs = Outputs::new(model, options.map_tokens);
    outputs.run(&mut first, &mut second, || steps.done("layers"))?;
    let pieces = scored.pieces(&first, LOGIT_TOKENS);
    let mut tally = PairTally::new(scored.targets.clone());
    for ids in tiles {
        let pair = [heads[0].tile(ids.clone())?, heads[1].tile(ids.clone())?];
        let mut theirs = Vec::new();
        for piece in &pieces {
            let logits = |batch: &mut Batch<'_>, tile: &lsb_model::HeadTile<'_>| {
                let x = rows(&batch.output(piece.chunk)?, piece)?;
                values(&tile.logits(&x)?)
            };
            theirs.clear();
            theirs.extend(logits(&mut second, &pair[1])?);
            tally.observe(piece.tokens.clone(), ids.start, &logits(&mut first, &pair[0])?, &theirs);
        }
        steps.done("logits");
    }
    let sizes: Vec<usize> = windows.iter().map(|w| w.targets.len()).collect();
    let logits = LogitComparison::of(&tally.finish(), &sizes);
    let [layers, maps] = outputs.finish();
    Ok(Against { logits, layers, maps })
}

/// Calls `f` with each piece and its hidden states behind the last norm.
fn for_each_piece(
    batch: &mut Batch<'_>,
    pieces: &[Piece],
    mut f: impl FnMut(&Piece, &Tensor) -> Result<(), lsb_model::Error>,
) -> Result<(), lsb_model::Error> {
    for same_chunk in pieces.chunk_by(|a, b| a.chunk == b.chunk) {
        let Some(first) = same_chunk.first() else { continue };
        let x = batch.output(first.chunk)?;
        for piece in same_chunk {
            f(piece, &rows(&x, piece)?)?;
        }
    }
    Ok(())
}

fn rows(x: &Tensor, piece: &Piece) -> Result<Tensor, lsb_model::Error> {
    let part = x.narrow(0, piece.rows.start, piece.rows.len()).and_then(|x| x.contiguous());
    part.map_err(|source| lsb_model::Error::Compute { what: "hidden states".to_owned(), source })
}

fn values(x: &Tensor) -> Result<Vec<f32>, lsb_model::Error> {
    let values = x.flatten_all().and_then(|x| x.to_vec1());
    values.map_err(|source| lsb_model::Error::Compute { what: "logits".to_owned(), source })
}

/// Counts steps and tells them.
struct Steps<'a> {
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(EvaluateProgress),
}

impl Steps<'_> {
    fn done(&mut self, what: &'static str) {
        self.done += 1;
        (self.progress)(EvaluateProgress { done: self.done, total: self.total, what });
    }
}

/// Models can be compared where their blocks and logits have the same shapes.
fn check_alike(original: &ModelRunner, model: &ModelRunner) -> Result<(), EvaluateError> {
    let different = |what: &str, a: usize, b: usize| {
        if a == b {
            return Ok(());
        }
        Err(EvaluateError::Different(format!("the original has {a} {what} and the other {b}")))
    };
    let (a, b) = (original.spec(), model.spec());
    different("logits", original.logits(), model.logits())?;
    different("blocks", a.blocks.len(), b.blocks.len())?;
    different("hidden states", a.hidden, b.hidden)
}
