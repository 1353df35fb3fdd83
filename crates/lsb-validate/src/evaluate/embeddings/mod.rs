//! Runs a sentence encoder over sentences beside its original: how far the vectors turn.

#[cfg(test)]
mod tests;

use super::outputs::Outputs;
use super::{EvaluateError, EvaluateOptions, EvaluateProgress, Steps, check_alike};
use crate::Measurement;
use crate::activation::{SignalReport, SignalTally};
use crate::logits::statistics::{mean, quantile, standard_error};
use crate::metric::finite_or_null;
use crate::protocol::ids_blake3;
use lsb_model::{ModelRunner, Pooling};
use serde::Serialize;
use std::ops::Range;

/// Tokens that go through the models together: enough for the weights of a block to be read seldom, and few enough for
/// hidden states to lie in memory.
const GROUP_TOKENS: usize = 1 << 14;

/// A sentence encoder beside its original.
#[derive(Clone, Debug, Serialize)]
pub struct EmbeddingEvaluation {
    /// How hidden states became vectors.
    pub pooling: Pooling,
    /// Sentences compared.
    pub sentences: usize,
    /// Their tokens, the special ones among them.
    pub tokens: usize,
    /// BLAKE3 of the ids of all sentences, one behind the other, each as four little-endian bytes, in hexadecimal.
    pub ids_blake3: String,
    /// Mean over the sentences of the cosine of the angle between the original's vector and the other's.
    pub cosine_mean: f64,
    /// Its standard error, sentences taken as independent; infinite for one sentence.
    #[serde(serialize_with = "finite_or_null")]
    pub cosine_mean_se: f64,
    /// The cosine that 1 % of the sentences lie below.
    pub cosine_p1: f64,
    /// The lowest cosine.
    pub cosine_min: f64,
    /// Sentences whose cosine is not defined, because a vector is zero, NaN or infinite. It counts as 0.
    pub broken_sentences: usize,
    /// The residual stream behind each layer of the two, each with its own inputs: errors add up.
    pub layers: SignalReport,
    /// Outputs of each linear map, given the original's inputs; empty where none were compared.
    pub maps: SignalReport,
}

impl EmbeddingEvaluation {
    /// The figures by name, for limits on them. `docs/metrics.md` defines each.
    pub fn measurements(&self) -> Vec<Measurement> {
        let protocol = format!("{} sentences of {} tokens in all", self.sentences, self.tokens);
        let of = |name: &str, value: Option<f64>, unit: &str| {
            value.map(|value| Measurement::new(name, value, unit, protocol.clone()))
        };
        let all = [
            of("embedding_cosine_mean", Some(self.cosine_mean), ""),
            of("embedding_cosine_min", Some(self.cosine_min), ""),
            of("output_correlation", self.maps.mean_correlation, ""),
            of("output_snr_db", self.maps.mean_snr_db, "dB"),
            of("layer_correlation", self.layers.mean_correlation, ""),
        ];
        all.into_iter().flatten().collect()
    }
}

/// Runs `model` over `sentences` beside its `original`, and compares the vectors that `pooling` makes. A sentence is
/// token ids with the special ones. Outputs of linear maps are compared for the first
/// [`map_tokens`](EvaluateOptions::map_tokens) tokens of all.
///
/// # Errors
/// If there are no sentences, one has no tokens or more than the models allow, a model cannot be run, or the two have
/// different shapes.
pub fn evaluate_embeddings(
    original: &ModelRunner,
    model: &ModelRunner,
    sentences: &[Vec<u32>],
    pooling: Pooling,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(EvaluateProgress),
) -> Result<EmbeddingEvaluation, EvaluateError> {
    check_alike(original, model)?;
    if sentences.is_empty() {
        return Err(EvaluateError::NoSentences);
    }
    if let Some(empty) = sentences.iter().position(Vec::is_empty) {
        return Err(EvaluateError::EmptySentence(empty));
    }
    in_groups([original, model], sentences, GROUP_TOKENS, pooling, options, progress)
}

/// [`evaluate_embeddings`] with groups of at most `group_tokens` tokens.
fn in_groups(
    [original, model]: [&ModelRunner; 2],
    sentences: &[Vec<u32>],
    group_tokens: usize,
    pooling: Pooling,
    options: EvaluateOptions,
    progress: &mut dyn FnMut(EvaluateProgress),
) -> Result<EmbeddingEvaluation, EvaluateError> {
    let lengths: Vec<usize> = sentences.iter().map(Vec::len).collect();
    let groups = groups(&lengths, group_tokens);
    let total = (groups.len() * original.spec().blocks.len()) as u64;
    let mut steps = Steps { done: 0, total, progress };
    let mut outputs = Outputs::new(model, options.map_tokens);
    let mut cosines = Vec::with_capacity(sentences.len());
    for group in groups {
        let windows = &sentences[group];
        let mut first = original.batch(windows)?;
        let mut second = model.batch_like(windows, &first)?;
        outputs.run(&mut first, &mut second, || steps.done("layers"))?;
        let (ours, theirs) = (first.pooled(pooling)?, second.pooled(pooling)?);
        cosines.extend(ours.iter().zip(&theirs).map(|(a, b)| cosine(a, b)));
    }
    let broken_sentences = cosines.iter().filter(|cosine| cosine.is_none()).count();
    let mut cosines: Vec<f64> = cosines.into_iter().map(Option::unwrap_or_default).collect();
    let (cosine_mean, cosine_mean_se) =
        (mean(cosines.iter().copied()), standard_error(cosines.iter().copied()));
    cosines.sort_by(f64::total_cmp);
    let [layers, maps] = outputs.finish();
    Ok(EmbeddingEvaluation {
        pooling,
        sentences: sentences.len(),
        tokens: lengths.iter().sum(),
        ids_blake3: ids_blake3(sentences.iter().flatten()),
        cosine_mean,
        cosine_mean_se,
        cosine_p1: quantile(&cosines, 0.01),
        cosine_min: quantile(&cosines, 0.0),
        broken_sentences,
        layers,
        maps,
    })
}

fn cosine(original: &[f32], other: &[f32]) -> Option<f64> {
    let mut tally = SignalTally::default();
    tally.observe(original, other);
    tally.figures().cosine
}

/// Cuts sentences of these lengths into groups of at most `most` tokens; one that is longer is a group of its own.
fn groups(lengths: &[usize], most: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (index, &length) in lengths.iter().enumerate() {
        match groups.last_mut().filter(|_| tokens + length <= most) {
            Some(group) => group.end = index + 1,
            None => {
                groups.push(index..index + 1);
                tokens = 0;
            }
        }
        tokens += length;
    }
    groups
}
