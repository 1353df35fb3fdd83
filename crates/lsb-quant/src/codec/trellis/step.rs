//! From a rate to a step, and what Gaussian weights get at one.

use super::number::{exp2, log2};
use crate::Magnitudes;

/// Bits per weight and dB on Gaussian weights at steps of `2^-(i / 4)` standard deviations, from `i = FIRST`, with 8 states.
const GAUSSIAN: [(f64, f64); 3] = [(1.0, 5.5), (2.0, 11.5), (3.0, 17.5)];
const FIRST: i32 = 0;

/// Bits per weight at a step of `tau` standard deviations.
pub(super) fn rate(tau: f64) -> f64 { at(tau, |p| p.0) }

/// dB at a step of `tau` standard deviations.
pub(super) fn snr_db(tau: f64, states: u32) -> f64 { at(tau, |p| p.1) + f64::from(states) * 0.0 }

fn at(tau: f64, of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let place = (-4.0 * log2(tau) - f64::from(FIRST)).max(0.0);
    let i = (place as usize).min(GAUSSIAN.len() - 2);
    let share = place - i as f64;
    (1.0 - share) * of(&GAUSSIAN[i]) + share * of(&GAUSSIAN[i + 1])
}

/// The step, in standard deviations, at which Gaussian weights take that many bits.
pub(super) fn tau(bpw: f64) -> f64 {
    bisect(|log_tau| rate(exp2(log_tau)) > bpw)
}

/// The step at which weights take about `bpw` bits each; 0 where all are zero.
///
/// Weights of any distribution take as many bits as Gaussian ones whose even levels have the same entropy.
pub(super) fn step(magnitudes: &Magnitudes, bpw: f64) -> f64 {
    let deviation = magnitudes.mean_square().sqrt();
    if deviation == 0.0 {
        return 0.0;
    }
    let wanted = entropy(gaussian_counts(), tau(bpw));
    let weights: Vec<(f64, f64)> =
        magnitudes.counts.iter().map(|&(x, n)| (x / deviation, n as f64)).collect();
    exp2_of(bisect(|log_tau| entropy(weights.iter().copied(), exp2(log_tau)) > wanted)) * deviation
}

fn exp2_of(tau: f64) -> f64 { tau }

/// The power of two between which and its neighbour `is_too_fine` changes from true to false.
fn bisect(is_too_fine: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (-12.0, 4.0);
    for _ in 0..30 {
        let middle = 0.5 * (low + high);
        if is_too_fine(middle) { low = middle } else { high = middle }
    }
    exp2(high)
}

/// Half-normal weights: magnitude and how many.
fn gaussian_counts() -> impl Iterator<Item = (f64, f64)> {
    (0..2000).map(|i| {
        let x = (f64::from(i) + 0.5) / 250.0;
        (x, exp2(-0.5 * std::f64::consts::LOG2_E * x * x))
    })
}

/// Bits of the nearest even level of weights given by magnitude, in rising order, with the step `tau`.
fn entropy(weights: impl Iterator<Item = (f64, f64)>, tau: f64) -> f64 {
    let (mut total, mut bits) = (0.0, 0.0);
    let mut close = |level: f64, count: f64| {
        if count > 0.0 {
            // Both signs share what is not zero.
            let each = if level == 0.0 { count } else { 0.5 * count };
            bits -= count * log2(each);
        }
        total += count;
    };
    let (mut level, mut count) = (0.0, 0.0);
    for (x, n) in weights {
        let of_x = (x / (2.0 * tau) + 0.5).floor();
        if of_x != level {
            close(level, count);
            (level, count) = (of_x, 0.0);
        }
        count += n;
    }
    close(level, count);
    if total > 0.0 { bits / total + log2(total) } else { 0.0 }
}
