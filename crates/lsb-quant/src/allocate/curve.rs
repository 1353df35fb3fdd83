//! Bytes as a function of the step.

/// A measured point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatePoint {
    /// `log2(tau)`.
    pub octaves: f64,
    /// Bytes of tiles and side information.
    pub bytes: f64,
    /// Squared error of the outputs in units of what they bear, summed.
    pub loss: f64,
}

/// What a tensor costs at any step: measured points, straight lines between them.
#[derive(Clone, Debug, PartialEq)]
pub struct RateCurve {
    weights: f64,
    points: Vec<RatePoint>,
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
        RateCurve { weights: weights as f64, points }
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
            return last.bytes * (last.octaves - octaves).exp2();
        }
        let after = self.points.partition_point(|p| p.octaves <= octaves);
        let (a, b) = (self.points[after - 1], self.points[after]);
        let t = (octaves - a.octaves) / (b.octaves - a.octaves);
        a.bytes + t * (b.bytes - a.bytes)
    }
}
