//! From logits to the next token, and from tokens to where a text ends.
//!
//! Filters follow the definitions and the order of Hugging Face transformers: repetition penalty, temperature,
//! top-k, top-p, min-p. The same options, logits and history give the same token on every machine and with any
//! number of threads, up to the rounding of `exp`.

mod options;
mod random;
mod stop;
#[cfg(test)]
mod tests;

pub use options::SamplerOptions;
pub use stop::StopStrings;

use crate::error::{Error, Result};
pub(crate) use random::Random;

/// Draws the next token.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    random: Random,
}

/// A token that may still be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    logit: f32,
    /// `exp(logit - largest)`: a probability once divided by the sum.
    weight: f64,
}

impl Sampler {
    /// A sampler whose random numbers begin at `options.seed`.
    ///
    /// # Errors
    /// As [`SamplerOptions::check`].
    pub fn new(options: SamplerOptions) -> Result<Sampler> {
        options.check()?;
        Ok(Sampler { options, random: Random::new(options.seed) })
    }

    /// The next token, given `logits` (one for each token of the vocabulary) and the tokens before it, oldest
    /// first. The repetition penalty is applied to `logits` in place. Greedy choice takes the lowest id among
    /// equals and no random number; drawing takes exactly one.
    ///
    /// # Errors
    /// [`Error::Text`] if `logits` is empty, has a NaN or a positive infinity, or leaves no token to choose.
    pub fn next(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32> {
        if let Some(at) = logits.iter().position(|l| l.is_nan() || *l == f32::INFINITY) {
            return Err(Error::Text(format!(
                "the logit of token {at} is {}: the weights are damaged or overflowed; check the model with \
                 `lsb validate`, or compress it at a higher rate",
                logits.get(at).copied().unwrap_or(f32::NAN)
            )));
        }
        self.penalize(logits, history);
        let best = greedy(logits)?;
        if self.options.temperature == 0.0 {
            return Ok(best);
        }
        let kept = self.candidates(logits, best);
        Ok(self.draw(&kept).unwrap_or(best))
    }

    /// Makes tokens of the recent history less likely (Keskar et al. 2019, CTRL, section 4.1).
    fn penalize(&self, logits: &mut [f32], history: &[u32]) {
        let penalty = self.options.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        let recent = match self.options.repetition_window {
            0 => history,
            window => history.get(history.len().saturating_sub(window)..).unwrap_or(history),
        };
        let mut seen = recent.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
    }

    /// What the filters leave, most likely first; equals in order of id. Never empty.
    fn candidates(&self, logits: &[f32], best: u32) -> Vec<Candidate> {
        let o = &self.options;
        let temperature = f64::from(o.temperature);
        let largest = logits.get(best as usize).map_or(0.0, |l| f64::from(*l));
        let mut kept: Vec<Candidate> = (0u32..)
            .zip(logits)
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(id, &logit)| {
                let weight = ((f64::from(logit) - largest) / temperature).exp();
                Candidate { id, logit, weight }
            })
            .collect();
        let order = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id));
        if o.top_k > 0 && o.top_k < kept.len() {
            kept.select_nth_unstable_by(o.top_k, order);
            // Equals of the last one kept would stay in transformers; an exact count is what the name says.
            kept.truncate(o.top_k);
        }
        kept.sort_unstable_by(order);
        if o.top_p < 1.0 {
            let total: f64 = kept.iter().map(|c| c.weight).sum();
            let wanted = f64::from(o.top_p) * total;
            let mut sum = 0.0;
            let n = kept.iter().take_while(|c| {
                let before = sum;
                sum += c.weight;
                before < wanted
            });
            let n = n.count().max(1);
            kept.truncate(n);
        }
        if o.min_p > 0.0 {
            // The largest weight is 1, so a weight is its probability relative to the best token's.
            kept.retain(|c| c.weight >= f64::from(o.min_p));
        }
        kept
    }

    /// Draws one of `kept` by its weight.
    fn draw(&mut self, kept: &[Candidate]) -> Option<u32> {
        let total: f64 = kept.iter().map(|c| c.weight).sum();
        let mut left = self.random.unit() * total;
        for candidate in kept {
            left -= candidate.weight;
            if left < 0.0 {
                return Some(candidate.id);
            }
        }
        // Rounding may leave a trace of the last weight.
        kept.last().map(|c| c.id)
    }
}

/// The lowest id among the largest logits.
fn greedy(logits: &[f32]) -> Result<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &logit) in (0u32..).zip(logits) {
        if logit > best.map_or(f32::NEG_INFINITY, |(_, l)| l) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id).ok_or_else(|| {
        Error::Text("no token can be chosen: there are no logits above minus infinity".to_owned())
    })
}
