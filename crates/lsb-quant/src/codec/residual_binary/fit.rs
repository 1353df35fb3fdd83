//! Scales and signs of one group: alternating refinement.

use super::MAX_PLANES;
use crate::codec::least_squares::{NormalEquations, PerNumber};
use crate::codec::sums::{sum_of_magnitudes, sum_of_squares};
use crate::lanes::{LANES, Lanes, Work, dispatch};

/// One value per plane; unused ones are zero.
pub(super) type PerPlane<T> = PerNumber<T>;

/// Steps of the best uniform quantizer of 1 to 8 bits for Gaussian weights of variance 1 (J. Max, 1960): a good
/// place to start from, and from three planes on hard to improve.
const GAUSSIAN_STEP: PerPlane<f64> = [1.596, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308];

/// Refinements of scales and signs.
const ROUNDS: usize = 8;
/// Refinement ends when a round lowers the error by less than this share.
const WORTHWHILE: f64 = 1e-4;

/// Signs of every weight, bit `k` for plane `k`: each plane takes the sign of what the planes before left.
///
/// With scales in falling order, none smaller than the sum of those after it, that is the nearest level.
#[inline(always)]
pub(super) fn assign(weights: &[f32], scales: &PerPlane<f64>, planes: usize, codes: &mut [u8]) {
    let mut rounded = [0.0; MAX_PLANES];
    for (rounded, &s) in rounded.iter_mut().zip(scales) {
        *rounded = s as f32;
    }
    let scales = rounded;
    let (chunks, rest) = weights.as_chunks::<LANES>();
    let (code_chunks, code_rest) = codes.as_chunks_mut::<LANES>();
    for (chunk, codes) in chunks.iter().zip(code_chunks) {
        *codes = assign_lanes(*chunk, &scales, planes);
    }
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    code_rest.copy_from_slice(&assign_lanes(last, &scales, planes)[..rest.len()]);
}

#[inline(always)]
fn assign_lanes(mut left: [f32; LANES], scales: &PerPlane<f32>, planes: usize) -> [u8; LANES] {
    let mut codes = [0u32; LANES];
    for (k, &scale) in scales[..planes].iter().enumerate() {
        for i in 0..LANES {
            let positive = left[i] > 0.0;
            left[i] -= if positive { scale } else { -scale };
            codes[i] |= u32::from(positive) << k;
        }
    }
    let mut out = [0; LANES];
    for (out, code) in out.iter_mut().zip(codes) {
        *out = code as u8;
    }
    out
}

/// Neighbours of one code are added up apart, so that an addition need not wait for the one before.
const TURNS: usize = 4;

/// The normal equations for these signs.
///
/// It stays out of the loops over lanes: compilers put its scattered additions side by side, at several times the cost.
#[inline(never)]
pub(super) fn normal_equations(weights: &[f32], codes: &[u8], planes: usize) -> NormalEquations {
    // Numbers and sums by code first: independent of the number of planes, and in weight order on any machine.
    let (mut counts, mut sums) = ([[0u32; TURNS]; 256], [[0.0f64; TURNS]; 256]);
    for (weights, codes) in weights.chunks(TURNS).zip(codes.chunks(TURNS)) {
        for (turn, (&w, &code)) in weights.iter().zip(codes).enumerate() {
            counts[usize::from(code)][turn] += 1;
            sums[usize::from(code)][turn] += f64::from(w);
        }
    }
    let by_code = |code: usize| (f64::from(counts[code].iter().sum::<u32>()), sums[code].iter().sum::<f64>());
    equations_by_code(planes, by_code)
}

/// The normal equations where every weight counts by its `importance`.
pub(super) fn weighted_equations(
    weights: &[f32],
    importance: &[f32],
    codes: &[u8],
    planes: usize,
) -> NormalEquations {
    let mut sums = [(0.0f64, 0.0f64); 256];
    for ((&w, &d), &code) in weights.iter().zip(importance).zip(codes) {
        let (count, sum) = &mut sums[usize::from(code)];
        *count += f64::from(d);
        *sum += f64::from(d) * f64::from(w);
    }
    equations_by_code(planes, |code| sums[code])
}

/// The normal equations, given number and sum of the weights of each code.
fn equations_by_code(planes: usize, by_code: impl Fn(usize) -> (f64, f64)) -> NormalEquations {
    let mut out = NormalEquations::default();
    for code in 0..1 << planes {
        let (count, sum) = by_code(code);
        if count == 0.0 {
            continue;
        }
        let sign = |k: usize| if code >> k & 1 == 1 { 1.0 } else { -1.0 };
        for i in 0..planes {
            out.moments[i] += sign(i) * sum;
            for j in 0..=i {
                out.gram[i][j] += sign(i) * sign(j) * count;
            }
        }
    }
    for i in 0..planes {
        for j in i + 1..planes {
            out.gram[i][j] = out.gram[j][i];
        }
    }
    out
}

/// Fits a group, by the looped passes alone where `refine` is false. Returns its scales, none negative, and leaves the signs in `codes`.
#[inline(always)]
pub(super) fn fit<L: Lanes>(
    lanes: L,
    weights: &[f32],
    planes: usize,
    refine: bool,
    codes: &mut [u8],
) -> PerPlane<f64> {
    if !refine {
        let scales = greedy(lanes, weights, planes);
        assign(weights, &scales, planes, codes);
        return scales;
    }
    let squares = sum_of_squares(lanes, weights);
    let rms = (squares / weights.len().max(1) as f64).sqrt();
    let uniform: PerPlane<f64> = std::array::from_fn(|k| {
        if k < planes {
            rms * GAUSSIAN_STEP[planes - 1] / 2.0 * f64::from(1 << (planes - 1 - k))
        } else {
            0.0
        }
    });
    let mut best = (f64::INFINITY, [0.0; MAX_PLANES]);
    // Greedy scales suit weights of few distinct magnitudes, uniform ones everything else.
    for start in [uniform, greedy(lanes, weights, planes)] {
        let mut scales = start;
        let mut last = f64::INFINITY;
        for _ in 0..ROUNDS {
            assign(weights, &scales, planes, codes);
            let equations = normal_equations(weights, codes, planes);
            let error = squares + equations.error(&scales, planes);
            if error < best.0 {
                best = (error, scales);
            }
            // A start that is far behind will not catch up.
            if last - error < WORTHWHILE * error || error > 1.5 * best.0 {
                break;
            }
            last = error;
            scales = falling(equations.solve(planes));
        }
    }
    let (_, scales) = best;
    assign(weights, &scales, planes, codes);
    let refined = normal_equations(weights, codes, planes).solve(planes);
    if refined.iter().all(|&s| s >= 0.0) { refined } else { scales }
}

/// As [`fit`] with refinement, for one group by itself.
pub(super) fn fit_refined(weights: &[f32], planes: usize, codes: &mut [u8]) -> PerPlane<f64> {
    dispatch(FitRefined { weights, planes, codes })
}

struct FitRefined<'a> {
    weights: &'a [f32],
    planes: usize,
    codes: &'a mut [u8],
}

impl Work for FitRefined<'_> {
    type Output = PerPlane<f64>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> PerPlane<f64> {
        fit(lanes, self.weights, self.planes, true, self.codes)
    }
}

/// Improves `scales` for weights that count by their `importance`.
pub(super) fn refine_weighted(
    weights: &[f32],
    importance: &[f32],
    planes: usize,
    mut scales: PerPlane<f64>,
) -> PerPlane<f64> {
    let mut codes = vec![0; weights.len()];
    let mut best = (f64::INFINITY, scales);
    for _ in 0..ROUNDS {
        assign(weights, &scales, planes, &mut codes);
        let equations = weighted_equations(weights, importance, &codes, planes);
        let error = equations.error(&scales, planes);
        if error >= best.0 {
            break;
        }
        best = (error, scales);
        scales = falling(equations.solve(planes));
    }
    best.1
}

/// Scales of looped passes, each the mean magnitude of what is left.
#[inline(always)]
fn greedy<L: Lanes>(lanes: L, weights: &[f32], planes: usize) -> PerPlane<f64> {
    let (mut left, mut out) = (weights.to_vec(), [0.0; MAX_PLANES]);
    for scale in &mut out[..planes] {
        *scale = sum_of_magnitudes(lanes, &left) / weights.len().max(1) as f64;
        let s = *scale as f32;
        for w in &mut left {
            *w -= if *w > 0.0 { s } else { -s };
        }
    }
    falling(out)
}

pub(super) fn falling(mut scales: PerPlane<f64>) -> PerPlane<f64> {
    for s in &mut scales {
        *s = s.abs();
    }
    scales.sort_unstable_by(|a, b| b.total_cmp(a));
    scales
}
