//! From a rate to a step, and what Gaussian weights get at one.

use crate::Magnitudes;
use crate::number::{exp2, log2};

/// Bits per weight and dB on independent Gaussian weights with 8 states, records of tiles apart, at steps of
/// `2^(1 - i / 16)` standard deviations down to 1, then a quarter of an octave apart. Measured on 4096 x 1024 weights
/// with the default of `lambda`.
const STATES_8: [(f64, f64); POINTS] = [
    (0.0021, 0.013),
    (0.0149, 0.064),
    (0.0524, 0.217),
    (0.1248, 0.529),
    (0.2254, 0.997),
    (0.3372, 1.566),
    (0.4795, 2.383),
    (0.5636, 2.896),
    (0.6317, 3.324),
    (0.6908, 3.694),
    (0.7454, 4.031),
    (0.8069, 4.415),
    (0.8571, 4.716),
    (0.9055, 5.009),
    (0.9594, 5.335),
    (1.0166, 5.681),
    (1.0715, 6.012),
    (1.3064, 7.427),
    (1.5484, 8.881),
    (1.7950, 10.366),
    (2.0435, 11.860),
    (2.2940, 13.369),
    (2.5444, 14.874),
    (2.7947, 16.382),
    (3.0453, 17.889),
    (3.2956, 19.397),
    (3.5460, 20.902),
    (3.7965, 22.411),
    (4.0467, 23.915),
    (4.2970, 25.421),
    (4.5475, 26.928),
    (4.7978, 28.433),
    (5.0484, 29.938),
    (5.2992, 31.443),
    (5.5502, 32.948),
    (5.8013, 34.453),
    (6.0528, 35.959),
    (6.3046, 37.463),
    (6.5570, 38.967),
    (6.8100, 40.475),
    (7.0623, 41.980),
    (7.3029, 43.484),
    (7.5505, 44.988),
    (7.8051, 46.488),
    (8.0651, 47.984),
    (8.3328, 49.466),
    (8.6093, 50.931),
    (8.8858, 52.376),
    (9.1769, 53.803),
];
/// The same with 64 states. What the others reach lies between, in proportion to the logarithm of their number.
const STATES_64: [(f64, f64); POINTS] = [
    (0.0000, 0.002),
    (0.0032, 0.018),
    (0.0282, 0.118),
    (0.1032, 0.442),
    (0.2348, 1.073),
    (0.3785, 1.863),
    (0.5261, 2.804),
    (0.5950, 3.258),
    (0.6490, 3.607),
    (0.6963, 3.905),
    (0.7463, 4.211),
    (0.7977, 4.527),
    (0.8460, 4.820),
    (0.8982, 5.134),
    (0.9520, 5.460),
    (1.0093, 5.807),
    (1.0619, 6.124),
    (1.2983, 7.547),
    (1.5442, 9.024),
    (1.7922, 10.519),
    (2.0417, 12.019),
    (2.2930, 13.534),
    (2.5429, 15.037),
    (2.7940, 16.548),
    (3.0447, 18.057),
    (3.2954, 19.566),
    (3.5458, 21.072),
    (3.7961, 22.579),
    (4.0465, 24.084),
    (4.2969, 25.590),
    (4.5474, 27.096),
    (4.7978, 28.602),
    (5.0485, 30.107),
    (5.2992, 31.612),
    (5.5501, 33.116),
    (5.8013, 34.623),
    (6.0529, 36.129),
    (6.3048, 37.633),
    (6.5570, 39.138),
    (6.8100, 40.643),
    (7.0624, 42.149),
    (7.3029, 43.653),
    (7.5505, 45.158),
    (7.8050, 46.661),
    (8.0651, 48.155),
    (8.3325, 49.634),
    (8.6086, 51.093),
    (8.8841, 52.529),
    (9.1751, 53.948),
];
const POINTS: usize = 49;

/// Bits per weight at a step of `tau` standard deviations, records of tiles apart.
pub(super) fn rate(tau: f64, states: u32) -> f64 {
    at(tau, states, |p| p.0)
}

/// dB at a step of `tau` standard deviations.
pub(super) fn snr_db(tau: f64, states: u32) -> f64 {
    at(tau, states, |p| p.1)
}

fn at(tau: f64, states: u32, of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let octaves = log2(tau);
    let place = 16.0 - if octaves > 0.0 { 16.0 } else { 4.0 } * octaves;
    let place = place.clamp(0.0, (POINTS - 1) as f64);
    let i = (place as usize).min(POINTS - 2);
    let share = place - i as f64;
    let on = |table: &[(f64, f64); POINTS]| (1.0 - share) * of(&table[i]) + share * of(&table[i + 1]);
    let more = (f64::from(states.ilog2()) - 3.0) / 3.0;
    (1.0 - more) * on(&STATES_8) + more * on(&STATES_64)
}

/// The step, in standard deviations, at which Gaussian weights take that many bits.
pub(super) fn tau(bpw: f64, states: u32) -> f64 {
    bisect(|tau| rate(tau, states) > bpw)
}

/// The step at which weights take about `bpw` bits each; 0 where all are zero.
///
/// Weights of any distribution take as many bits as Gaussian ones whose even levels have the same entropy.
pub(super) fn step(magnitudes: &Magnitudes, bpw: f64, states: u32) -> f64 {
    let deviation = magnitudes.mean_square().sqrt();
    if deviation == 0.0 {
        return 0.0;
    }
    let wanted = entropy(gaussian_counts(), tau(bpw, states));
    let weights: Vec<(f64, f64)> =
        magnitudes.counts.iter().map(|&(x, n)| (x / deviation, n as f64)).collect();
    bisect(|tau| entropy(weights.iter().copied(), tau) > wanted) * deviation
}

/// Where `is_too_fine` changes from true to false as its argument grows.
fn bisect(is_too_fine: impl Fn(f64) -> bool) -> f64 {
    // Logarithms of the coarsest and the finest step there may be.
    let (mut low, mut high) = (-9.0, 2.0);
    for _ in 0..24 {
        let middle = 0.5 * (low + high);
        *(if is_too_fine(exp2(middle)) { &mut low } else { &mut high }) = middle;
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
