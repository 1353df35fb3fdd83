//! The metrics of a benchmark by name.

use super::continuation::Compared;
use crate::evaluate::Evaluation;
use crate::metric::WeightError;
use std::str::FromStr;

/// What a benchmark measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Metric {
    /// Perplexity, and its growth over the original's in percent.
    Perplexity,
    /// Mean and 99 % quantile of the KL divergence from the original, in nats.
    Kl,
    /// Share of tokens with the same most likely one.
    Top1,
    /// Mean overlap of the five most likely ones.
    Top5,
    /// Mean correlation and cosine of logits.
    Logits,
    /// Mean correlation of the outputs of linear maps, given the original's inputs.
    Correlation,
    /// BLEU of greedy continuations against the original's, 0 to 100.
    Bleu,
    /// ROUGE-1, -2 and -L of the same, 0 to 1.
    Rouge,
    /// Tokens of greedy continuations until they first differ from the original's.
    Divergence,
    /// SNR of the weights in dB.
    Snr,
}

const NAMES: &[(&str, Metric)] = &[
    ("perplexity", Metric::Perplexity),
    ("kl", Metric::Kl),
    ("top1", Metric::Top1),
    ("top5", Metric::Top5),
    ("logits", Metric::Logits),
    ("correlation", Metric::Correlation),
    ("bleu", Metric::Bleu),
    ("rouge", Metric::Rouge),
    ("divergence", Metric::Divergence),
    ("snr", Metric::Snr),
];

impl FromStr for Metric {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric);
        found.ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("there is no metric of that name; there are {}", known.join(", "))
        })
    }
}

impl Metric {
    /// Whether it needs continuations to be generated.
    pub(super) fn needs_text(self) -> bool {
        matches!(self, Metric::Bleu | Metric::Rouge | Metric::Divergence)
    }

    /// Its values by name; `None` where one is not defined.
    pub(super) fn values(
        self,
        found: &Evaluation,
        weights: &WeightError,
        texts: Option<&Compared>,
    ) -> Vec<(&'static str, Option<f64>)> {
        let against = found.against.as_ref();
        let logits = against.map(|a| &a.logits);
        match self {
            Metric::Perplexity => vec![
                ("perplexity", Some(found.perplexity.perplexity)),
                ("loss_percent", logits.map(|l| l.loss_percent())),
            ],
            Metric::Kl => {
                vec![("kl_mean", logits.map(|l| l.kl_mean)), ("kl_p99", logits.map(|l| l.kl_p99))]
            }
            Metric::Top1 => vec![("top1", logits.map(|l| l.top1))],
            Metric::Top5 => vec![("top5", logits.map(|l| l.top5))],
            Metric::Logits => vec![
                ("logit_correlation", logits.and_then(|l| l.logit_correlation)),
                ("logit_cosine", logits.and_then(|l| l.logit_cosine)),
            ],
            Metric::Correlation => {
                vec![("output_correlation", against.and_then(|a| a.maps.mean_correlation))]
            }
            Metric::Bleu => vec![("bleu", texts.map(|t| t.bleu))],
            Metric::Rouge => vec![
                ("rouge1", texts.map(|t| t.rouge[0])),
                ("rouge2", texts.map(|t| t.rouge[1])),
                ("rougeL", texts.map(|t| t.rouge[2])),
            ],
            Metric::Divergence => vec![("tokens_until_divergence", texts.and_then(|t| t.divergence))],
            Metric::Snr => vec![("weight_snr_db", Some(weights.weight_snr_db))],
        }
    }
}
