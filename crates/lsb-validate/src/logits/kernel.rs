//! Sums over runs of logits, for the instruction set at hand.
//!
//! The loops work on [`LANES`] lanes of f64 without fusing, so every instruction set gives the same bits.

use pulp::{Arch, Simd, WithSimd};

/// Lanes summed side by side: two vectors of AVX2, one of AVX-512.
const LANES: usize = 8;

/// Exponentials made before they are added up. A loop of its own of this length compiles to whole vectors; one
/// that also sums does not.
const GROUP: usize = 64;

/// Exponents are clamped here: what is smaller than `e^-700` counts as `e^-700`, which no sum can see.
const LEAST: f64 = -700.0;

/// Bound of the relative error of [`exp`] on `-700..=0`.
#[cfg(test)]
pub(super) const EXP_ERROR: f64 = 1e-11;

/// `e^x` for `x <= 0`, relative error below 1e-11; below -700 it is `e^-700`, also for NaN.
///
/// `x = k ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` by its Taylor series to `r^9` (remainder 7e-12), times `2^k`
/// by adding to the exponent. Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits. Only
/// operations that vectorize and are exact everywhere; libm's exp is neither.
#[inline(always)]
pub(super) fn exp(x: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const SERIES: [f64; 9] =
        [1.0 / 40_320.0, 1.0 / 5_040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let x = if x > LEAST { x } else { LEAST };
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let r = x - (shifted - ROUND) * std::f64::consts::LN_2;
    let mut e = 1.0 / 362_880.0;
    for c in SERIES {
        e = e * r + c;
    }
    f64::from_bits(e.to_bits().wrapping_add(shifted.to_bits() << 52))
}

/// Adds a group to the lanes, in order.
#[inline(always)]
fn add(sums: &mut [f64; LANES], group: &[f64; GROUP]) {
    for lanes in group.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            sums[i] += lanes[i];
        }
    }
}

/// What is known of a run before it is summed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    /// Largest value; NaN is passed over.
    pub(super) max: f32,
    /// Whether no value is NaN or infinite.
    pub(super) finite: bool,
}

/// Largest value of a run, and whether all are finite.
pub(super) struct Largest<'a>(pub(super) &'a [f32]);

impl WithSimd for Largest<'_> {
    type Output = Scan;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Scan {
        const WIDE: usize = 32;
        let mut max = [f32::NEG_INFINITY; WIDE];
        let mut poison = [0.0f32; WIDE];
        let (chunks, rest) = self.0.as_chunks::<WIDE>();
        for chunk in chunks {
            for i in 0..WIDE {
                max[i] = if chunk[i] > max[i] { chunk[i] } else { max[i] };
                // Zero for a number, NaN for the rest.
                poison[i] += chunk[i] * 0.0;
            }
        }
        for (i, &v) in rest.iter().enumerate() {
            max[i] = if v > max[i] { v } else { max[i] };
            poison[i] += v * 0.0;
        }
        Scan {
            max: max.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m }),
            finite: poison.iter().sum::<f32>() == 0.0,
        }
    }
}

/// `sum e^(v - shift)` over a run, where `shift` is at least its largest value.
pub(super) struct SumExp<'a> {
    pub(super) values: &'a [f32],
    pub(super) shift: f32,
}

impl WithSimd for SumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let shift = f64::from(self.shift);
        let (mut sums, mut e) = ([0.0f64; LANES], [0.0f64; GROUP]);
        let (groups, rest) = self.values.as_chunks::<GROUP>();
        for group in groups {
            for i in 0..GROUP {
                e[i] = exp(f64::from(group[i]) - shift);
            }
            add(&mut sums, &e);
        }
        for (i, &v) in rest.iter().enumerate() {
            sums[i % LANES] += exp(f64::from(v) - shift);
        }
        sums.iter().sum()
    }
}

/// The exponential sums of two runs of the same ids.
pub(super) struct PairExp<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) shift_a: f32,
    pub(super) shift_b: f32,
}

/// Sums over ids, with `x = a - shift_a` and `y = b - shift_b`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExpSums {
    /// `sum e^x`.
    pub(super) a: f64,
    /// `sum e^y`.
    pub(super) b: f64,
    /// `sum e^x (x - y)`.
    pub(super) cross: f64,
}

impl WithSimd for PairExp<'_> {
    type Output = ExpSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> ExpSums {
        let (shift_a, shift_b) = (f64::from(self.shift_a), f64::from(self.shift_b));
        let (mut a, mut b, mut cross) = ([0.0f64; LANES], [0.0f64; LANES], [0.0f64; LANES]);
        let (mut e_a, mut e_b, mut e_cross) = ([0.0f64; GROUP], [0.0f64; GROUP], [0.0f64; GROUP]);
        let (a_groups, a_rest) = self.a.as_chunks::<GROUP>();
        let (b_groups, b_rest) = self.b.as_chunks::<GROUP>();
        for (p, q) in a_groups.iter().zip(b_groups) {
            for i in 0..GROUP {
                let (x, y) = (f64::from(p[i]) - shift_a, f64::from(q[i]) - shift_b);
                e_a[i] = exp(x);
                e_b[i] = exp(y);
                e_cross[i] = e_a[i] * (x - y);
            }
            add(&mut a, &e_a);
            add(&mut b, &e_b);
            add(&mut cross, &e_cross);
        }
        for (i, (&p, &q)) in a_rest.iter().zip(b_rest).enumerate() {
            let i = i % LANES;
            let (x, y) = (f64::from(p) - shift_a, f64::from(q) - shift_b);
            let e = exp(x);
            a[i] += e;
            b[i] += exp(y);
            cross[i] += e * (x - y);
        }
        ExpSums { a: a.iter().sum(), b: b.iter().sum(), cross: cross.iter().sum() }
    }
}

/// First and second moments of two runs of the same ids.
pub(super) struct PairMoments<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
}

/// Sums of `a`, `b`, `a²`, `b²` and `a b`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moments(pub(super) [f64; 5]);

impl Moments {
    /// Adds the sums of another run.
    pub(super) fn add(&mut self, other: &Moments) {
        for (sum, x) in self.0.iter_mut().zip(other.0) {
            *sum += x;
        }
    }

    /// Pearson correlation over `n` pairs; `None` where one side is constant.
    pub(super) fn correlation(&self, n: f64) -> Option<f64> {
        let [a, b, aa, bb, ab] = self.0;
        let (var_a, var_b) = (aa - a * a / n, bb - b * b / n);
        // What is left of a constant after rounding is not variance.
        let varies = var_a > 1e-12 * aa && var_b > 1e-12 * bb;
        varies.then(|| ((ab - a * b / n) / (var_a.sqrt() * var_b.sqrt())).clamp(-1.0, 1.0))
    }

    /// Cosine of the angle between the two vectors; `None` where one is zero.
    pub(super) fn cosine(&self) -> Option<f64> {
        let [_, _, aa, bb, ab] = self.0;
        (aa > 0.0 && bb > 0.0).then(|| (ab / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0))
    }
}

impl WithSimd for PairMoments<'_> {
    type Output = Moments;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Moments {
        let mut sums = [[0.0f64; LANES]; 5];
        let (a_chunks, a_rest) = self.a.as_chunks::<LANES>();
        let (b_chunks, b_rest) = self.b.as_chunks::<LANES>();
        for (p, q) in a_chunks.iter().zip(b_chunks) {
            for i in 0..LANES {
                let (p, q) = (f64::from(p[i]), f64::from(q[i]));
                sums[0][i] += p;
                sums[1][i] += q;
                sums[2][i] += p * p;
                sums[3][i] += q * q;
                sums[4][i] += p * q;
            }
        }
        for (i, (&p, &q)) in a_rest.iter().zip(b_rest).enumerate() {
            let (p, q) = (f64::from(p), f64::from(q));
            for (sum, x) in sums.iter_mut().zip([p, q, p * p, q * q, p * q]) {
                sum[i] += x;
            }
        }
        Moments(sums.map(|lanes| lanes.iter().sum()))
    }
}

/// The best instruction set of this CPU.
pub(super) fn arch() -> Arch {
    Arch::new()
}
