//! All sequences side by side, in plain loops.

use super::{Candidates, MAX_SAMPLE, ROUNDER, SETTLE, Samples, Scratch, UNREACHED};
use crate::codec::trellis::machine::{Machine, Way};
use crate::codec::trellis::search::{REACH, RateTable};

impl RateTable {
    /// Rates of the nine levels around `4 m`.
    #[inline(always)]
    fn around(&self, m: i32) -> &[f32; 9] {
        const LAST: i32 = REACH / 4 - 1;
        let first = (4 * m.clamp(-LAST, LAST) + REACH - 4) as usize;
        match self.rates[first..].first_chunk() {
            Some(nine) => nine,
            None => unreachable!("m is clamped"),
        }
    }
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// The best level of each subset near `x`, and what each costs. Two or three levels of a subset are near enough to be the
/// best; of equal ones the first named is taken.
#[inline(always)]
fn candidates(x: f32, table: &RateTable) -> ([f32; 4], Candidates) {
    let x = x.clamp(-MAX_SAMPLE, MAX_SAMPLE);
    let rounded = x * 0.25 + ROUNDER;
    let m = (rounded.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let rest = x - 4.0 * (rounded - ROUNDER);
    let near = table.around(m);
    let cost = |i: i32| {
        let e = rest - i as f32;
        e * e + near[(i + 4) as usize]
    };
    let better = |a: f32, b: f32| (min(a, b), b < a);
    let (zero, below) = better(cost(0), cost(-4));
    let (zero, above) = better(zero, cost(4));
    let (one, one_below) = better(cost(1), cost(-3));
    let (two, two_below) = better(cost(2), cost(-2));
    let (three, three_above) = better(cost(-1), cost(3));
    let q = [
        1 + i32::from(above) - i32::from(below & !above),
        1 - i32::from(one_below),
        1 - i32::from(two_below),
        i32::from(three_above),
    ];
    let near = Candidates(m << 8 | q[3] << 6 | q[2] << 4 | q[1] << 2 | q[0]);
    ([zero, one, two, three], near)
}

/// States of the largest machine.
const MAX_STATES: usize = 256;

/// Bits of a word.
const WORD: usize = 32;

/// Finds the levels of all lanes.
#[inline(always)]
pub(super) fn search<const N: usize>(
    machine: Machine,
    samples: &Samples<'_, N>,
    scratch: &mut Scratch,
    levels: &mut [[i32; N]],
) {
    let states = machine.states();
    let mut ways = [[Way::default(); 2]; MAX_STATES];
    let ways = &mut ways[..states];
    for (s, ways) in (0..=u8::MAX).zip(&mut *ways) {
        *ways = machine.ways_into(s);
    }
    let (mut costs, mut fresh) = ([[UNREACHED; N]; MAX_STATES], [[0.0; N]; MAX_STATES]);
    let (mut costs, mut fresh) = (&mut costs[..states], &mut fresh[..states]);
    costs[0] = [0.0; N];
    let n_words = states.div_ceil(WORD);
    scratch.words.resize(samples.values.len() * n_words * N, 0);
    let choices = scratch.words.as_chunks_mut::<N>().0;

    for (t, (xs, classes)) in samples.values.iter().zip(samples.classes).enumerate() {
        let mut by_subset = [[0.0f32; N]; 4];
        for lane in 0..N {
            let (costs, near) = candidates(xs[lane], &samples.tables[usize::from(classes[lane])]);
            for (row, cost) in by_subset.iter_mut().zip(costs) {
                row[lane] = cost;
            }
            // What the sample becomes is known once the whole path is.
            levels[t][lane] = near.0;
        }
        advance(ways, costs, &by_subset, fresh, &mut choices[t * n_words..][..n_words]);
        std::mem::swap(&mut costs, &mut fresh);
        if t % SETTLE == SETTLE - 1 {
            settle(costs);
        }
    }
    trace_back(ways, costs, choices, levels);
}

/// Follows the best path of each lane from its end. All lanes take a step before the next one, so that choices come through the
/// cache once.
#[inline(always)]
fn trace_back<const N: usize>(
    ways: &[[Way; 2]],
    costs: &[[f32; N]],
    choices: &[[u32; N]],
    levels: &mut [[i32; N]],
) {
    let mut states = [0; N];
    for (s, of_state) in costs.iter().enumerate() {
        for (lane, state) in states.iter_mut().enumerate() {
            if of_state[lane] < costs[*state][lane] {
                *state = s;
            }
        }
    }
    for (levels, choices) in levels.iter_mut().zip(choices.chunks(ways.len().div_ceil(WORD))).rev() {
        for (lane, state) in states.iter_mut().enumerate() {
            let second = choices[*state / WORD][lane] >> (*state % WORD) & 1;
            let way = ways[*state][second as usize];
            levels[lane] = Candidates(levels[lane]).level(way.subset);
            *state = way.from;
        }
    }
}

/// Extends every path by one sample.
#[inline(always)]
fn advance<const N: usize>(
    ways: &[[Way; 2]],
    costs: &[[f32; N]],
    by_subset: &[[f32; N]; 4],
    fresh: &mut [[f32; N]],
    choices: &mut [[u32; N]],
) {
    let blocks = ways.chunks(WORD).zip(fresh.chunks_mut(WORD));
    for ((ways, fresh), choices) in blocks.zip(choices) {
        let mut bits = [0u32; N];
        for (i, (&[a, b], fresh)) in ways.iter().zip(fresh).enumerate() {
            let (from_a, from_b) = (&costs[a.from], &costs[b.from]);
            let (cost_a, cost_b) = (&by_subset[a.subset & 3], &by_subset[b.subset & 3]);
            for lane in 0..N {
                let (a, b) = (from_a[lane] + cost_a[lane], from_b[lane] + cost_b[lane]);
                bits[lane] |= u32::from(b < a) << i;
                fresh[lane] = min(a, b);
            }
        }
        *choices = bits;
    }
}

/// Subtracts the least cost from all.
#[inline(always)]
fn settle<const N: usize>(costs: &mut [[f32; N]]) {
    let mut least = [f32::INFINITY; N];
    for costs in &*costs {
        for (least, &c) in least.iter_mut().zip(costs) {
            *least = min(*least, c);
        }
    }
    for costs in costs {
        for (c, &least) in costs.iter_mut().zip(&least) {
            *c -= least;
        }
    }
}
