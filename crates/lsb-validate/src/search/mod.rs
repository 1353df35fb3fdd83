//! The smallest package whose perplexity on held-out text rises by no more than was allowed.

#[cfg(test)]
mod tests;

use serde::Serialize;

/// One package that was made and judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SearchStep {
    /// Bits per weight aimed at.
    pub bpw: f64,
    /// What the perplexity rose by: 0.01 is one percent.
    pub loss: f64,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchReport {
    /// The smallest rate that kept the limit; `None` where none of those tried did.
    pub bpw: Option<f64>,
    /// Everything that was tried, in order.
    pub steps: Vec<SearchStep>,
}

/// Rates between which is searched.
const RANGE: (f64, f64) = (0.5, 8.0);
/// The rate that is tried first.
const START: f64 = 3.0;
/// Packages that are made at most.
const MOST: usize = 8;
/// Width of the bracket, in bits, at which the search ends.
const WIDTH: f64 = 0.01;
/// It ends as well at a loss that is this share of the limit or more.
const CLOSE: f64 = 0.96;

/// Searches for the smallest rate whose loss, as `measure` tells it, is at most `limit`. The logarithm of the loss falls about
/// linearly with the rate, by 2 ln 2 for each bit where errors are small.
///
/// # Errors
/// Those of `measure`.
pub fn smallest_rate<E>(
    limit: f64,
    measure: &mut dyn FnMut(f64) -> Result<f64, E>,
) -> Result<SearchReport, E> {
    let mut steps: Vec<SearchStep> = Vec::new();
    let (mut below, mut above): (Option<SearchStep>, Option<SearchStep>) = (None, None);
    let mut next = START;
    while steps.len() < MOST {
        let step = SearchStep { bpw: next, loss: measure(next)? };
        steps.push(step);
        if step.loss <= limit {
            above = Some(above.filter(|a| a.bpw <= step.bpw).unwrap_or(step));
        } else {
            below = Some(below.filter(|b| b.bpw >= step.bpw).unwrap_or(step));
        }
        if above.is_some_and(|a| a.loss >= CLOSE * limit || a.bpw <= RANGE.0) {
            break;
        }
        if below.is_some_and(|b| b.bpw >= RANGE.1) {
            break;
        }
        let log = |s: SearchStep| s.loss.max(1e-3 * limit).ln();
        next = match (below, above) {
            (Some(b), Some(a)) if a.bpw - b.bpw < WIDTH => break,
            (Some(b), Some(a)) => {
                // Between the two, a little on the safe side; never so near an end that nothing is learned.
                let slope = (log(a) - log(b)) / (a.bpw - b.bpw);
                let guess = b.bpw + (limit.ln() - log(b) - 0.02) / slope.min(-0.1);
                let margin = 0.1 * (a.bpw - b.bpw);
                guess.clamp(b.bpw + margin, a.bpw - margin)
            }
            _ => {
                let excess = log(step) - limit.ln() + 0.02;
                // Ever longer steps, as long as all lie on one side.
                let far = (steps.len() as f64 * excess / 1.3).clamp(-2.0, 2.0);
                (step.bpw + far).clamp(RANGE.0, RANGE.1)
            }
        };
    }
    Ok(SearchReport { bpw: above.map(|a| a.bpw), steps })
}
