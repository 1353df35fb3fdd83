//! Sums over weights in a fixed order: sixteen lanes in f32 over short blocks, blocks in f64, so that any vector
//! width gives the same bits.

use crate::lanes::{LANES, Lanes};

/// Weights per block: short enough that f32 rounding stays near 1e-7 of the sum of magnitudes.
const BLOCK: usize = 512;

/// What is summed of each value.
trait Term {
    fn of<L: Lanes>(lanes: L, x: L::Vector) -> L::Vector;
}

struct Itself;
struct Magnitude;
struct Square;

impl Term for Itself {
    #[inline(always)]
    fn of<L: Lanes>(_: L, x: L::Vector) -> L::Vector {
        x
    }
}

impl Term for Magnitude {
    #[inline(always)]
    fn of<L: Lanes>(lanes: L, x: L::Vector) -> L::Vector {
        lanes.magnitude(x)
    }
}

impl Term for Square {
    #[inline(always)]
    fn of<L: Lanes>(lanes: L, x: L::Vector) -> L::Vector {
        lanes.mul(x, x)
    }
}

#[inline(always)]
fn over_lanes<L: Lanes, T: Term>(lanes: L, values: &[f32]) -> f64 {
    let mut total = 0.0;
    for block in values.chunks(BLOCK) {
        let mut sums = lanes.splat(0.0);
        for i in 0..n_chunks(block) {
            sums = lanes.add(sums, T::of(lanes, chunk(lanes, block, i)));
        }
        total += lane_sum(&lanes.store(sums));
    }
    total
}

/// Chunks of as many values as there are lanes; the last one may have fewer.
#[inline(always)]
pub(crate) fn n_chunks(values: &[f32]) -> usize {
    values.len().div_ceil(LANES)
}

/// Chunk `i` of the values; zeros follow the last value.
///
/// A sum that began with a zero is never a negative zero, so that adding a zero changes none.
#[inline(always)]
pub(crate) fn chunk<L: Lanes>(lanes: L, values: &[f32], i: usize) -> L::Vector {
    let values = &values[i * LANES..];
    match values.first_chunk() {
        Some(all) => lanes.load(all),
        None => {
            let mut padded = [0.0; LANES];
            padded[..values.len()].copy_from_slice(values);
            lanes.load(&padded)
        }
    }
}

/// Lanes are added to those half as many further on, in f64.
#[inline(always)]
pub(crate) fn lane_sum(lanes: &[f32; LANES]) -> f64 {
    let (low, high) = lanes.split_at(LANES / 2);
    let mut sums = [0.0; LANES / 2];
    for (sum, (&a, &b)) in sums.iter_mut().zip(low.iter().zip(high)) {
        *sum = f64::from(a) + f64::from(b);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    let [a, b, c, d] = [a + e, b + f, c + g, d + h];
    (a + c) + (b + d)
}

/// Sum of all values.
#[inline(always)]
pub(crate) fn sum<L: Lanes>(lanes: L, values: &[f32]) -> f64 {
    over_lanes::<L, Itself>(lanes, values)
}

/// Sum of all magnitudes.
#[inline(always)]
pub(crate) fn sum_of_magnitudes<L: Lanes>(lanes: L, values: &[f32]) -> f64 {
    over_lanes::<L, Magnitude>(lanes, values)
}

/// Sum of all squares. Magnitudes must not exceed `2^60`.
#[inline(always)]
pub(crate) fn sum_of_squares<L: Lanes>(lanes: L, values: &[f32]) -> f64 {
    over_lanes::<L, Square>(lanes, values)
}

/// Number and sum of the values above `level`.
#[inline(always)]
pub(crate) fn split_at<L: Lanes>(lanes: L, values: &[f32], level: f32) -> (u32, f64) {
    let past_end = if 0.0 > level { (LANES - values.len() % LANES) % LANES } else { 0 };
    let [(count, sum)] = split::<L, Itself, 1>(lanes, values, [level]);
    (count - past_end as u32, sum)
}

/// Number and sum of the magnitudes above each of `levels`, none of which is below zero.
#[inline(always)]
pub(crate) fn split_magnitudes_at<L: Lanes, const K: usize>(
    lanes: L,
    values: &[f32],
    levels: [f64; K],
) -> [(u32, f64); K] {
    let mut rounded = [0.0; K];
    for (rounded, level) in rounded.iter_mut().zip(levels) {
        *rounded = level as f32;
    }
    split::<L, Magnitude, K>(lanes, values, rounded)
}

/// Number and sum of the terms above each level, also of the zeros that fill the last chunk.
#[inline(always)]
fn split<L: Lanes, T: Term, const K: usize>(lanes: L, values: &[f32], levels: [f32; K]) -> [(u32, f64); K] {
    let mut all = [lanes.splat(0.0); K];
    for (all, level) in all.iter_mut().zip(levels) {
        *all = lanes.splat(level);
    }
    let mut out = [(0, 0.0); K];
    for block in values.chunks(BLOCK) {
        let (mut sums, mut counts) = ([lanes.splat(0.0); K], [0; K]);
        for i in 0..n_chunks(block) {
            let x = T::of(lanes, chunk(lanes, block, i));
            for k in 0..K {
                let (kept, n) = lanes.kept_above(x, all[k]);
                sums[k] = lanes.add(sums[k], kept);
                counts[k] += n;
            }
        }
        for k in 0..K {
            out[k].0 += counts[k];
            out[k].1 += lane_sum(&lanes.store(sums[k]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::lanes::{Work, dispatch, dispatch_with};
    use proptest::prelude::*;

    /// All sums, and both splits.
    struct All<'a>(&'a [f32], f32);

    impl Work for All<'_> {
        type Output = ([f64; 3], [(u32, f64); 2]);

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Output {
            let All(values, level) = self;
            let sums = [sum(lanes, values), sum_of_magnitudes(lanes, values), sum_of_squares(lanes, values)];
            let [first, second] = split_magnitudes_at(lanes, values, [0.5, f64::from(level.abs())]);
            assert!(first.0 <= values.len() as u32);
            (sums, [split_at(lanes, values, level), second])
        }
    }

    proptest! {
        #[test]
        fn prop_sums_match_f64(values in prop::collection::vec(-3.0f32..3.0, 0..1500), level in -1.0f32..1.0) {
            let plain = |f: &dyn Fn(f64) -> f64| values.iter().map(|&x| f(f64::from(x))).sum::<f64>();
            let bound = 1e-5 * (1.0 + plain(&f64::abs));
            let (sums, splits) = dispatch(All(&values, level));
            prop_assert!((sums[0] - plain(&|x| x)).abs() < bound);
            prop_assert!((sums[1] - plain(&f64::abs)).abs() < bound);
            prop_assert!((sums[2] - plain(&|x| x * x)).abs() < 3.0 * bound);
            let (n, s) = splits[0];
            prop_assert_eq!(n as usize, values.iter().filter(|&&x| x > level).count());
            let above = plain(&|x| if x > f64::from(level) { x } else { 0.0 });
            prop_assert!((s - above).abs() < bound);
            let (n, s) = splits[1];
            let level = level.abs();
            prop_assert_eq!(n as usize, values.iter().filter(|&&x| x.abs() > level).count());
            let above = plain(&|x| if x.abs() > f64::from(level) { x.abs() } else { 0.0 });
            prop_assert!((s - above).abs() < bound);
            for isa in Isa::ALL {
                prop_assert_eq!(dispatch_with(isa, All(&values, level)), dispatch_with(Isa::Scalar, All(&values, level)));
            }
        }
    }
}
