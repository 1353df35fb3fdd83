//! Activations in fixed point, so that sums of their products with levels are sums of integers: exact, in any order.
//!
//! A group of 32 columns has a scale of its own, the largest magnitude in it over the largest value that its form of levels takes;
//! an input is off by half of that at most: `2^-16` of the largest, `2^-12` of it beside levels of one bit.

use super::form::{Form, GROUP, QUAD, QUADS};
use super::kernel;
use crate::Isa;
use crate::lanes::{Lanes, Work, dispatch};
use std::ops::Range;

/// Groups that are all smaller than this count as zeros: their inverse would overflow.
pub(super) const SMALLEST: f32 = 1e-30;

/// 1.5 * 2^23: what is added to it is rounded to a whole number, by which the bits of the sum then are more than its own.
pub(super) const ROUNDER: f32 = 12_582_912.0;

/// The values of a group: those of even columns, then those of odd ones.
pub(super) type Values = [[i16; GROUP / 2]; 2];

/// The same values, `256 high + low` each: the high bytes of all columns, then the low ones.
pub(super) type Digits = [[i8; GROUP]; 2];

/// For each quad of a group and all sixteen ways in which four levels of one bit, -1 or 0, can be set: the sum of their products with
/// its values. The low bytes of all quads, then the high ones.
pub(super) type Table = [[[u8; 1 << QUAD]; QUADS]; 2];

/// What a group has besides its values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
    /// Of some of the tokens, which the processor looks up.
    tables: Vec<Table>,
    tabulated: Range<usize>,
}

/// The activations of one token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) values: &'a [Values],
    pub(super) digits: &'a [Digits],
    pub(super) scales: &'a [Scale],
}

impl Token<'_> {
    /// The sum of all activations.
    #[inline(always)]
    pub(super) fn sum(&self) -> f32 {
        self.scales.iter().fold(0.0, |sum, group| sum + group.scale * group.sum as f32)
    }
}

impl Inputs {
    /// Begins again, with inputs `x(token)` of some tokens that meet levels of a form: each times the step of its column, where there
    /// are steps, and the factors of a power of two.
    pub(super) fn fill<'x>(
        &mut self,
        form: Form,
        [tokens, columns]: [usize; 2],
        x: impl Fn(usize) -> &'x [f32],
        steps: &[f32],
        powers: [f32; 2],
    ) {
        self.fill_with(Isa::chosen(), form, [tokens, columns], x, steps, powers);
    }

    pub(super) fn fill_with<'x>(
        &mut self,
        isa: Isa,
        form: Form,
        [tokens, columns]: [usize; 2],
        x: impl Fn(usize) -> &'x [f32],
        steps: &[f32],
        powers: [f32; 2],
    ) {
        debug_assert!(steps.is_empty() || steps.len() == columns);
        self.groups = columns.div_ceil(GROUP);
        // All of them are written.
        self.values.resize(tokens * self.groups, Values::default());
        self.digits.resize(tokens * self.groups, Digits::default());
        self.scales.resize(tokens * self.groups, Scale::default());
        for token in 0..tokens {
            let x = x(token);
            debug_assert_eq!(x.len(), columns);
            let groups = token * self.groups..(token + 1) * self.groups;
            let stored = Stored {
                largest: f32::from(form.largest_input()),
                values: &mut self.values[groups.clone()],
                digits: &mut self.digits[groups.clone()],
                scales: &mut self.scales[groups],
            };
            store(isa, x, steps, powers, stored);
        }
        self.tabulated = kernel::looked_up(isa, form, tokens);
        let values = &self.values[self.tabulated.start * self.groups..self.tabulated.end * self.groups];
        self.tables.resize(values.len(), [[[0; 1 << QUAD]; QUADS]; 2]);
        dispatch(Tabulate { values, tables: &mut self.tables });
    }

    /// Some groups of token `index`.
    pub(super) fn token(&self, index: usize, groups: Range<usize>) -> Token<'_> {
        let range = index * self.groups + groups.start..index * self.groups + groups.end;
        Token {
            values: &self.values[range.clone()],
            digits: &self.digits[range.clone()],
            scales: &self.scales[range],
        }
    }

    /// Some groups of token `index`, as sums that are looked up.
    ///
    /// # Panics
    /// If those of this token are not.
    pub(super) fn tables(&self, index: usize, groups: Range<usize>) -> (&[Table], &[Scale]) {
        assert!(self.tabulated.contains(&index));
        let tables = &self.tables[(index - self.tabulated.start) * self.groups..][..self.groups];
        (&tables[groups.clone()], &self.scales[index * self.groups..][groups])
    }
}

/// Groups as they are stored.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    /// Of the magnitudes of values.
    pub(super) largest: f32,
    pub(super) values: &'a mut [Values],
    pub(super) digits: &'a mut [Digits],
    pub(super) scales: &'a mut [Scale],
}

/// Stores activations, each times the step of its column, where there are steps, and the factors of a power of two.
fn store(isa: Isa, x: &[f32], steps: &[f32], powers: [f32; 2], mut out: Stored<'_>) {
    #[cfg(target_arch = "x86_64")]
    if super::kernel::inputs::store(isa, x, steps, powers, &mut out) {
        return;
    }
    let _ = isa;
    dispatch(Store { x, steps, powers, out: &mut out });
}

/// The specification.
struct Store<'a, 'o> {
    x: &'a [f32],
    steps: &'a [f32],
    powers: [f32; 2],
    out: &'a mut Stored<'o>,
}

impl Work for Store<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let ([a, b], Stored { largest, values, digits, scales }) = (self.powers, self.out);
        let out = values.iter_mut().zip(&mut **digits).zip(&mut **scales);
        for (group, (x, (([even, odd], [high, low]), scale))) in self.x.chunks(GROUP).zip(out).enumerate() {
            let mut products = [0.0; GROUP];
            match self.steps.get(group * GROUP..).unwrap_or_default() {
                [] => products.iter_mut().zip(x).for_each(|(product, x)| *product = x * a * b),
                steps => {
                    for ((product, x), step) in products.iter_mut().zip(x).zip(steps) {
                        *product = x * step * a * b;
                    }
                }
            }
            let values;
            (values, *scale) = fixed(&products, *largest);
            for ((even, odd), [a, b]) in even.iter_mut().zip(odd).zip(values.as_chunks().0) {
                (*even, *odd) = (*a as i16, *b as i16);
            }
            for ((high, low), value) in high.iter_mut().zip(low).zip(&values) {
                // The low digit is the nearest, so that the high one is rounded.
                *low = *value as i8;
                *high = ((value + 0x80) >> 8) as i8;
            }
        }
    }
}

/// A group in fixed point, each value at most `of_values` in magnitude.
///
/// Loops over arrays, not their `map`: the compiler makes a function of that, which is compiled for no processor in particular.
#[inline(always)]
fn fixed(products: &[f32; GROUP], of_values: f32) -> ([i32; GROUP], Scale) {
    // Magnitudes are in the order of their bits, infinity and NaN above all others.
    let mut largest = [0; GROUP];
    for (largest, x) in largest.iter_mut().zip(products) {
        *largest = x.to_bits() & 0x7fff_ffff;
    }
    let mut half = GROUP / 2;
    while half > 0 {
        for i in 0..half {
            largest[i] = largest[i].max(largest[i + half]);
        }
        half /= 2;
    }
    let largest = f32::from_bits(largest[0]);
    let mut values = [0; GROUP];
    if !largest.is_finite() {
        return (values, Scale { scale: f32::NAN, sum: 0 });
    }
    if largest < SMALLEST {
        return (values, Scale::default());
    }
    let inverse = of_values / largest;
    for (value, x) in values.iter_mut().zip(products) {
        *value = (x * inverse + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()) as i32;
    }
    let sum = values.iter().sum();
    (values, Scale { scale: largest / of_values, sum })
}

/// Makes tables of values.
struct Tabulate<'a> {
    values: &'a [Values],
    tables: &'a mut [Table],
}

/// Of each value of a quad, all bits where its level is -1 and none where it is 0, for all ways to set levels.
const TAKEN: [[i16; 1 << QUAD]; QUAD] = {
    let mut taken = [[0; 1 << QUAD]; QUAD];
    let mut at = 0;
    while at < QUAD << QUAD {
        let (column, bits) = (at % QUAD, at / QUAD);
        taken[column][bits] = if bits >> column & 1 == 0 { -1 } else { 0 };
        at += 1;
    }
    taken
};

impl Work for Tabulate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for ([even, odd], [low, high]) in self.values.iter().zip(self.tables) {
            let pairs = even.as_chunks::<2>().0.iter().zip(odd.as_chunks::<2>().0);
            for (([a, c], [b, d]), (low, high)) in pairs.zip(low.iter_mut().zip(high)) {
                let mut sums = [0; 1 << QUAD];
                for (bits, sum) in sums.iter_mut().enumerate() {
                    *sum = (a & TAKEN[0][bits]) + (b & TAKEN[1][bits]);
                    *sum = -(*sum + (c & TAKEN[2][bits]) + (d & TAKEN[3][bits]));
                }
                for ((low, high), sum) in low.iter_mut().zip(high).zip(sums) {
                    (*low, *high) = (sum as u8, (sum >> 8) as u8);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_values_are_near_and_their_digits_and_tables_are_they(
            x in prop::collection::vec(-1e3f32..1e3, 1..100),
            form in prop::sample::select(&Form::ALL[..]),
        ) {
            let mut inputs = Inputs::default();
            inputs.fill(form, [1, x.len()], |_| &x, &vec![0.5; x.len()], [2.0, 1.0]);
            let token = inputs.token(0, 0..inputs.groups);
            for (group, x) in x.chunks(GROUP).enumerate() {
                let largest = x.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                let values = token.values[group];
                let [high, low] = token.digits[group];
                for (column, x) in x.iter().enumerate() {
                    let value = values[column % 2][column / 2];
                    prop_assert_eq!(value, 256 * i16::from(high[column]) + i16::from(low[column]));
                    let off = (f32::from(value) * token.scales[group].scale - x).abs();
                    let most = 1.01 * largest / (2.0 * f32::from(form.largest_input()));
                    prop_assert!(off <= most, "{off} of {largest}");
                }
                let sum: i32 = values.as_flattened().iter().map(|&v| i32::from(v)).sum();
                prop_assert_eq!(token.scales[group].sum, sum);
                for (quad, bits) in (0..QUADS * inputs.tables.len().min(1)).flat_map(|q| (0..1 << QUAD).map(move |b| (q, b))) {
                    let [low, high] = inputs.tables[group].map(|bytes| bytes[quad][bits]);
                    let level = |column: usize| (bits >> (column % QUAD) & 1) as i16 - 1;
                    let columns = QUAD * quad..QUAD * (quad + 1);
                    let sum: i16 = columns.map(|c| level(c) * values[c % 2][c / 2]).sum();
                    prop_assert_eq!(i16::from_le_bytes([low, high]), sum);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn prop_kernels_store_the_bits_of_the_loop(
            x in prop::collection::vec(prop_oneof![8 => -1e3f32..1e3, 1 => any::<f32>(), 1 => Just(0.0), 1 => -1e-31f32..1e-31], 1..100),
            steps in any::<bool>(),
            powers in prop_oneof![Just([1.0, 1.0]), Just([0.125, 4.0]), Just([1e-20, 1e-10])],
            form in prop::sample::select(&Form::ALL[..]),
        ) {
            let steps: Vec<f32> = (0..if steps { x.len() } else { 0 }).map(|i| 0.5 + i as f32).collect();
            let run = |isa| {
                let mut inputs = Inputs::default();
                inputs.fill_with(isa, form, [2, x.len()], |_| &x, &steps, powers);
                let scales: Vec<_> = inputs.scales.iter().map(|s| (s.scale.to_bits(), s.sum)).collect();
                (inputs.values, inputs.digits, scales)
            };
            let expected = run(Isa::Scalar);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                prop_assert_eq!(run(isa), expected.clone(), "{}", isa.name());
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so_and_what_is_tiny_is_nothing() {
        let mut inputs = Inputs::default();
        for (x, expected) in [(f32::NAN, f32::NAN), (f32::INFINITY, f32::NAN), (1e-35, 0.0), (0.0, 0.0)] {
            let given = [1e-34, x];
            inputs.fill(Form::Four, [1, 2], |_| &given, &[1.0; 2], [1.0; 2]);
            let token = inputs.token(0, 0..inputs.groups);
            assert_eq!(token.values, [[[0; GROUP / 2]; 2]]);
            assert_eq!(token.scales[0].scale.to_bits(), expected.to_bits(), "{x}");
        }
    }
}
