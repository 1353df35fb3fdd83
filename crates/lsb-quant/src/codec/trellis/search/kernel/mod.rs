//! The search itself. [`scalar`] is the specification; the others find the same levels and are chosen by what the processor can
//! do.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;
#[cfg(test)]
mod tests;

use super::RateTable;
use crate::codec::trellis::machine::Machine;
use crate::isa::Isa;
use lsb_format::entropy::LANES;

/// Largest magnitude of a sample; larger ones are treated as this. Integers this large are exact in f32.
const MAX_SAMPLE: f32 = (1 << 22) as f32;

/// Adding it to a smaller number rounds that to an integer, which the low bits then hold.
const ROUNDER: f32 = (3 << 22) as f32;

/// Cost of the states a path cannot start in.
const UNREACHED: f32 = 1e9;

/// Samples between subtractions of the least cost, so that sums stay small and exact enough.
const SETTLE: usize = 16;

/// Sequences of samples side by side, and what their levels cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Samples<'a, const N: usize> {
    values: &'a [[f32; N]],
    classes: &'a [[u8; N]],
    /// One for each class that occurs.
    tables: &'a [RateTable],
}

impl<'a, const N: usize> Samples<'a, N> {
    /// # Panics
    /// If there are not as many classes and levels as samples, or no table for a class.
    pub(super) fn new(
        values: &'a [[f32; N]],
        classes: &'a [[u8; N]],
        tables: &'a [RateTable],
        levels: usize,
    ) -> Self {
        assert!(
            values.len() == classes.len() && values.len() == levels,
            "a class and a level for every sample"
        );
        let largest = classes.as_flattened().iter().copied().max().unwrap_or(0);
        assert!(usize::from(largest) < tables.len(), "a table for every class");
        Samples { values, classes, tables }
    }
}

/// Memory of a search. Choices say, for each sample, which of the two ways into every state is the better one.
#[derive(Debug, Default)]
pub(in super::super) struct Scratch {
    /// Choices of the scalar search: words of a bit per state, for each lane.
    words: Vec<u32>,
    /// Choices of the others: a bit per lane for each state, or a bit per state.
    #[cfg(target_arch = "x86_64")]
    masks: Vec<u16>,
}

/// Levels of all lanes.
pub(super) fn lanes(
    machine: Machine,
    isa: Isa,
    samples: &Samples<'_, LANES>,
    scratch: &mut Scratch,
    levels: &mut [[i32; LANES]],
) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if avx512::is_available() => avx512::lanes(machine, samples, scratch, levels),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if avx2::is_available() => avx2::search(machine, samples, scratch, levels),
        _ => scalar::search(machine, samples, scratch, levels),
    }
}

/// Levels of one sequence.
pub(super) fn column(
    machine: Machine,
    isa: Isa,
    samples: &Samples<'_, 1>,
    scratch: &mut Scratch,
    levels: &mut [[i32; 1]],
) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if avx512::is_available() => avx512::column(machine, samples, scratch, levels),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if avx2::is_available() => avx2::search(machine, samples, scratch, levels),
        _ => scalar::search(machine, samples, scratch, levels),
    }
}

/// The best levels of the four subsets near a sample, in one number.
///
/// The level of subset `s` is `4 (m + q) + s`, where `4 m` is the multiple of four nearest to the sample and `q` is -1, 0 or
/// 1. Bits `2 s` and `2 s + 1` hold `q + 1`, those from 8 on hold `m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidates(i32);

impl Candidates {
    /// The level of a subset.
    #[inline(always)]
    fn level(self, subset: usize) -> i32 {
        let s = (subset & 3) as i32;
        4 * ((self.0 >> 8) + (self.0 >> (2 * s) & 3) - 1) + s
    }
}
