//! BLEU as sacreBLEU computes it by default.
//!
//! Papineni et al., "BLEU: a method for automatic evaluation of machine translation", ACL 2002; Post, "A call
//! for clarity in reporting BLEU scores", WMT 2018. Signature: `nrefs:1|case:mixed|tok:13a|smooth:exp`, with
//! `eff:no` for a corpus and `eff:yes` for a sentence.

use super::words::{shared_runs, thirteen_a};
use serde::Serialize;

/// Longest run of words that counts.
const ORDER: usize = 4;

/// A BLEU score and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bleu {
    /// The score, 0 to 100.
    pub score: f64,
    /// Precision in percent of runs of one to four words, smoothed where nothing matches.
    pub precisions: [f64; ORDER],
    /// `e^(1 - reference/hypothesis)` where the hypotheses are shorter, else 1.
    pub brevity_penalty: f64,
    /// Words of the hypotheses.
    pub hypothesis_words: usize,
    /// Words of the references.
    pub reference_words: usize,
}

/// Matches summed over sentences.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    matches: [usize; ORDER],
    totals: [usize; ORDER],
    hypothesis: usize,
    reference: usize,
}

impl Counts {
    fn add(&mut self, hypothesis: &str, reference: &str) {
        let (hypothesis, reference) = (thirteen_a(hypothesis), thirteen_a(reference));
        for (n, (matches, total)) in self.matches.iter_mut().zip(&mut self.totals).enumerate() {
            let (shared, of_hypothesis, _) = shared_runs(&hypothesis, &reference, n + 1);
            *matches += shared;
            *total += of_hypothesis;
        }
        self.hypothesis += hypothesis.len();
        self.reference += reference.len();
    }

    /// With `effective_order`, orders for which the hypothesis has no words are left out of the mean.
    fn score(&self, effective_order: bool) -> Bleu {
        let (hypothesis, reference) = (self.hypothesis as f64, self.reference as f64);
        let brevity_penalty = match (self.hypothesis, self.reference) {
            (h, r) if h >= r => 1.0,
            (0, _) => 0.0,
            _ => (1.0 - reference / hypothesis).exp(),
        };
        let mut bleu = Bleu {
            score: 0.0,
            precisions: [0.0; ORDER],
            brevity_penalty,
            hypothesis_words: self.hypothesis,
            reference_words: self.reference,
        };
        if self.matches == [0; ORDER] {
            return bleu;
        }
        // Each order without a match counts half as much as the one before it ("exp" smoothing).
        let (mut halved, mut order) = (1.0, ORDER);
        for (n, (&matches, &total)) in self.matches.iter().zip(&self.totals).enumerate() {
            if total == 0 {
                break;
            }
            if effective_order {
                order = n + 1;
            }
            bleu.precisions[n] = if matches == 0 {
                halved *= 2.0;
                100.0 / (halved * total as f64)
            } else {
                100.0 * matches as f64 / total as f64
            };
        }
        // An order that has no words at all has precision zero, and with it the score is.
        let logs: f64 = bleu.precisions[..order].iter().map(|p| p.ln()).sum();
        bleu.score = brevity_penalty * (logs / order as f64).exp();
        bleu
    }
}

/// BLEU of pairs of a hypothesis and its reference, matches added up over all before they are scored: not the
/// mean of the sentences' scores. Zero for no pairs.
pub fn corpus_bleu<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Bleu {
    let mut counts = Counts::default();
    for (hypothesis, reference) in pairs {
        counts.add(hypothesis, reference);
    }
    counts.score(false)
}

/// BLEU of one pair, over the orders that the hypothesis is long enough for.
pub fn sentence_bleu(hypothesis: &str, reference: &str) -> Bleu {
    let mut counts = Counts::default();
    counts.add(hypothesis, reference);
    counts.score(true)
}
