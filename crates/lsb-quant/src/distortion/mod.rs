//! Sums from which every weight-domain figure follows.

mod kernel;

use kernel::{Kernel, LANES};
use serde::{Deserialize, Serialize};

/// Sums over pairs of an original weight `w` and its decoded value `q`.
///
/// Sums of several tiles are merged in tile order, so a figure never depends on threads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distortion {
    /// Number of weights.
    pub weights: u64,
    /// Sum of `w`.
    pub sum_w: f64,
    /// Sum of `q`.
    pub sum_q: f64,
    /// Sum of `w²`.
    pub sum_ww: f64,
    /// Sum of `q²`.
    pub sum_qq: f64,
    /// Sum of `w q`.
    pub sum_wq: f64,
    /// Sum of `(w - q)²`.
    pub sum_ee: f64,
    /// Sum of `|w - q|`.
    pub sum_abs: f64,
    /// Largest `|w - q|`.
    pub max_abs: f64,
    /// Smallest `w`; zero where there are no weights.
    pub min_w: f64,
    /// Largest `w`; zero where there are no weights.
    pub max_w: f64,
}

impl Default for Distortion {
    fn default() -> Self {
        Distortion {
            weights: 0,
            sum_w: 0.0,
            sum_q: 0.0,
            sum_ww: 0.0,
            sum_qq: 0.0,
            sum_wq: 0.0,
            sum_ee: 0.0,
            sum_abs: 0.0,
            max_abs: 0.0,
            min_w: 0.0,
            max_w: 0.0,
        }
    }
}

/// Weights summed in f32 lanes before the sums move to f64: short enough that f32 rounding stays near 1e-7.
const BLOCK: usize = 512;

impl Distortion {
    /// Sums over one run of weights and their decoded values.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn measure(original: &[f32], decoded: &[f32]) -> Self {
        assert_eq!(original.len(), decoded.len());
        let kernel = kernel::best();
        let mut out = Distortion::default();
        for (w, q) in original.chunks(BLOCK).zip(decoded.chunks(BLOCK)) {
            out.merge(&Self::block(kernel, w, q));
        }
        out
    }

    fn block(kernel: Kernel, original: &[f32], decoded: &[f32]) -> Self {
        let (w_chunks, w_rest) = original.as_chunks::<LANES>();
        let (q_chunks, q_rest) = decoded.as_chunks::<LANES>();
        if w_chunks.is_empty() {
            return Self::block_wide(original, decoded);
        }
        let lanes = kernel(w_chunks, q_chunks);
        let largest = |lanes: &[f32; LANES]| lanes.iter().fold(0.0f32, |m, &x| m.max(x.abs()));
        let reach = largest(&lanes.low).max(largest(&lanes.high)).max(largest(&lanes.max_abs));
        // Where squares may have left the range of f32, or vanished, the block is summed in f64 instead.
        let in_range = reach == 0.0 || (1e-12..1e12).contains(&reach);
        if !in_range {
            return Self::block_wide(original, decoded);
        }
        let sum = |k: usize| lanes.sums[k].iter().map(|&x| f64::from(x)).sum::<f64>();
        let mut out = Distortion {
            weights: (w_chunks.len() * LANES) as u64,
            sum_w: sum(0),
            sum_q: sum(1),
            sum_ww: sum(2),
            sum_qq: sum(3),
            sum_wq: sum(4),
            sum_ee: sum(5),
            sum_abs: sum(6),
            max_abs: lanes.max_abs.iter().fold(0.0, |m, &x| m.max(f64::from(x))),
            min_w: lanes.low.iter().fold(f64::INFINITY, |m, &x| m.min(f64::from(x))),
            max_w: lanes.high.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x))),
        };
        out.merge(&Self::block_wide(w_rest, q_rest));
        out
    }

    fn block_wide(original: &[f32], decoded: &[f32]) -> Self {
        let mut out = Distortion::default();
        for (&w, &q) in original.iter().zip(decoded) {
            let (w, q) = (f64::from(w), f64::from(q));
            let e = w - q;
            out.merge(&Distortion {
                weights: 1,
                sum_w: w,
                sum_q: q,
                sum_ww: w * w,
                sum_qq: q * q,
                sum_wq: w * q,
                sum_ee: e * e,
                sum_abs: e.abs(),
                max_abs: e.abs(),
                min_w: w,
                max_w: w,
            });
        }
        out
    }

    /// Adds the sums of another run.
    pub fn merge(&mut self, other: &Distortion) {
        if other.weights == 0 {
            return;
        }
        if self.weights == 0 {
            *self = *other;
            return;
        }
        self.weights += other.weights;
        self.sum_w += other.sum_w;
        self.sum_q += other.sum_q;
        self.sum_ww += other.sum_ww;
        self.sum_qq += other.sum_qq;
        self.sum_wq += other.sum_wq;
        self.sum_ee += other.sum_ee;
        self.sum_abs += other.sum_abs;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.min_w = self.min_w.min(other.min_w);
        self.max_w = self.max_w.max(other.max_w);
    }

    /// Mean squared error over the variance of the original around zero: `sum (w-q)² / sum w²`.
    pub fn relative_mse(&self) -> f64 {
        if self.sum_ee == 0.0 { 0.0 } else { self.sum_ee / self.sum_ww }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_block_sums_match_plain_f64(values in prop::collection::vec((-3.0f32..3.0, -0.5f32..0.5), 0..2000)) {
            let w: Vec<f32> = values.iter().map(|v| v.0).collect();
            let q: Vec<f32> = values.iter().map(|v| v.0 + v.1).collect();
            let fast = Distortion::measure(&w, &q);
            let plain = Distortion::block_wide(&w, &q);
            prop_assert_eq!(fast.weights, plain.weights);
            prop_assert_eq!((fast.min_w, fast.max_w), (plain.min_w, plain.max_w));
            for (a, b) in [(fast.sum_ww, plain.sum_ww), (fast.sum_ee, plain.sum_ee), (fast.sum_abs, plain.sum_abs)] {
                prop_assert!((a - b).abs() <= 1e-5 * b + 1e-9, "{} {}", a, b);
            }
        }
    }

    #[test]
    fn extreme_magnitudes_do_not_overflow() {
        let d = Distortion::measure(&[1e30; 40], &[0.0; 40]);
        assert_eq!(d.sum_ee, d.sum_ww);
        assert!((d.sum_ww / (40.0 * 1e60) - 1.0).abs() < 1e-6);
        let d = Distortion::measure(&[1e-40; 40], &[0.0; 40]);
        assert!(d.sum_ww > 0.0);
    }
}
