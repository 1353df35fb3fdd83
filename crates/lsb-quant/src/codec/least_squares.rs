//! Least squares for a few numbers.

/// The most unknowns.
pub(crate) const NUMBERS: usize = 8;

/// One value per unknown; unused ones are zero.
pub(crate) type PerNumber<T> = [T; NUMBERS];

/// Least squares of weights on a few directions, such as the signs of planes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NormalEquations {
    /// Sum of products of two directions.
    pub(crate) gram: PerNumber<PerNumber<f64>>,
    /// Sum of products of weight and direction.
    pub(crate) moments: PerNumber<f64>,
}

/// Share of the diagonal added to it, so that directions that agree everywhere still have a solution.
const RIDGE: f64 = 1e-7;

impl NormalEquations {
    /// The first `numbers` of the best unknowns.
    #[expect(clippy::needless_range_loop, reason = "several rows and columns of one matrix at a time")]
    pub(crate) fn solve(&self, numbers: usize) -> PerNumber<f64> {
        let (mut a, mut x) = (self.gram, self.moments);
        for k in 0..numbers {
            a[k][k] += RIDGE * a[k][k];
        }
        // Symmetric and positive: elimination needs no pivoting. An empty direction gets nothing.
        for k in 0..numbers {
            if a[k][k] <= 0.0 {
                continue;
            }
            for i in k + 1..numbers {
                let f = a[i][k] / a[k][k];
                for j in k..numbers {
                    a[i][j] -= f * a[k][j];
                }
                x[i] -= f * x[k];
            }
        }
        let mut out = [0.0; NUMBERS];
        for k in (0..numbers).rev() {
            let known: f64 = (k + 1..numbers).map(|j| a[k][j] * out[j]).sum();
            out[k] = if a[k][k] > 0.0 { (x[k] - known) / a[k][k] } else { 0.0 };
        }
        out
    }

    /// Squared error with these scales, less the sum of squares of the weights.
    pub(crate) fn error(&self, scales: &PerNumber<f64>, numbers: usize) -> f64 {
        let mut total = 0.0;
        for i in 0..numbers {
            let row: f64 = (0..numbers).map(|j| self.gram[i][j] * scales[j]).sum();
            total += scales[i] * (row - 2.0 * self.moments[i]);
        }
        total
    }
}
