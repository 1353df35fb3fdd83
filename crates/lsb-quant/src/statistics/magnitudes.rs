//! How often each magnitude occurs in a tensor, by its leading bits.

use super::surveyor::first_nonfinite;
use super::tally::{BINS, KeyOrder, Tally};
use crate::{MatrixInfo, Result, Span};
use rayon::prelude::*;

/// Counts of magnitudes by their leading 15 bits: exact for 16-bit types, within 1/256 for all others.
#[derive(Clone, Debug, PartialEq)]
pub struct Magnitudes {
    /// Magnitude and how many weights have it, in rising order.
    pub counts: Vec<(f64, u64)>,
}

impl Magnitudes {
    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.counts.iter().map(|&(_, n)| n).sum()
    }

    /// Mean of the squared weights; 0 where there are none.
    pub fn mean_square(&self) -> f64 {
        let sum: f64 = self.counts.iter().map(|&(x, n)| x * x * n as f64).sum();
        sum / self.weights().max(1) as f64
    }
}

/// Counts in one pass. Only integers are added up: the result depends neither on threads nor on spans.
#[derive(Debug)]
pub(super) struct Counter {
    order: KeyOrder,
    tallies: Vec<Tally>,
    tallied: u64,
    totals: Vec<u64>,
}

/// Elements after which tallies are emptied, before a counter could overflow.
const TALLY_LIMIT: u64 = 1 << 31;

impl Counter {
    pub(super) fn new(matrix: &MatrixInfo) -> Self {
        let order = KeyOrder::of(matrix.dtype);
        Counter { order, tallies: Vec::new(), tallied: 0, totals: vec![0; BINS] }
    }

    /// Counts the weights of a span.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] at the first NaN or infinity.
    pub(super) fn observe(&mut self, span: &Span<'_>) -> Result<()> {
        let threads = rayon::current_num_threads().max(1);
        if self.tallies.len() < threads {
            self.tallies.resize(threads, Tally::new());
        }
        let (order, bytes) = (self.order, span.bytes());
        let width = (span.matrix().dtype.bits() / 8) as usize;
        let share = (bytes.len() / width).div_ceil(threads).max(1) * width;
        self.tallies.par_iter_mut().zip(bytes.par_chunks(share)).for_each(|(t, bytes)| t.add(order, bytes));
        if (order.first_nonfinite()..BINS).any(|key| self.tallies.iter().any(|t| t.count(key) > 0)) {
            return Err(first_nonfinite(span));
        }
        self.tallied += (bytes.len() / width) as u64;
        if self.tallied >= TALLY_LIMIT {
            self.drain();
        }
        Ok(())
    }

    fn drain(&mut self) {
        for tally in &mut self.tallies {
            tally.drain_into(&mut self.totals);
        }
        self.tallied = 0;
    }

    pub(super) fn finish(mut self) -> Magnitudes {
        self.drain();
        // An incomplete key stands for the middle of its bin.
        let half = if self.order.is_complete() { 0 } else { 1 << 15 };
        let magnitude = |key: usize| match key {
            0 => 0.0,
            _ => f64::from(f32::from_bits(self.order.magnitude(key) | half)),
        };
        let used = self.totals.iter().enumerate().filter(|&(_, &n)| n > 0);
        Magnitudes { counts: used.map(|(key, &n)| (magnitude(key), n)).collect() }
    }
}
