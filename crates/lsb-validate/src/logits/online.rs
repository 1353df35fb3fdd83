//! The log-sum-exp of one token, in one pass over its vocabulary.

use super::kernel::{Largest, Scan, SumExp, exp};
use pulp::Arch;

/// Logits summed together: small enough for the first-level cache, so that the two looks at each (largest,
/// then sums) cost one read.
pub(super) const BLOCK: usize = 1024;

/// Running sum of exponentials under a running largest logit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Online {
    /// Largest logit so far.
    pub(super) shift: f32,
    /// `sum e^(v - shift)` so far.
    pub(super) sum: f64,
    /// Logit of the target; NaN until it was shown.
    pub(super) target: f32,
    /// Whether all logits were finite.
    pub(super) finite: bool,
}

impl Default for Online {
    fn default() -> Self {
        Online { shift: f32::MIN, sum: 0.0, target: f32::NAN, finite: true }
    }
}

impl Online {
    /// Moves the shift up to `max`. Returns how far, zero or less, and the factor `e^-that` for sums under it.
    pub(super) fn raise(&mut self, max: f32) -> (f64, f64) {
        if max <= self.shift {
            return (0.0, 1.0);
        }
        let by = f64::from(self.shift) - f64::from(max);
        let factor = exp(by);
        self.shift = max;
        self.sum *= factor;
        (by, factor)
    }

    /// Remembers the logit of `target` if it is among the logits of ids `first..`.
    pub(super) fn look_for(&mut self, target: u32, first: usize, logits: &[f32]) {
        let at = (target as usize).checked_sub(first);
        if let Some(&logit) = at.and_then(|at| logits.get(at)) {
            self.target = logit;
        }
    }

    /// Takes in the logits of ids `first..`, block by block, and shows each block, its first id and its
    /// largest logit to `then`.
    pub(super) fn observe(
        &mut self,
        arch: Arch,
        (first, logits): (usize, &[f32]),
        target: u32,
        mut then: impl FnMut(u32, &[f32], f32),
    ) {
        self.look_for(target, first, logits);
        for (block, values) in logits.chunks(BLOCK).enumerate() {
            let scan = arch.dispatch(Largest(values));
            self.add(arch, values, scan);
            if scan.finite {
                then((first + block * BLOCK) as u32, values, scan.max);
            }
        }
    }

    /// Adds one block to the sum, or remembers that it has values that are no numbers.
    pub(super) fn add(&mut self, arch: Arch, values: &[f32], scan: Scan) {
        self.finite &= scan.finite;
        if scan.finite {
            self.raise(scan.max);
            self.sum += arch.dispatch(SumExp { values, shift: self.shift });
        }
    }

    /// `ln sum e^v` over the vocabulary; infinite where a logit was not finite or none was shown.
    pub(super) fn log_sum_exp(&self) -> f64 {
        if self.finite && self.sum > 0.0 { f64::from(self.shift) + self.sum.ln() } else { f64::INFINITY }
    }

    /// `-ln p(target)`; infinite where a logit was not finite or the target was not shown.
    pub(super) fn nll(&self) -> f64 {
        let nll = self.log_sum_exp() - f64::from(self.target);
        if nll.is_finite() { nll } else { f64::INFINITY }
    }
}
