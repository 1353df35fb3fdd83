//! Adam (D. Kingma and J. Ba, 2015) without weight decay.

const BETAS: [f64; 2] = [0.9, 0.99];
const EPSILON: f64 = 1e-12;

/// Running moments of the gradients of some parameters.
#[derive(Clone, Debug)]
pub(super) struct Adam {
    /// Means of gradients and of their squares, each with the weight that is still missing.
    moments: [Vec<f64>; 2],
    steps: i32,
}

impl Adam {
    pub(super) fn new(parameters: usize) -> Adam {
        Adam { moments: [vec![0.0; parameters], vec![0.0; parameters]], steps: 0 }
    }

    /// As [`Adam::moments`] and [`Adam::steps`] told.
    pub(super) fn from_parts(moments: [Vec<f64>; 2], steps: i32) -> Adam {
        Adam { moments, steps }
    }

    /// Running means of gradients and of their squares.
    pub(super) fn moments(&self) -> &[Vec<f64>; 2] {
        &self.moments
    }

    /// Steps done.
    pub(super) fn steps(&self) -> i32 {
        self.steps
    }

    /// Moves `parameters` against `gradients`, each by about `rate`. What has no gradient stays.
    pub(super) fn step(&mut self, parameters: &mut [f64], gradients: &[f64], rate: f64) {
        self.steps += 1;
        let seen = BETAS.map(|beta| 1.0 - beta.powi(self.steps));
        let [means, squares] = &mut self.moments;
        for ((p, &g), (m, v)) in parameters.iter_mut().zip(gradients).zip(means.iter_mut().zip(squares)) {
            *m += (1.0 - BETAS[0]) * (g - *m);
            *v += (1.0 - BETAS[1]) * (g * g - *v);
            *p -= rate * (*m / seen[0]) / ((*v / seen[1]).sqrt() + EPSILON);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bowl_is_descended_whatever_its_units() {
        let mut x = [3.0, -2.0, 7.0];
        let mut adam = Adam::new(3);
        for i in 0..400 {
            let g = [2.0 * x[0], 2e-6 * x[1], 0.0];
            adam.step(&mut x, &g, 0.05 * (1.0 - f64::from(i) / 400.0));
        }
        assert!(x[0].abs() < 0.02 && x[1].abs() < 0.02, "{x:?}");
        assert_eq!(x[2], 7.0);
    }
}
