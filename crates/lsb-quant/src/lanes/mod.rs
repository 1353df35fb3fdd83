//! Loops over lanes, compiled once for each set of instructions and chosen when they are run.
//!
//! Most loops of the simple codecs are written over arrays of fixed length, which the compiler puts side by side in vectors of
//! whatever width it compiles for. So one text gives every kernel: [`dispatch`] runs it with the instructions of
//! [`Isa::chosen`]. All of it must be inlined, which is why what is called from there is `#[inline(always)]`. What compilers do
//! not find, such as a comparison to bits, or not reliably, such as sums that stay in registers, is said by methods of [`Lanes`].
//!
//! Nothing is fused and sums keep their shape, so that all instructions give the same bits.

mod kernel;

use crate::isa::Isa;

/// Lanes that are summed side by side: a multiple of every width of vectors.
pub(crate) const LANES: usize = 16;

/// Values that are compared together: bits of a word.
pub(crate) const WORD: usize = 32;

/// The lower and the upper lanes of a word.
#[inline(always)]
pub(crate) fn halves<T>(values: &[T; WORD]) -> [&[T; LANES]; 2] {
    match values.as_chunks() {
        ([low, high], _) => [low, high],
        _ => unreachable!("a word is twice as long"),
    }
}

/// The sum of all lanes, in pairs.
#[inline(always)]
pub(crate) fn total(mut sums: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

/// A set of instructions that this processor has. Only [`dispatch`] makes one.
pub(crate) trait Lanes: Copy {
    /// [`LANES`] numbers.
    type Vector: Copy;

    /// The numbers of an array.
    fn load(self, values: &[f32; LANES]) -> Self::Vector;

    /// Those of an array of integers.
    fn integers(self, values: &[i16; LANES]) -> Self::Vector;

    /// The numbers as an array.
    fn store(self, values: Self::Vector) -> [f32; LANES];

    /// The same number in every lane.
    fn splat(self, value: f32) -> Self::Vector;

    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `a * b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `if a > b { a } else { b }`.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// `if a < b { a } else { b }`.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Numbers without their signs.
    fn magnitude(self, a: Self::Vector) -> Self::Vector;

    /// `if a > b { a } else { 0.0 }`, and in how many lanes `a > b`.
    fn kept_above(self, a: Self::Vector, b: Self::Vector) -> (Self::Vector, u32);

    /// Bit `i` is set where value `i` lies above `level`; not where either is a NaN.
    fn above(self, values: &[f32; WORD], level: f32) -> u32;

    /// Bit `i` is set where key `i` is `least` or more.
    fn at_least(self, keys: &[i16; WORD], least: i16) -> u32;

    /// Bit `i` is the lowest bit of byte `i`.
    fn lowest_bits(self, bytes: &[u8; WORD]) -> u32;
}

/// What can be run with any set of instructions; implementations are `#[inline(always)]`. Not a closure: of one that only borrows
/// the compiler makes a function that is called, and compiled without the instructions.
pub(crate) trait Work {
    /// What it gives.
    type Output;

    /// Does it.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Does `work` with the chosen instructions. Costs a call: work should be that of a tile, or a row.
pub(crate) fn dispatch<W: Work>(work: W) -> W::Output {
    kernel::run(Isa::chosen(), work)
}

/// Does `work` with the instructions of `isa`, or without any where this processor lacks them.
#[cfg(test)]
pub(crate) fn dispatch_with<W: Work>(isa: Isa, work: W) -> W::Output {
    kernel::run(isa, work)
}
