//! The best path through the trellis (A. Viterbi, 1967), for several sequences at once.
//!
//! The cost of a path is the sum over its samples of `(x - j)^2 + rate(j)`, with the level `j` an integer that the
//! state allows. Only additions, multiplications and comparisons in a fixed order: every machine finds the same path.

use super::machine::{Machine, Way};

/// Levels from `-REACH` to `REACH` have rates of their own; those beyond cost what the last ones do.
pub(super) const REACH: i32 = 256;

/// Largest magnitude of a sample; larger ones are treated as this. Integers this large are exact in f32.
const MAX_SAMPLE: f32 = (1 << 22) as f32;

/// What each level costs: lambda times its bits, for one class of samples.
#[derive(Clone, Debug)]
pub(super) struct RateTable {
    /// Rate of level `j` at `j + REACH`.
    rates: Box<[f32; 2 * REACH as usize + 1]>,
}

impl RateTable {
    /// The table with rate `rate(j)` for level `j`.
    pub(super) fn new(mut rate: impl FnMut(i32) -> f32) -> Self {
        RateTable { rates: Box::new(std::array::from_fn(|i| rate(i as i32 - REACH))) }
    }

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

/// A sample as the multiple of four nearest to it, and the rest.
#[derive(Clone, Copy)]
struct Split {
    m: i32,
    rest: f32,
}

impl Split {
    #[inline(always)]
    fn of(x: f32) -> Split {
        /// Adding it to a smaller number rounds that to an integer, which the low bits then hold.
        const ROUNDER: f32 = (3 << 22) as f32;
        let x = x.clamp(-MAX_SAMPLE, MAX_SAMPLE);
        let rounded = x * 0.25 + ROUNDER;
        let m = rounded.to_bits() as i32 - ROUNDER.to_bits() as i32;
        Split { m, rest: x - 4.0 * (rounded - ROUNDER) }
    }

    /// Cost of level `4 m + i`.
    #[inline(always)]
    fn cost(self, near: &[f32; 9], i: i32) -> f32 {
        let e = self.rest - i as f32;
        e * e + near[(i + 4) as usize]
    }

    /// Costs of the best levels of the four subsets. Two or three levels of each are near enough to be the best.
    #[inline(always)]
    fn costs(self, near: &[f32; 9]) -> [f32; 4] {
        let cost = |i| self.cost(near, i);
        [
            min(cost(0), min(cost(-4), cost(4))),
            min(cost(1), cost(-3)),
            min(cost(2), cost(-2)),
            min(cost(-1), cost(3)),
        ]
    }

    /// The best level of a subset.
    fn level(self, near: &[f32; 9], subset: usize) -> i32 {
        const NEAR: [&[i32]; 4] = [&[0, -4, 4], &[1, -3], &[2, -2], &[-1, 3]];
        let mut best = (f32::INFINITY, 0);
        for &i in NEAR[subset & 3] {
            let cost = self.cost(near, i);
            if cost < best.0 {
                best = (cost, i);
            }
        }
        4 * self.m + best.1
    }
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// Samples between subtractions of the least cost, so that sums stay small and exact enough.
const SETTLE: usize = 16;

/// Bits of a word.
const WORD: usize = 32;

/// Searches `N` sequences at a time and keeps its memory between searches.
#[derive(Debug)]
pub(super) struct Search<const N: usize> {
    ways: Vec<[Way; 2]>,
    costs: Vec<[f32; N]>,
    fresh: Vec<[f32; N]>,
    /// For each sample, which of the two ways into every state is the better one: words of a bit per state.
    choices: Vec<[u32; N]>,
    /// Words of a sample.
    words: usize,
}

impl<const N: usize> Search<N> {
    pub(super) fn new(machine: Machine) -> Self {
        let states = machine.states();
        Search {
            ways: (0..states).map(|s| machine.ways_into(s as u8)).collect(),
            costs: vec![[0.0; N]; states],
            fresh: vec![[0.0; N]; states],
            choices: Vec::new(),
            words: states.div_ceil(WORD),
        }
    }

    /// Finds the best levels for `samples`, one sequence per lane, from state 0 on, with the rates
    /// `tables[class(t, lane)]`.
    pub(super) fn run(
        &mut self,
        samples: &[[f32; N]],
        tables: &[RateTable],
        class: impl Fn(usize, usize) -> usize,
        levels: &mut [[i32; N]],
    ) {
        debug_assert_eq!(samples.len(), levels.len());
        for (s, costs) in self.costs.iter_mut().enumerate() {
            *costs = [if s == 0 { 0.0 } else { 1e9 }; N];
        }
        self.choices.resize(samples.len() * self.words, [0; N]);
        for (t, xs) in samples.iter().enumerate() {
            let mut by_subset = [[0.0f32; N]; 4];
            for (lane, &x) in xs.iter().enumerate() {
                let split = Split::of(x);
                let costs = split.costs(tables[class(t, lane)].around(split.m));
                for (row, cost) in by_subset.iter_mut().zip(costs) {
                    row[lane] = cost;
                }
            }
            self.advance(t, &by_subset);
            if t % SETTLE == SETTLE - 1 {
                self.settle();
            }
        }
        for lane in 0..N {
            let mut state = 0;
            for (s, costs) in self.costs.iter().enumerate() {
                if costs[lane] < self.costs[state][lane] {
                    state = s;
                }
            }
            for t in (0..samples.len()).rev() {
                let second = self.choices[t * self.words + state / WORD][lane] >> (state % WORD) & 1;
                let way = self.ways[state][second as usize];
                let split = Split::of(samples[t][lane]);
                levels[t][lane] = split.level(tables[class(t, lane)].around(split.m), way.subset);
                state = way.from;
            }
        }
    }

    /// Extends every path by one sample.
    #[inline(always)]
    fn advance(&mut self, t: usize, by_subset: &[[f32; N]; 4]) {
        let choices = &mut self.choices[t * self.words..];
        for (word, block) in self.ways.chunks(WORD).enumerate() {
            let mut bits = [0u32; N];
            for (i, &[a, b]) in block.iter().enumerate() {
                let (from_a, from_b) = (&self.costs[a.from], &self.costs[b.from]);
                let (cost_a, cost_b) = (&by_subset[a.subset & 3], &by_subset[b.subset & 3]);
                let fresh = &mut self.fresh[WORD * word + i];
                for lane in 0..N {
                    let (a, b) = (from_a[lane] + cost_a[lane], from_b[lane] + cost_b[lane]);
                    bits[lane] |= u32::from(b < a) << i;
                    fresh[lane] = min(a, b);
                }
            }
            choices[word] = bits;
        }
        std::mem::swap(&mut self.costs, &mut self.fresh);
    }

    /// Subtracts the least cost from all.
    fn settle(&mut self) {
        let mut least = [f32::INFINITY; N];
        for costs in &self.costs {
            for (least, &c) in least.iter_mut().zip(costs) {
                *least = min(*least, c);
            }
        }
        for costs in &mut self.costs {
            for (c, &least) in costs.iter_mut().zip(&least) {
                *c -= least;
            }
        }
    }
}
