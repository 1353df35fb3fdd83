//! How long two models, continuing the same prompt, say the same.

use serde::Serialize;

/// Ids that two sequences have in common before they first differ.
pub fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Tokens until first divergence, over continuations of several prompts.
///
/// A pair that never differs counts with its length, so mean and median are lower bounds where
/// `identical` is above zero, and grow with the length generated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Continuations compared.
    pub pairs: u64,
    /// Mean number of tokens before the first that differs.
    pub mean_tokens: f64,
    /// Its median; of an even number of pairs the mean of the two in the middle.
    pub median_tokens: f64,
    /// Share of pairs that are equal from beginning to end.
    pub identical: f64,
}

impl Divergence {
    /// Figures of pairs of continuations. `None` for no pairs.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a [u32], &'a [u32])>) -> Option<Self> {
        let (mut lengths, mut identical) = (Vec::new(), 0usize);
        for (a, b) in pairs {
            lengths.push(common_prefix(a, b));
            identical += usize::from(a == b);
        }
        lengths.sort_unstable();
        let n = lengths.len();
        let (low, high) = (lengths.get(n.checked_sub(1)? / 2)?, lengths.get(n / 2)?);
        Some(Divergence {
            pairs: n as u64,
            mean_tokens: lengths.iter().sum::<usize>() as f64 / n as f64,
            median_tokens: (low + high) as f64 / 2.0,
            identical: identical as f64 / n as f64,
        })
    }
}
