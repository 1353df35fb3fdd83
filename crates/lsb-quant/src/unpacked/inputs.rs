//! Activations in fixed point, so that sums of their products with levels are sums of integers: exact, in any order.
//!
//! A group of 32 columns has a scale of its own, the largest magnitude in it over [`LARGEST`]; a value is off by half of that at
//! most, `2^-16` of the largest.

use super::form::GROUP;
use crate::lanes::{Lanes, Work, dispatch};

/// The largest magnitude of a value. With it, both bytes of a value fit eight bits with a sign.
const LARGEST: f32 = 32_639.0;

/// Groups that are all smaller than this count as zeros: their inverse would overflow.
const SMALLEST: f32 = 1e-30;

/// The values of a group: those of even columns, then those of odd ones.
pub(super) type Values = [[i16; GROUP / 2]; 2];

/// The same values, `256 high + low` each: the high bytes of all columns, then the low ones.
pub(super) type Digits = [[i8; GROUP]; 2];

/// What a group has besides its values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scale {
    /// What the values are multiplied by; NaN where an activation was not finite.
    pub(super) scale: f32,
    /// The sum of the values.
    pub(super) sum: i32,
}

/// Activations of some tokens, token by token, each in groups.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    groups: usize,
    values: Vec<Values>,
    digits: Vec<Digits>,
    scales: Vec<Scale>,
}

/// The activations of one token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) values: &'a [Values],
    pub(super) digits: &'a [Digits],
    pub(super) scales: &'a [Scale],
}

impl Inputs {
    /// Begins again, with tokens of so many columns.
    pub(super) fn begin(&mut self, columns: usize) {
        self.groups = columns.div_ceil(GROUP);
        self.values.clear();
        self.digits.clear();
        self.scales.clear();
    }

    /// Adds a token: each `x` times the step of its column and the factors of a power of two.
    pub(super) fn push(&mut self, x: &[f32], steps: &[f32], powers: [f32; 2]) {
        debug_assert_eq!((x.len().div_ceil(GROUP), x.len()), (self.groups, steps.len()));
        dispatch(Push { x, steps, powers, inputs: self });
    }

    /// Token `index`.
    pub(super) fn token(&self, index: usize) -> Token<'_> {
        let range = index * self.groups..(index + 1) * self.groups;
        Token {
            values: &self.values[range.clone()],
            digits: &self.digits[range.clone()],
            scales: &self.scales[range],
        }
    }
}

struct Push<'a> {
    x: &'a [f32],
    steps: &'a [f32],
    powers: [f32; 2],
    inputs: &'a mut Inputs,
}

impl Work for Push<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let [a, b] = self.powers;
        for (x, steps) in self.x.chunks(GROUP).zip(self.steps.chunks(GROUP)) {
            let mut products = [0.0; GROUP];
            for ((product, x), step) in products.iter_mut().zip(x).zip(steps) {
                *product = x * step * a * b;
            }
            let (values, scale) = fixed(&products);
            let (mut sorted, mut digits) = ([[0; GROUP / 2]; 2], [[0; GROUP]; 2]);
            for (column, &value) in values.iter().enumerate() {
                sorted[column % 2][column / 2] = value;
            }
            let [high, low] = &mut digits;
            for ((high, low), &value) in high.iter_mut().zip(low).zip(&values) {
                *low = value as i8;
                *high = ((value - i16::from(*low)) >> 8) as i8;
            }
            self.inputs.values.push(sorted);
            self.inputs.digits.push(digits);
            self.inputs.scales.push(scale);
        }
    }
}

/// A group in fixed point.
#[inline(always)]
fn fixed(products: &[f32; GROUP]) -> ([i16; GROUP], Scale) {
    // Magnitudes are in the order of their bits, infinity and NaN above all others.
    let mut largest = products.map(|x| x.to_bits() & 0x7fff_ffff);
    let mut half = GROUP / 2;
    while half > 0 {
        for i in 0..half {
            largest[i] = largest[i].max(largest[i + half]);
        }
        half /= 2;
    }
    let largest = f32::from_bits(largest[0]);
    if !largest.is_finite() {
        return ([0; GROUP], Scale { scale: f32::NAN, sum: 0 });
    }
    if largest < SMALLEST {
        return ([0; GROUP], Scale::default());
    }
    // 1.5 * 2^23: what is added to it is rounded to a whole number, which the lowest bits of the sum then are.
    const ROUNDER: f32 = 12_582_912.0;
    let inverse = LARGEST / largest;
    let values = products.map(|x| (x * inverse + ROUNDER).to_bits() as i16);
    let sum = values.iter().map(|&value| i32::from(value)).sum();
    (values, Scale { scale: largest / LARGEST, sum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_values_are_near_and_their_digits_are_they(x in prop::collection::vec(-1e3f32..1e3, 1..100)) {
            let mut inputs = Inputs::default();
            inputs.begin(x.len());
            inputs.push(&x, &vec![0.5; x.len()], [2.0, 1.0]);
            let token = inputs.token(0);
            for (group, x) in x.chunks(GROUP).enumerate() {
                let largest = x.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                let [high, low] = token.digits[group];
                for (column, x) in x.iter().enumerate() {
                    let value = token.values[group][column % 2][column / 2];
                    prop_assert_eq!(value, 256 * i16::from(high[column]) + i16::from(low[column]));
                    let off = (f32::from(value) * token.scales[group].scale - x).abs();
                    prop_assert!(off <= 1.01 * largest / 65_278.0, "{off} of {largest}");
                }
                let sum: i32 = token.values[group].as_flattened().iter().map(|&v| i32::from(v)).sum();
                prop_assert_eq!(token.scales[group].sum, sum);
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so_and_what_is_tiny_is_nothing() {
        let mut inputs = Inputs::default();
        for (x, expected) in [(f32::NAN, f32::NAN), (f32::INFINITY, f32::NAN), (1e-35, 0.0), (0.0, 0.0)] {
            inputs.begin(2);
            inputs.push(&[1e-34, x], &[1.0; 2], [1.0; 2]);
            let token = inputs.token(0);
            assert_eq!(token.values, [[[0; GROUP / 2]; 2]]);
            assert_eq!(token.scales[0].scale.to_bits(), expected.to_bits(), "{x}");
        }
    }
}
