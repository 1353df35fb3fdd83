//! Scale and zero point of one group.

use crate::codec::sums::lane_sum;
use crate::scale::to_half;
use half::f16;

/// The integers of a configuration.
#[derive(Clone, Copy, Debug)]
pub(in crate::codec) struct Grid {
    pub(in crate::codec) bits: u32,
    pub(in crate::codec) symmetric: bool,
}

/// Shares of the full range tried first, and the two finer steps around the best of them: as good as a search in
/// steps of 0.025, since the error has one valley.
const COARSE: [f32; 7] = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4];
const FINE: [f32; 2] = [0.05, 0.025];

/// Fits of scale and zero point to the rounded weights.
const ROUNDS: usize = 2;

const LANES: usize = 16;

/// Adding and subtracting this rounds an f32 below 2^22 to the nearest integer, ties to even, on any machine and
/// in vector code.
const ROUNDER: f32 = 12_582_912.0;

impl Grid {
    /// The largest integer.
    pub(in crate::codec) fn last(self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// Units of a stored zero point.
    fn zero_unit(self) -> f32 {
        (1u32 << self.bits) as f32 / 256.0
    }

    /// The zero point that is stored as `zero`.
    pub(in crate::codec) fn zero_point(self, zero: u8) -> f32 {
        if self.symmetric { 0.5 * self.last() } else { f32::from(zero) * self.zero_unit() }
    }

    /// The stored form of the zero point next to `point`.
    pub(in crate::codec) fn nearest_zero(self, point: f32) -> u8 {
        if self.symmetric { 0 } else { (point / self.zero_unit() + 0.5).clamp(0.0, 255.0) as u8 }
    }

    /// Integers nearest to the weights.
    pub(in crate::codec) fn round(self, weights: &[f32], scale: f32, zero: u8, integers: &mut [u8]) {
        let (inverse, zero, last) = (inverse(scale), self.zero_point(zero), self.last());
        for (q, &w) in integers.iter_mut().zip(weights) {
            *q = nearest(w, inverse, zero, last) as u8;
        }
    }

    /// Smallest and largest value that levels must reach; zero lies between them.
    fn range(self, weights: &[f32]) -> (f32, f32) {
        let (mut low, mut high) = (0.0f32, 0.0f32);
        for &w in weights {
            low = if w < low { w } else { low };
            high = if w > high { w } else { high };
        }
        if self.symmetric {
            high = high.max(-low);
            low = -high;
        }
        (low, high)
    }

    /// Scale and zero point whose levels span all weights.
    pub(in crate::codec) fn span(self, weights: &[f32]) -> (f16, u8) {
        let (low, high) = self.range(weights);
        let scale = to_half(f64::from(high - low) / f64::from(self.last()));
        (scale, self.nearest_zero(-low * inverse(scale.to_f32())))
    }

    /// Scale and zero point of small squared error, weighted by `importance`, one value per weight.
    pub(in crate::codec) fn fit(self, weights: &[f32], importance: &[f32]) -> (f16, u8) {
        let (low, high) = self.range(weights);
        let mut best = Fit { error: f64::INFINITY, scale: to_half(0.0), zero: 0 };
        // Rounding to half may carry to the next candidate the same scale: harmless.
        let try_share = |share: f32, best: &mut Fit| {
            let scale = to_half(f64::from(share * (high - low)) / f64::from(self.last()));
            let zero = self.nearest_zero(-share * low * inverse(scale.to_f32()));
            self.try_fit(weights, importance, scale, zero, best)
        };
        let mut share = 1.0;
        for candidate in COARSE {
            if try_share(candidate, &mut best) {
                share = candidate;
            } else {
                break;
            }
        }
        for step in FINE {
            for candidate in [share - step, share + step] {
                if try_share(candidate, &mut best) {
                    share = candidate;
                    break;
                }
            }
        }
        for _ in 0..ROUNDS {
            let (scale, zero) = self.regress(weights, importance, &best);
            if !self.try_fit(weights, importance, scale, zero, &mut best) {
                break;
            }
        }
        (best.scale, best.zero)
    }

    /// Replaces `best` if this fit is better, and says so.
    fn try_fit(self, weights: &[f32], importance: &[f32], scale: f16, zero: u8, best: &mut Fit) -> bool {
        let error = self.error(weights, importance, scale.to_f32(), self.zero_point(zero));
        let better = error < best.error;
        if better {
            *best = Fit { error, scale, zero };
        }
        better
    }

    fn error(self, weights: &[f32], importance: &[f32], scale: f32, zero: f32) -> f64 {
        let (inverse, last) = (inverse(scale), self.last());
        let mut total = 0.0;
        for (block, importance) in weights.chunks(512).zip(importance.chunks(512)) {
            let mut lanes = [0.0f32; LANES];
            let mut add = |chunk: &[f32], importance: &[f32]| {
                for ((lane, &w), &d) in lanes.iter_mut().zip(chunk).zip(importance) {
                    let e = w - scale * (nearest(w, inverse, zero, last) - zero);
                    *lane += d * (e * e);
                }
            };
            let (chunks, rest) = block.as_chunks::<LANES>();
            let (shares, rest_shares) = importance.as_chunks::<LANES>();
            chunks.iter().zip(shares).for_each(|(c, d)| add(c, d));
            add(rest, rest_shares);
            total += lane_sum(&lanes);
        }
        total
    }

    /// The line of least squares through integers and weights.
    fn regress(self, weights: &[f32], importance: &[f32], fit: &Fit) -> (f16, u8) {
        let (scale, zero, last) = (fit.scale.to_f32(), self.zero_point(fit.zero), self.last());
        let inverse = inverse(scale);
        // Sums of 1, x, xx, w, xw with x the integer less its zero point.
        let mut sums = [0.0f64; 5];
        for (block, importance) in weights.chunks(512).zip(importance.chunks(512)) {
            let mut lanes = [[0.0f32; LANES]; 5];
            let mut add = |chunk: &[f32], importance: &[f32]| {
                for (i, (&w, &d)) in chunk.iter().zip(importance).enumerate() {
                    let x = nearest(w, inverse, zero, last) - zero;
                    lanes[0][i] += d;
                    lanes[1][i] += d * x;
                    lanes[2][i] += d * (x * x);
                    lanes[3][i] += d * w;
                    lanes[4][i] += d * (x * w);
                }
            };
            let (chunks, rest) = block.as_chunks::<LANES>();
            let (shares, rest_shares) = importance.as_chunks::<LANES>();
            chunks.iter().zip(shares).for_each(|(c, d)| add(c, d));
            add(rest, rest_shares);
            for (sum, lanes) in sums.iter_mut().zip(&lanes) {
                *sum += lane_sum(lanes);
            }
        }
        let [n, x, xx, w, xw] = sums;
        let (num, den) = if self.symmetric { (xw, xx) } else { (n * xw - x * w, n * xx - x * x) };
        if den <= 0.0 || num <= 0.0 {
            return (fit.scale, fit.zero);
        }
        let slope = num / den;
        // Where the line meets zero.
        let shift = (x * slope - w) / (n * slope);
        (to_half(slope), self.nearest_zero((f64::from(zero) + shift) as f32))
    }
}

#[derive(Clone, Copy, Debug)]
struct Fit {
    error: f64,
    scale: f16,
    zero: u8,
}

/// What values are multiplied with to count steps; 0 where all levels are the same.
pub(in crate::codec) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

/// The integer nearest to `w`.
#[inline]
pub(in crate::codec) fn nearest(w: f32, inverse: f32, zero: f32, last: f32) -> f32 {
    let x = w * inverse + zero;
    let x = if x > 0.0 { x } else { 0.0 };
    let x = if x < last { x } else { last };
    x + ROUNDER - ROUNDER
}
