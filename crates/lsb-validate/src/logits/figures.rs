//! Figures over all scored tokens, with their standard errors.

use super::pair::TokenComparison;
use super::statistics::{finite_or_infinite, grouped_standard_error, mean, quantile, standard_error};
use crate::metric::{finite_or_null, infinite_if_null};
use serde::{Deserialize, Serialize};

/// How well a model predicts a text. In JSON an infinite figure is `null`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerplexityFigures {
    /// `e^nll`; infinite where some logit was NaN or infinite.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub perplexity: f64,
    /// Mean of `-ln p(target)` over the tokens, in nats.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub nll: f64,
    /// Tokens scored.
    pub tokens: u64,
    /// Standard error of the perplexity: itself times that of `nll` over tokens taken as independent (the
    /// convention of published tables).
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub standard_error: f64,
}

impl PerplexityFigures {
    /// Figures of `nll`s, one per scored token, in nats.
    pub fn of(nll: impl Iterator<Item = f64> + Clone) -> Self {
        let error = standard_error(nll.clone());
        let tokens = nll.clone().count() as u64;
        let nll = mean(nll);
        let perplexity = nll.exp();
        PerplexityFigures { perplexity, nll, tokens, standard_error: finite_or_infinite(perplexity * error) }
    }
}

/// How far a model's predictions are from the original's, over the same tokens. In JSON an infinite figure
/// is `null`; every error is a standard error (one sigma).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogitComparison {
    /// The original alone.
    pub original: PerplexityFigures,
    /// The other model alone.
    pub model: PerplexityFigures,
    /// `ln(perplexity / original perplexity)`: the mean difference of the two `-ln p(target)`.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub ln_ratio: f64,
    /// Its error, from the differences per token (paired: what makes a token hard for both cancels).
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub ln_ratio_se: f64,
    /// The same without taking tokens of one window as independent: from the windows' sums of differences.
    /// The more honest one, once there are enough windows to estimate it (from about ten); `None` for one.
    pub ln_ratio_se_windows: Option<f64>,
    /// Mean KL divergence of the model from the original, in nats.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub kl_mean: f64,
    /// Its error over tokens.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub kl_mean_se: f64,
    /// Median KL divergence of a token.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub kl_median: f64,
    /// The KL divergence that 99 % of tokens stay below.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub kl_p99: f64,
    /// The largest KL divergence of a token.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub kl_max: f64,
    /// How many ids of the original the KL divergences rest on, the rest lumped together, which makes them
    /// lower bounds; `None` where they are exact.
    pub kl_top: Option<u32>,
    /// Share of tokens whose most likely id is the same.
    pub top1: f64,
    /// Its error.
    #[serde(serialize_with = "finite_or_null", deserialize_with = "infinite_if_null")]
    pub top1_se: f64,
    /// Mean share of the original's five most likely ids that are among the model's five.
    pub top5: f64,
    /// Mean over tokens of the Pearson correlation of logits; `None` where no token has one.
    pub logit_correlation: Option<f64>,
    /// Mean over tokens of the cosine of logits; `None` where no token has one.
    pub logit_cosine: Option<f64>,
    /// Tokens scored.
    pub tokens: u64,
    /// Tokens for which a logit of either model was NaN or infinite. One is enough to make means infinite.
    pub broken_tokens: u64,
}

impl LogitComparison {
    /// Sums up `tokens`, which come from windows of these sizes, in order. `windows` sum to the number of
    /// tokens.
    pub fn of(tokens: &[TokenComparison], windows: &[usize]) -> Self {
        let differences: Vec<f64> =
            tokens.iter().map(|t| finite_or_infinite(t.nll - t.original_nll)).collect();
        let mut kl: Vec<f64> = tokens.iter().map(|t| t.kl).collect();
        let (kl_mean, kl_mean_se) = (mean(kl.iter().copied()), standard_error(kl.iter().copied()));
        kl.sort_by(f64::total_cmp);
        let same = tokens.iter().map(|t| f64::from(u8::from(t.top1)));
        let is_broken =
            |t: &&TokenComparison| !(t.kl.is_finite() && t.nll.is_finite() && t.original_nll.is_finite());
        LogitComparison {
            original: PerplexityFigures::of(tokens.iter().map(|t| t.original_nll)),
            model: PerplexityFigures::of(tokens.iter().map(|t| t.nll)),
            ln_ratio: mean(differences.iter().copied()),
            ln_ratio_se: standard_error(differences.iter().copied()),
            ln_ratio_se_windows: (windows.len() > 1)
                .then(|| grouped_standard_error(&differences, windows))
                .filter(|error| error.is_finite()),
            kl_mean,
            kl_mean_se,
            kl_median: quantile(&kl, 0.5),
            kl_p99: quantile(&kl, 0.99),
            kl_max: kl.last().copied().unwrap_or(f64::INFINITY),
            kl_top: None,
            top1: share(same.clone()),
            top1_se: standard_error(same),
            top5: share(tokens.iter().map(|t| f64::from(t.top5))),
            logit_correlation: mean_of_some(tokens.iter().map(|t| t.correlation)),
            logit_cosine: mean_of_some(tokens.iter().map(|t| t.cosine)),
            tokens: tokens.len() as u64,
            broken_tokens: tokens.iter().filter(is_broken).count() as u64,
        }
    }

    /// Growth of the perplexity in percent, `100 (e^ln_ratio - 1)`; infinite where a logit was.
    pub fn loss_percent(&self) -> f64 {
        100.0 * self.ln_ratio.exp_m1()
    }
}

/// Mean of shares, zero for none.
fn share(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), x| (sum + x, n + 1));
    if n == 0 { 0.0 } else { sum / n as f64 }
}

/// Mean of what is there.
fn mean_of_some(values: impl Iterator<Item = Option<f32>>) -> Option<f64> {
    let (sum, n) = values.flatten().fold((0.0, 0u64), |(sum, n), x| (sum + f64::from(x), n + 1));
    (n > 0).then(|| sum / n as f64)
}
