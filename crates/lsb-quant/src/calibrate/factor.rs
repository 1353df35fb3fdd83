//! From second moments of inputs to the factor that error feedback uses.

use super::cholesky;
use crate::{Error, Isa, Result};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

/// The upper triangular `U` with `U^T U = (H + damping)^-1`, for the second moments `H` of a linear map's inputs.
///
/// With errors `e_i = (w_i - q_i) / U_ii` fed back as `w_j -= e_i U_ij` for all later columns `j`, the sum of `e_i^2` is
/// the squared error of the outputs (E. Frantar et al., "GPTQ", 2022; J. Chee et al., "QuIP", 2023).
#[derive(Clone, Debug, PartialEq)]
pub struct UpperFactor {
    n: usize,
    /// Row-major, zero below the diagonal.
    rows: Vec<f32>,
}

/// What it took to factor second moments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FactorReport {
    /// Share of the mean of the diagonal that was added to it.
    pub damping: f64,
    /// Inputs that were never other than zero.
    pub dead: usize,
    /// Blocks that were factored on their own.
    pub blocks: usize,
}

/// Each rung of the ladder adds so many times more than the one before.
const RUNG: f64 = 10.0;
/// Rungs before giving up; the last one leaves next to nothing but the diagonal.
const RUNGS: usize = 8;

impl UpperFactor {
    /// The factor of the identity: every column counts the same and nothing is fed back.
    pub fn identity(n: usize) -> Self {
        let mut rows = vec![0.0; n * n];
        rows.iter_mut().step_by(n + 1).for_each(|d| *d = 1.0);
        UpperFactor { n, rows }
    }

    /// Factors `moments`, symmetric, `n` x `n`, row-major, of which the lower triangle is read.
    ///
    /// `damping` times the mean of the diagonal is added to the diagonal; where that is not enough for a factor to exist,
    /// ten times as much, and so on. A dead input keeps the damping alone, which makes its step so coarse that its
    /// weights are coded as zeros.
    ///
    /// # Errors
    /// If a value is not finite, the diagonal has a negative entry or none above zero, or no rung is high enough.
    ///
    /// # Panics
    /// If there are not `n * n` moments.
    pub fn new(moments: &[f32], n: usize, damping: f64) -> Result<(Self, FactorReport)> {
        assert_eq!(moments.len(), n * n, "a square matrix");
        let mean = moments.iter().step_by(n + 1).map(|&d| f64::from(d)).sum::<f64>() / n.max(1) as f64;
        Self::with_mean(moments.to_vec(), n, damping, mean)
    }

    /// The same with another mean that damping is a share of. The moments are freed once they are copied into the
    /// matrix that is factored: 12 bytes per entry are held at most.
    pub(super) fn with_mean(
        moments: Vec<f32>,
        n: usize,
        damping: f64,
        mean: f64,
    ) -> Result<(Self, FactorReport)> {
        let bad = |what: &str| {
            let message = format!("second moments of {n} inputs: {what}; calibrate again");
            Err(Error::Payload(lsb_format::Error::argument(message)))
        };
        if !moments.iter().all(|x| x.is_finite()) {
            return bad("a value is not finite");
        }
        let diagonal = || moments.iter().step_by(n + 1).map(|&d| f64::from(d));
        if diagonal().any(|d| d < 0.0) {
            return bad("a square is negative");
        }
        if n > 0 && mean <= 0.0 {
            return bad("all inputs were zero");
        }
        let dead = diagonal().filter(|&d| d == 0.0).count();
        let (mut damping, isa) = (damping.max(0.0), Isa::chosen());
        for _ in 0..RUNGS {
            // Rows and columns in reverse: the lower factor of that, turned back, is an upper factor M of H = M M^T,
            // and U is its inverse.
            let mut a = vec![0.0; n * n];
            for (i, row) in a.chunks_mut(n.max(1)).enumerate() {
                for (j, x) in row[..=i].iter_mut().enumerate() {
                    *x = f64::from(moments[(n - 1 - j) * n + n - 1 - i]);
                }
                row[i] += damping * mean;
            }
            if cholesky::factor(&mut a, n, isa) {
                drop(moments);
                return Ok((Self::of_reversed(&a, n), FactorReport { damping, dead, blocks: 1 }));
            }
            damping = RUNG * damping.max(1e-4);
        }
        bad("they are not those of any inputs")
    }

    /// The inverse of a lower factor, turned around.
    fn of_reversed(l: &[f64], n: usize) -> Self {
        let mut rows = vec![0.0f32; n * n];
        // A lock per row: blocks of columns come from several threads.
        let locked: Vec<Mutex<&mut [f32]>> = rows.chunks_mut(n.max(1)).rev().map(Mutex::new).collect();
        cholesky::invert(l, n, Isa::chosen(), |i, first, values| {
            let mut row = match locked[i].lock() {
                Ok(row) => row,
                Err(poisoned) => poisoned.into_inner(),
            };
            for (k, &x) in (first..=i).zip(values) {
                row[n - 1 - k] = x as f32;
            }
        });
        drop(locked);
        UpperFactor { n, rows }
    }

    /// Inputs.
    pub fn len(&self) -> usize {
        self.n
    }

    /// True where there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Row `i`, `n` values, zero before the diagonal.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.n..(i + 1) * self.n]
    }

    /// `U_ii`: the root of what is left of an input's variance when all later inputs are known, inverted.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn diagonal(&self, i: usize) -> f32 {
        self.rows[i * self.n + i]
    }
}
