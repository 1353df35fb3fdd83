//! Sums over weights in a fixed order: sixteen lanes in f32 over short blocks, blocks in f64, so that any vector
//! width gives the same bits.

const LANES: usize = 16;
/// Weights per block: short enough that f32 rounding stays near 1e-7 of the sum of magnitudes.
const BLOCK: usize = 512;

fn over_lanes(values: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0.0;
    for block in values.chunks(BLOCK) {
        let mut lanes = [0.0f32; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += term(x);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane += term(x);
        }
        total += lane_sum(&lanes);
    }
    total
}

pub(crate) fn lane_sum(lanes: &[f32; LANES]) -> f64 {
    let mut sums = lanes.map(f64::from);
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            sums[i] += sums[i + n];
        }
    }
    sums[0]
}

/// Sum of all values.
pub(crate) fn sum(values: &[f32]) -> f64 {
    over_lanes(values, |x| x)
}

/// Sum of all magnitudes.
pub(crate) fn sum_of_magnitudes(values: &[f32]) -> f64 {
    over_lanes(values, f32::abs)
}

/// Sum of all squares. Magnitudes must not exceed `2^60`.
pub(crate) fn sum_of_squares(values: &[f32]) -> f64 {
    over_lanes(values, |x| x * x)
}

/// Number and sum of the values above `level`.
pub(crate) fn split_at(values: &[f32], level: f32) -> (u32, f64) {
    split(values, level, |x| x)
}

/// Number and sum of the magnitudes above `level`.
pub(crate) fn split_magnitudes_at(values: &[f32], level: f32) -> (u32, f64) {
    split(values, level, f32::abs)
}

fn split(values: &[f32], level: f32, term: impl Fn(f32) -> f32) -> (u32, f64) {
    let (mut count, mut total) = (0u32, 0.0);
    for block in values.chunks(BLOCK) {
        let (mut lanes, mut counts) = ([0.0f32; LANES], [0u32; LANES]);
        let mut add = |chunk: &[f32]| {
            for ((lane, n), &x) in lanes.iter_mut().zip(&mut counts).zip(chunk) {
                let x = term(x);
                let above = x > level;
                *lane += if above { x } else { 0.0 };
                *n += u32::from(above);
            }
        };
        let (chunks, rest) = block.as_chunks::<LANES>();
        chunks.iter().for_each(|c| add(c));
        add(rest);
        count += counts.iter().sum::<u32>();
        total += lane_sum(&lanes);
    }
    (count, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_sums_match_f64(values in prop::collection::vec(-3.0f32..3.0, 0..1500), level in -1.0f32..1.0) {
            let plain = |f: &dyn Fn(f64) -> f64| values.iter().map(|&x| f(f64::from(x))).sum::<f64>();
            let bound = 1e-5 * (1.0 + plain(&f64::abs));
            prop_assert!((sum(&values) - plain(&|x| x)).abs() < bound);
            prop_assert!((sum_of_magnitudes(&values) - plain(&f64::abs)).abs() < bound);
            prop_assert!((sum_of_squares(&values) - plain(&|x| x * x)).abs() < 3.0 * bound);
            let (n, s) = split_at(&values, level);
            prop_assert_eq!(n as usize, values.iter().filter(|&&x| x > level).count());
            let above = plain(&|x| if x > f64::from(level) { x } else { 0.0 });
            prop_assert!((s - above).abs() < bound);
            let (n, s) = split_magnitudes_at(&values, level);
            prop_assert_eq!(n as usize, values.iter().filter(|&&x| x.abs() > level).count());
            let above = plain(&|x| if x.abs() > f64::from(level) { x.abs() } else { 0.0 });
            prop_assert!((s - above).abs() < bound);
        }
    }
}
