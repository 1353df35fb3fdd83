//! Bytes and loss as functions of the step.

use super::FixedCost;
use crate::number::{exp2, log2};

/// A measured point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatePoint {
    /// `log2(tau)`.
    pub octaves: f64,
    /// Bytes of tiles and side information.
    pub bytes: f64,
    /// What the squared errors of the outputs cost, summed over them, in the unit of [`super::OutputCosts`].
    pub loss: f64,
}

/// What a tensor costs at any step: measured points, straight lines between them.
#[derive(Clone, Debug, PartialEq)]
pub struct RateCurve {
    weights: f64,
    points: Vec<RatePoint>,
    others: Vec<FixedCost>,
}

impl RateCurve {
    /// The curve of a tensor of `weights` weights through `points`, at least one. Where noise makes bytes rise with the step,
    /// the lower of two neighbours counts.
    ///
    /// # Panics
    /// If there are no points.
    pub fn new(weights: u64, mut points: Vec<RatePoint>) -> Self {
        assert!(!points.is_empty(), "a curve of no points");
        points.sort_by(|a, b| a.octaves.total_cmp(&b.octaves));
        for i in 1..points.len() {
            points[i].bytes = points[i].bytes.min(points[i - 1].bytes);
        }
        RateCurve { weights: weights as f64, points, others: Vec::new() }
    }

    /// With other ways to store the tensor.
    #[must_use]
    pub fn with_others(self, others: Vec<FixedCost>) -> Self {
        RateCurve { others, ..self }
    }

    /// The points, from fine to coarse.
    pub fn points(&self) -> &[RatePoint] {
        &self.points
    }

    /// Bytes at a step of `octaves`. Finer than all points, every octave costs a bit per weight; coarser, half of what the last
    /// ones did.
    pub fn bytes(&self, octaves: f64) -> f64 {
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        if octaves <= first.octaves {
            return first.bytes + (first.octaves - octaves) * self.weights / 8.0;
        }
        if octaves >= last.octaves {
            return last.bytes * exp2(last.octaves - octaves);
        }
        let (a, b, t) = self.between(octaves);
        a.bytes + t * (b.bytes - a.bytes)
    }

    /// The loss at a step of `octaves`: a straight line between logarithms. Finer than all points it falls with the square of
    /// the step; coarser than all, so that every octave makes a byte four times as dear.
    pub fn loss(&self, octaves: f64) -> f64 {
        let (first, last) = (self.points[0], self.points[self.points.len() - 1]);
        if octaves <= first.octaves {
            return first.loss * exp2(2.0 * (octaves - first.octaves));
        }
        if octaves >= last.octaves {
            let price = match *self.points {
                [.., a, b] if a.bytes > b.bytes && b.loss > a.loss => (b.loss - a.loss) / (a.bytes - b.bytes),
                // A bit less makes four times the loss.
                _ => 16.0 * std::f64::consts::LN_2 * last.loss / self.weights.max(1.0),
            };
            return last.loss + price * last.bytes * (exp2(octaves - last.octaves) - 1.0);
        }
        let (a, b, t) = self.between(octaves);
        if a.loss.is_normal() && b.loss.is_normal() {
            exp2(log2(a.loss) + t * (log2(b.loss) - log2(a.loss)))
        } else {
            a.loss + t * (b.loss - a.loss)
        }
    }

    /// The other way to store the tensor, and its number, that is cheaper than the step at this price of a byte; `None` where
    /// none is.
    pub fn chosen(&self, octaves: f64, price: f64) -> Option<(usize, FixedCost)> {
        let cost = |bytes: f64, loss: f64| loss + price * bytes;
        let best = self.others.iter().copied().enumerate().min_by(|a, b| {
            cost(a.1.bytes, a.1.loss).total_cmp(&cost(b.1.bytes, b.1.loss)).then(a.0.cmp(&b.0))
        })?;
        let step = cost(self.bytes(octaves), self.loss(octaves));
        (cost(best.1.bytes, best.1.loss) < step).then_some(best)
    }

    /// The points on either side of `octaves`, which lies between the first and the last, and how far it is from one to the
    /// other.
    fn between(&self, octaves: f64) -> (RatePoint, RatePoint, f64) {
        let after = self.points.partition_point(|p| p.octaves <= octaves);
        let (a, b) = (self.points[after - 1], self.points[after]);
        (a, b, (octaves - a.octaves) / (b.octaves - a.octaves))
    }
}
