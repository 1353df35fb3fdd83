//! Scale and zero point of one group.

use crate::codec::sums::{chunk, lane_sum, n_chunks};
use crate::lanes::{LANES, Lanes, Work, dispatch};
use crate::scale::{nearest_half, to_half};
use half::f16;

/// The integers of a configuration.
#[derive(Clone, Copy, Debug)]
pub(in crate::codec) struct Grid {
    pub(in crate::codec) bits: u32,
    pub(in crate::codec) symmetric: bool,
}

/// Shares of the full range tried first, and the two finer steps around the best of them: as good as a search in
/// steps of 0.025, since the error has one valley. The last of the pairs is a single one.
const COARSE: [[f32; 2]; 4] = [[1.0, 0.9], [0.8, 0.7], [0.6, 0.5], [0.4, 0.4]];
const FINE: [f32; 2] = [0.05, 0.025];

/// Fits of scale and zero point to the rounded weights.
const ROUNDS: usize = 2;

/// Weights whose squares are summed in f32.
const BLOCK: usize = 512;

/// Adding and subtracting this rounds an f32 below 2^22 to the nearest integer, ties to even, on any machine and
/// in vector code.
const ROUNDER: f32 = 12_582_912.0;

impl Grid {
    /// The largest integer.
    #[inline(always)]
    pub(in crate::codec) fn last(self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// Units of a stored zero point.
    #[inline(always)]
    fn zero_unit(self) -> f32 {
        (1u32 << self.bits) as f32 / 256.0
    }

    /// The integer in the middle of all.
    pub(in crate::codec) fn center(self) -> u8 {
        1 << (self.bits - 1)
    }

    /// The zero point that is stored as `zero`.
    #[inline(always)]
    pub(in crate::codec) fn zero_point(self, zero: u8) -> f32 {
        if self.symmetric { 0.5 * self.last() } else { f32::from(zero) * self.zero_unit() }
    }

    /// The stored form of the zero point next to `point`.
    #[inline(always)]
    pub(in crate::codec) fn nearest_zero(self, point: f32) -> u8 {
        if self.symmetric { 0 } else { (point / self.zero_unit() + 0.5).clamp(0.0, 255.0) as u8 }
    }

    /// Integers nearest to the weights.
    #[inline(always)]
    pub(in crate::codec) fn round(self, weights: &[f32], scale: f32, zero: u8, integers: &mut [u8]) {
        let (inverse, zero, last) = (inverse(scale), self.zero_point(zero), self.last());
        for (q, &w) in integers.iter_mut().zip(weights) {
            // The lowest bits of the sum are the integer.
            *q = (clamped(w, inverse, zero, last) + ROUNDER).to_bits() as u8;
        }
    }

    /// Smallest and largest value that levels must reach; zero lies between them.
    #[inline(always)]
    fn range<L: Lanes>(self, lanes: L, weights: &[f32]) -> (f32, f32) {
        let (mut low, mut high) = (lanes.splat(0.0), lanes.splat(0.0));
        for i in 0..n_chunks(weights) {
            let w = chunk(lanes, weights, i);
            low = lanes.min(w, low);
            high = lanes.max(w, high);
        }
        let (mut lows, mut highs) = (lanes.store(low), lanes.store(high));
        let mut n = LANES;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                lows[i] = if lows[i + n] < lows[i] { lows[i + n] } else { lows[i] };
                highs[i] = if highs[i + n] > highs[i] { highs[i + n] } else { highs[i] };
            }
        }
        let (low, high) = (lows[0], highs[0]);
        if self.symmetric {
            let high = high.max(-low);
            return (-high, high);
        }
        (low, high)
    }

    /// Scale and zero point whose levels span all weights.
    pub(in crate::codec) fn span(self, weights: &[f32]) -> (f16, u8) {
        dispatch(Span { grid: self, weights })
    }

    /// Scale and zero point of small squared error, weighted by `importance`, one value per weight.
    pub(in crate::codec) fn fit_weighted(self, weights: &[f32], importance: &[f32]) -> (f16, u8) {
        dispatch(FitWeighted { grid: self, weights, importance })
    }

    /// Scale and zero point of small squared error; with `importance`, one value per weight, weighted by it.
    #[inline(always)]
    pub(super) fn fit<L: Lanes>(self, lanes: L, weights: &[f32], importance: Option<&[f32]>) -> (f16, u8) {
        let (low, high) = self.range(lanes, weights);
        let (mut error, mut share) = (f64::INFINITY, 1.0);
        // Two candidates take little longer than one, which waits for its own sums.
        'coarse: for pair in COARSE {
            for (candidate, of_candidate) in
                pair.into_iter().zip(self.errors_of_shares(lanes, weights, importance, (low, high), pair))
            {
                if of_candidate < error {
                    (error, share) = (of_candidate, candidate);
                } else {
                    break 'coarse;
                }
            }
        }
        for step in FINE {
            let pair = [share - step, share + step];
            let [below, above] = self.errors_of_shares(lanes, weights, importance, (low, high), pair);
            if below < error {
                (error, share) = (below, pair[0]);
            } else if above < error {
                (error, share) = (above, pair[1]);
            }
        }
        let (scale, zero) = self.of_share((low, high), share);
        let mut best = Fit { error, scale, zero };
        for _ in 0..ROUNDS {
            let (scale, zero) = self.regress(lanes, weights, importance, &best);
            let [error] = self.errors(lanes, weights, importance, [(scale, zero)]);
            if error < best.error {
                best = Fit { error, scale, zero };
            } else {
                break;
            }
        }
        (to_half(f64::from(best.scale)), best.zero)
    }

    /// The fit whose levels span a share of the range.
    #[inline(always)]
    fn of_share(self, (low, high): (f32, f32), share: f32) -> (f32, u8) {
        // Rounding to half may carry to the next candidate the same scale: harmless.
        let scale = nearest_half(f64::from(share * (high - low)) / f64::from(self.last()));
        (scale, self.nearest_zero(-share * low * inverse(scale)))
    }

    /// Squared errors of the fits that span two shares of the range.
    #[inline(always)]
    fn errors_of_shares<L: Lanes>(
        self,
        lanes: L,
        weights: &[f32],
        importance: Option<&[f32]>,
        range: (f32, f32),
        shares: [f32; 2],
    ) -> [f64; 2] {
        let fits = [self.of_share(range, shares[0]), self.of_share(range, shares[1])];
        self.errors(lanes, weights, importance, fits)
    }

    /// Squared errors of some fits.
    #[inline(always)]
    fn errors<L: Lanes, const K: usize>(
        self,
        lanes: L,
        weights: &[f32],
        importance: Option<&[f32]>,
        fits: [(f32, u8); K],
    ) -> [f64; K] {
        let mut levels = [Levels::new(lanes, self, fits[0]); K];
        for (levels, fit) in levels.iter_mut().zip(fits) {
            *levels = Levels::new(lanes, self, fit);
        }
        let mut totals = [0.0; K];
        for (b, block) in weights.chunks(BLOCK).enumerate() {
            let mut sums = [lanes.splat(0.0); K];
            let (chunks, rest) = block.as_chunks();
            for (i, w) in chunks.iter().enumerate() {
                let d = importance.map(|all| chunk(lanes, &all[b * BLOCK..], i));
                add_errors(lanes, &levels, lanes.load(w), d, &mut sums);
            }
            if !rest.is_empty() {
                let d = share_of_rest(lanes, weights, importance);
                add_errors(lanes, &levels, chunk(lanes, rest, 0), Some(d), &mut sums);
            }
            for k in 0..K {
                totals[k] += lane_sum(&lanes.store(sums[k]));
            }
        }
        totals
    }

    /// The line of least squares through integers and weights.
    #[inline(always)]
    fn regress<L: Lanes>(
        self,
        lanes: L,
        weights: &[f32],
        importance: Option<&[f32]>,
        fit: &Fit,
    ) -> (f32, u8) {
        let (zero, levels) = (self.zero_point(fit.zero), Levels::new(lanes, self, (fit.scale, fit.zero)));
        // Sums of 1, x, xx, w, xw with x the integer less its zero point.
        let mut totals = [0.0f64; 5];
        for (b, block) in weights.chunks(BLOCK).enumerate() {
            let mut sums = [lanes.splat(0.0); 5];
            let (chunks, rest) = block.as_chunks();
            for (i, w) in chunks.iter().enumerate() {
                let d = importance.map(|all| chunk(lanes, &all[b * BLOCK..], i));
                add_products(lanes, &levels, lanes.load(w), d, &mut sums);
            }
            if !rest.is_empty() {
                let d = share_of_rest(lanes, weights, importance);
                add_products(lanes, &levels, chunk(lanes, rest, 0), Some(d), &mut sums);
            }
            for k in 0..5 {
                totals[k] += lane_sum(&lanes.store(sums[k]));
            }
        }
        let [n, x, xx, w, xw] = totals;
        let (num, den) = if self.symmetric { (xw, xx) } else { (n * xw - x * w, n * xx - x * x) };
        if den <= 0.0 || num <= 0.0 {
            return (fit.scale, fit.zero);
        }
        let slope = num / den;
        // Where the line meets zero.
        let shift = (x * slope - w) / (n * slope);
        (nearest_half(slope), self.nearest_zero((f64::from(zero) + shift) as f32))
    }
}

/// What the weights of the last chunk count by, where it is not a whole one; what fills it does not count.
#[inline(always)]
fn share_of_rest<L: Lanes>(lanes: L, weights: &[f32], importance: Option<&[f32]>) -> L::Vector {
    let rest = weights.len() % LANES;
    let alike = [1.0; LANES];
    chunk(lanes, importance.map_or(&alike[..rest], |all| &all[weights.len() - rest..weights.len()]), 0)
}

/// Adds the squared errors of weights, times what they count by.
#[inline(always)]
fn add_errors<L: Lanes, const K: usize>(
    lanes: L,
    levels: &[Levels<L::Vector>; K],
    w: L::Vector,
    d: Option<L::Vector>,
    sums: &mut [L::Vector; K],
) {
    for k in 0..K {
        let e = lanes.sub(w, lanes.mul(levels[k].scale, levels[k].steps(lanes, w)));
        sums[k] = lanes.add(sums[k], weighted(lanes, d, lanes.mul(e, e)));
    }
}

/// Adds 1, x, xx, w, xw with x the integer less its zero point, times what weights count by.
#[inline(always)]
fn add_products<L: Lanes>(
    lanes: L,
    levels: &Levels<L::Vector>,
    w: L::Vector,
    d: Option<L::Vector>,
    sums: &mut [L::Vector; 5],
) {
    let x = levels.steps(lanes, w);
    let terms = [lanes.splat(1.0), x, lanes.mul(x, x), w, lanes.mul(x, w)];
    for k in 0..5 {
        sums[k] = lanes.add(sums[k], weighted(lanes, d, terms[k]));
    }
}

/// `x`, times what it counts by.
#[inline(always)]
fn weighted<L: Lanes>(lanes: L, share: Option<L::Vector>, x: L::Vector) -> L::Vector {
    match share {
        Some(d) => lanes.mul(d, x),
        None => x,
    }
}

/// Scale and zero point of a group in all lanes.
#[derive(Clone, Copy)]
struct Levels<V> {
    scale: V,
    inverse: V,
    zero: V,
    last: V,
}

impl<V: Copy> Levels<V> {
    #[inline(always)]
    fn new<L: Lanes<Vector = V>>(lanes: L, grid: Grid, (scale, zero): (f32, u8)) -> Self {
        Levels {
            scale: lanes.splat(scale),
            inverse: lanes.splat(inverse(scale)),
            zero: lanes.splat(grid.zero_point(zero)),
            last: lanes.splat(grid.last()),
        }
    }

    /// [`nearest`] less the zero point.
    #[inline(always)]
    fn steps<L: Lanes<Vector = V>>(&self, lanes: L, w: V) -> V {
        let x = lanes.add(lanes.mul(w, self.inverse), self.zero);
        let x = lanes.min(lanes.max(x, lanes.splat(0.0)), self.last);
        let rounder = lanes.splat(ROUNDER);
        lanes.sub(lanes.sub(lanes.add(x, rounder), rounder), self.zero)
    }
}

struct Span<'a> {
    grid: Grid,
    weights: &'a [f32],
}

impl Work for Span<'_> {
    type Output = (f16, u8);

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> (f16, u8) {
        let (low, high) = self.grid.range(lanes, self.weights);
        let scale = to_half(f64::from(high - low) / f64::from(self.grid.last()));
        (scale, self.grid.nearest_zero(-low * inverse(scale.to_f32())))
    }
}

struct FitWeighted<'a> {
    grid: Grid,
    weights: &'a [f32],
    importance: &'a [f32],
}

impl Work for FitWeighted<'_> {
    type Output = (f16, u8);

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> (f16, u8) {
        self.grid.fit(lanes, self.weights, Some(self.importance))
    }
}

#[derive(Clone, Copy, Debug)]
struct Fit {
    error: f64,
    /// A half.
    scale: f32,
    zero: u8,
}

/// What values are multiplied with to count steps; 0 where all levels are the same.
#[inline(always)]
pub(in crate::codec) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}

/// The integer nearest to `w`.
#[inline]
pub(in crate::codec) fn nearest(w: f32, inverse: f32, zero: f32, last: f32) -> f32 {
    clamped(w, inverse, zero, last) + ROUNDER - ROUNDER
}

/// What is rounded to the integer nearest to `w`.
#[inline(always)]
fn clamped(w: f32, inverse: f32, zero: f32, last: f32) -> f32 {
    let x = w * inverse + zero;
    let x = if x > 0.0 { x } else { 0.0 };
    if x < last { x } else { last }
}
