//! Frequencies from counts: whole numbers that sum to `2^12` and cost the fewest bits.

use super::table::TOTAL;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Symbols that occur, `N` at most. Numbers are whole, and kept in f64 because compilers handle several of those at once: all of
/// them, and all products below, are under `2^53`.
pub(super) struct Shares<const N: usize> {
    n: usize,
    symbols: [u8; N],
    counts: [f64; N],
    frequencies: [f64; N],
}

impl<const N: usize> Shares<N> {
    /// Shares of symbols that occur so often, in increasing order; `None` if there are too many.
    pub(super) fn of(counts: impl Iterator<Item = (u8, u64)>) -> Option<Shares<N>> {
        let mut used = [0; N];
        let mut out = Shares { n: 0, symbols: [0; N], counts: [0.0; N], frequencies: [0.0; N] };
        let mut all = 0;
        for (symbol, count) in counts.filter(|&(_, count)| count > 0) {
            *used.get_mut(out.n)? = count;
            out.symbols[out.n] = symbol;
            all |= count;
            out.n += 1;
        }
        // Counts are scaled below 2^32.
        let shift = (64 - all.leading_zeros()).saturating_sub(32);
        for (out, count) in out.counts.iter_mut().zip(&used[..out.n]) {
            *out = f64::from(((count >> shift) as u32).max(1));
        }
        out.share_out();
        Some(out)
    }

    /// Symbols and their frequencies.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (u8, u16)> {
        self.symbols[..self.n].iter().zip(&self.frequencies).map(|(&symbol, &f)| (symbol, f as u16))
    }

    fn share_out(&mut self) {
        let (counts, frequencies) = (&self.counts[..self.n], &mut self.frequencies[..self.n]);
        let sum: f64 = counts.iter().sum();
        for (f, &c) in frequencies.iter_mut().zip(counts) {
            let floor = floor_share(c, sum);
            *f = if floor < 1.0 { 1.0 } else { floor };
        }
        let mut missing = f64::from(TOTAL) - frequencies.iter().sum::<f64>();
        if missing > 0.0 {
            missing -= round_up::<N>(counts, frequencies, sum, missing);
            settle(counts, frequencies, missing, gain);
        } else {
            // The loss of f -> f - 1 is about c / (f - 1/2); the smallest loss has the largest inverse.
            settle(counts, frequencies, missing, |c, f| if f > 1.0 { (2.0 * f - 1.0) / c } else { 0.0 });
        }
    }
}

/// The gain of f -> f + 1 is about c / (f + 1/2); this is half of it.
#[inline(always)]
fn gain(c: f64, f: f64) -> f64 {
    c / (2.0 * f + 1.0)
}

/// Of `missing` steps up that [`settle`] would take with the largest [`gain`], all those that gain more than a share that ends in
/// 1/2, or `missing` of them; says how many.
///
/// With `s = 2^12 c / sum` the gain is `sum / 2^12 * s / (2 f + 1)`: where `f` is `s` rounded down, it is more than half of
/// `sum / 2^12` just where `s` is nearer to `f + 1`, that of a second step never is, nor is that of a share below 1.
fn round_up<const N: usize>(counts: &[f64], frequencies: &mut [f64], sum: f64, missing: f64) -> f64 {
    let half = sum / f64::from(2 * TOTAL);
    let mut gains = [f64::INFINITY; N];
    let mut taken = 0.0;
    for (gain_of, (&c, f)) in gains.iter_mut().zip(counts.iter().zip(&mut *frequencies)) {
        let gain = gain(c, *f);
        if gain > half {
            (*gain_of, *f) = (gain, *f + 1.0);
            taken += 1.0;
        }
    }
    while taken > missing {
        // The smallest is taken back, of equals the last.
        let mut least = 0;
        for (i, gain) in gains[..counts.len()].iter().enumerate() {
            if *gain <= gains[least] {
                least = i;
            }
        }
        gains[least] = f64::INFINITY;
        frequencies[least] -= 1.0;
        taken -= 1.0;
    }
    taken
}

/// So few symbols are gone through faster than they are kept in a heap.
pub(super) const FEW: usize = 48;

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
