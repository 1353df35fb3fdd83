//! The best path through the trellis (A. Viterbi, 1967), for the columns of a group at once or for one alone.
//!
//! The cost of a path is the sum over its samples of `(x - j)^2 + rate(j)`, with the level `j` an integer that the
//! state allows. Only additions, multiplications and comparisons in a fixed order: every machine finds the same path.

mod kernel;

pub(super) use kernel::Scratch;

use super::machine::Machine;
use crate::isa::Isa;
use kernel::Samples;
use lsb_format::entropy::LANES;

/// Levels from `-REACH` to `REACH` have rates of their own; those beyond cost what the last ones do.
pub(super) const REACH: i32 = 256;

/// Rates of a table.
const N_RATES: usize = 2 * REACH as usize + 1;

/// What each level costs: lambda times its bits, for one class of samples.
#[derive(Clone, Debug)]
#[repr(transparent)]
pub(super) struct RateTable {
    /// Rate of level `j` at `j + REACH`.
    rates: [f32; N_RATES],
}

impl RateTable {
    /// The table with rate `rate(j)` for level `j`.
    pub(super) fn new(mut rate: impl FnMut(i32) -> f32) -> Self {
        RateTable { rates: std::array::from_fn(|i| rate(i as i32 - REACH)) }
    }
}

/// Searches with one machine and the same memory.
#[derive(Debug)]
pub(super) struct Search<'a> {
    machine: Machine,
    isa: Isa,
    scratch: &'a mut Scratch,
}

impl<'a> Search<'a> {
    pub(super) fn new(machine: Machine, scratch: &'a mut Scratch) -> Self {
        Search { machine, isa: Isa::chosen(), scratch }
    }

    /// Finds the best levels for a sequence of samples in each lane, from state 0 on, with the rates of each sample's class.
    ///
    /// # Panics
    /// If there are not as many classes and levels as samples, or no table for a class.
    pub(super) fn lanes(
        &mut self,
        samples: &[[f32; LANES]],
        classes: &[[u8; LANES]],
        tables: &[RateTable],
        levels: &mut [[i32; LANES]],
    ) {
        let samples = Samples::new(samples, classes, tables, levels.len());
        kernel::lanes(self.machine, self.isa, &samples, self.scratch, levels);
    }

    /// The same for one sequence.
    ///
    /// # Panics
    /// As [`Search::lanes`].
    pub(super) fn column(
        &mut self,
        samples: &[f32],
        classes: &[u8],
        tables: &[RateTable],
        levels: &mut [i32],
    ) {
        let (samples, classes) = (samples.as_chunks().0, classes.as_chunks().0);
        let levels = levels.as_chunks_mut().0;
        let samples = Samples::<1>::new(samples, classes, tables, levels.len());
        kernel::column(self.machine, self.isa, &samples, self.scratch, levels);
    }
}
