//! Frequencies from counts: whole numbers that sum to `2^12` and cost the fewest bits.

use super::table::TOTAL;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The symbols that occur. Numbers are whole, and kept in f64 because compilers handle several of those at once: all of them,
/// and all products below, are under `2^53`.
pub(super) struct Shares {
    n: usize,
    symbols: [u8; 256],
    counts: [f64; 256],
    frequencies: [f64; 256],
}

impl Shares {
    /// Shares of symbols that occur so often, in increasing order; `None` if none does.
    pub(super) fn of(counts: impl Iterator<Item = (u8, u64)>) -> Option<Shares> {
        let mut used = [0; 256];
        let mut out = Shares { n: 0, symbols: [0; 256], counts: [0.0; 256], frequencies: [0.0; 256] };
        let mut all = 0;
        for ((symbol, count), (used, symbols)) in
            counts.filter(|&(_, count)| count > 0).zip(used.iter_mut().zip(&mut out.symbols))
        {
            (*used, *symbols) = (count, symbol);
            all |= count;
            out.n += 1;
        }
        // Counts are scaled below 2^32.
        let shift = (64 - all.leading_zeros()).saturating_sub(32);
        for (out, count) in out.counts.iter_mut().zip(&used[..out.n]) {
            *out = f64::from(((count >> shift) as u32).max(1));
        }
        out.share_out();
        (out.n > 0).then_some(out)
    }

    /// Symbols and their frequencies.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, u16)> {
        self.symbols[..self.n].iter().zip(&self.frequencies).map(|(&symbol, &f)| (symbol, f as u16))
    }

    fn share_out(&mut self) {
        let (counts, frequencies) = (&self.counts[..self.n], &mut self.frequencies[..self.n]);
        let sum: f64 = counts.iter().sum();
        for (f, &c) in frequencies.iter_mut().zip(counts) {
            let floor = floor_share(c, sum);
            *f = if floor < 1.0 { 1.0 } else { floor };
        }
        let missing = f64::from(TOTAL) - frequencies.iter().sum::<f64>();
        if missing > 0.0 {
            // The gain of f -> f + 1 is about c / (f + 1/2).
            settle(counts, frequencies, missing, |c, f| c / (2.0 * f + 1.0));
        } else {
            // The loss of f -> f - 1 is about c / (f - 1/2); the smallest loss has the largest inverse.
            settle(counts, frequencies, missing, |c, f| if f > 1.0 { (2.0 * f - 1.0) / c } else { 0.0 });
        }
    }
}

/// So few symbols are gone through faster than they are kept in a heap.
const FEW: usize = 48;

/// The whole number nearest to one between 0 and `2^51`.
#[inline(always)]
fn round(x: f64) -> f64 {
    const ROUNDER: f64 = (1u64 << 52) as f64;
    x + ROUNDER - ROUNDER
}

/// `2^12 c / sum`, rounded down.
#[inline(always)]
fn floor_share(c: f64, sum: f64) -> f64 {
    let product = f64::from(TOTAL) * c;
    let near = round(product / sum);
    if near * sum > product { near - 1.0 } else { near }
}

/// Adds `missing`, one by one, to the frequencies whose priority is largest at that time, the first of equals; takes one by one
/// where it is below zero.
///
/// Priorities are quotients of a number below `2^32` and one below `2^14`, or the other way round. Two that differ do so by a
/// share of more than `2^-47`, and rounding to 53 bits neither swaps nor joins them. None is negative, so that their bits order as
/// they do.
fn settle(counts: &[f64], frequencies: &mut [f64], missing: f64, priority: impl Fn(f64, f64) -> f64) {
    if let Some(priorities) = [0; FEW].get_mut(..counts.len()) {
        for (p, (&c, &f)) in priorities.iter_mut().zip(counts.iter().zip(&*frequencies)) {
            *p = priority(c, f).to_bits();
        }
        for _ in 0..missing.abs() as u32 {
            let mut first = 0;
            for (i, p) in priorities.iter().enumerate() {
                if *p > priorities[first] {
                    first = i;
                }
            }
            let Some(f) = frequencies.get_mut(first) else { return };
            *f += missing.signum();
            priorities[first] = priority(counts[first], *f).to_bits();
        }
        return;
    }
    let entry = |i: u8, c: f64, f: f64| (priority(c, f).to_bits(), Reverse(i));
    let numbered = (0..=u8::MAX).zip(counts.iter().zip(&*frequencies));
    let mut heap: BinaryHeap<_> = numbered.map(|(i, (&c, &f))| entry(i, c, f)).collect();
    for _ in 0..missing.abs() as u32 {
        let Some(mut largest) = heap.peek_mut() else { return };
        let Reverse(first) = largest.1;
        let (c, f) = (counts[usize::from(first)], &mut frequencies[usize::from(first)]);
        *f += missing.signum();
        *largest = entry(first, c, *f);
    }
}
