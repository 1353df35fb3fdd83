//! ROUGE-1, ROUGE-2 and ROUGE-L as the `rouge-score` package computes them, without a stemmer.
//!
//! Lin, "ROUGE: a package for automatic evaluation of summaries", ACL workshop 2004. Each score is the
//! balanced F of precision and recall. ROUGE-L takes a text as one sequence of words, line ends or not.

use super::words::{alphanumeric, shared_runs};
use serde::Serialize;

/// F scores of one pair, or their means over pairs, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rouge {
    /// Of single words.
    pub rouge1: f64,
    /// Of pairs of neighbouring words.
    pub rouge2: f64,
    /// Of the longest common subsequence.
    pub rouge_l: f64,
}

/// ROUGE of a text against its reference; 0 where either has no words. Time grows with the product of their
/// lengths, memory with the hypothesis.
pub fn rouge(hypothesis: &str, reference: &str) -> Rouge {
    let (hypothesis, reference) = (alphanumeric(hypothesis), alphanumeric(reference));
    let of_runs = |n| {
        let (shared, found, wanted) = shared_runs(&hypothesis, &reference, n);
        f_measure(shared, found, wanted)
    };
    let longest = longest_common_subsequence(&hypothesis, &reference);
    Rouge {
        rouge1: of_runs(1),
        rouge2: of_runs(2),
        rouge_l: f_measure(longest, hypothesis.len(), reference.len()),
    }
}

/// Mean of the ROUGE scores of pairs of a hypothesis and its reference; zero for no pairs.
pub fn corpus_rouge<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Rouge {
    let (mut sum, mut n) = (Rouge::default(), 0.0f64);
    for (hypothesis, reference) in pairs {
        let score = rouge(hypothesis, reference);
        sum.rouge1 += score.rouge1;
        sum.rouge2 += score.rouge2;
        sum.rouge_l += score.rouge_l;
        n += 1.0;
    }
    let n = n.max(1.0);
    Rouge { rouge1: sum.rouge1 / n, rouge2: sum.rouge2 / n, rouge_l: sum.rouge_l / n }
}

/// `2 P R / (P + R)` with `P = shared / found` and `R = shared / wanted`.
fn f_measure(shared: usize, found: usize, wanted: usize) -> f64 {
    if shared == 0 { 0.0 } else { 2.0 * shared as f64 / (found + wanted) as f64 }
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    // `row[j]`: its length between the words of `b` so far and the first `j` of `a`.
    let mut row = vec![0usize; a.len() + 1];
    for word in b {
        let mut diagonal = 0;
        for (j, other) in a.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if word == other { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[a.len()]
}
