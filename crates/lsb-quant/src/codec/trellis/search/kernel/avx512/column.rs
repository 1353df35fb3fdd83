//! One sequence: sixteen states in each vector of costs, sixteen samples at a time where their levels are compared.

use super::super::{Candidates, SETTLE, Samples, Scratch, UNREACHED, scalar};
use super::{
    OTHER, WIDTH, is_available, load_f32, load_i32, machine, nearest, store_f32, store_i32, subsets, widen,
};
use crate::codec::trellis::machine::Machine;
use std::arch::x86_64::*;

/// As [`scalar::search`], which it does where the processor cannot.
pub(in super::super) fn column(
    machine: Machine,
    samples: &Samples<'_, 1>,
    scratch: &mut Scratch,
    levels: &mut [[i32; 1]],
) {
    if !is_available() {
        return scalar::search(machine, samples, scratch, levels);
    }
    let (masks, levels) = (&mut scratch.masks, levels.as_flattened_mut());
    // SAFETY: the processor has what the functions are compiled for.
    #[allow(unsafe_code)]
    unsafe {
        match machine.states() {
            4 => search::<4, 1, 2>(samples, masks, levels),
            8 => search::<8, 1, 2>(samples, masks, levels),
            16 => search::<16, 1, 2>(samples, masks, levels),
            32 => search::<32, 1, 2>(samples, masks, levels),
            64 => search::<64, 2, 4>(samples, masks, levels),
            128 => search::<128, 4, 8>(samples, masks, levels),
            _ => search::<256, 8, 16>(samples, masks, levels),
        }
    }
}

/// Costs of paths by state: the lower half of all states, then the upper half, each in `HALF` vectors. Where a half does not fill
/// one, what fills the rest are copies.
type Costs<const HALF: usize> = [[__m512; HALF]; 2];

/// Finds the levels of one sequence. `WORDS` is twice `HALF`.
#[target_feature(enable = "avx512f,avx512bw")]
fn search<const STATES: usize, const HALF: usize, const WORDS: usize>(
    samples: &Samples<'_, 1>,
    masks: &mut Vec<u16>,
    levels: &mut [i32],
) {
    let order = Order::new(STATES);
    let mut costs = [[_mm512_set1_ps(UNREACHED); HALF]; 2];
    costs[0][0] = _mm512_mask_mov_ps(costs[0][0], order.first, _mm512_setzero_ps());
    masks.resize(samples.values.len() * WORDS, 0);
    let masks = masks.as_chunks_mut::<WORDS>().0;
    let blocks =
        samples.values.as_flattened().chunks(WIDTH).zip(samples.classes.as_flattened().chunks(WIDTH));
    let blocks = blocks.zip(levels.chunks_mut(WIDTH)).zip(masks.chunks_mut(WIDTH));
    for (((values, classes), levels), masks) in blocks {
        const { assert!(SETTLE == WIDTH) };
        let (values, classes) = (padded(values), padded(classes));
        // SAFETY: there is a table for each class, and the first where a sample is missing.
        #[allow(unsafe_code)]
        let near = unsafe { nearest(load_f32(&values), widen(&classes), samples.tables.as_ptr()) };
        let mut candidates = [0; WIDTH];
        // What a sample becomes is known once the whole path is.
        store_i32(&mut candidates, near.candidates);
        levels.copy_from_slice(&candidates[..levels.len()]);
        let by_sample = transposed(&near.costs);
        for (i, masks) in masks.iter_mut().enumerate() {
            costs = advance::<STATES, HALF, WORDS>(&costs, &order, &by_sample[i % 4][i / 4], masks);
        }
        if masks.len() == SETTLE {
            settle(&mut costs);
        }
    }
    trace_back::<STATES, WORDS>(best_state::<STATES, HALF>(&costs), masks, levels);
}

fn padded<T: Copy + Default>(values: &[T]) -> [T; WIDTH] {
    values.first_chunk().copied().unwrap_or_else(|| {
        let mut out = [T::default(); WIDTH];
        out[..values.len()].copy_from_slice(values);
        out
    })
}

/// The costs of the four subsets of each sample: those of sample `4 j + i` at `[i][j]`.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(costs: &[__m512; 4]) -> [[[f32; 4]; 4]; 4] {
    let low = |a, b| _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
    let high = |a, b| _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
    let (a, b) = (low(costs[0], costs[1]), low(costs[2], costs[3]));
    let (c, d) = (high(costs[0], costs[1]), high(costs[2], costs[3]));
    let rows = [
        _mm512_unpacklo_pd(a, b),
        _mm512_unpackhi_pd(a, b),
        _mm512_unpacklo_pd(c, d),
        _mm512_unpackhi_pd(c, d),
    ];
    let mut out = [[[0.0; 4]; 4]; 4];
    for (out, row) in out.as_flattened_mut().as_flattened_mut().as_chunks_mut().0.iter_mut().zip(rows) {
        store_f32(out, _mm512_castpd_ps(row));
    }
    out
}

/// Where costs go in a vector.
struct Order {
    /// Where state 0 and its copies are.
    first: __mmask16,
    /// The subset that leads from each of the first sixteen states to an even one.
    subsets: __m512i,
    /// Fresh costs of a vector of even states and the odd ones beside them, side by side: first half, second half.
    sides: [__m512i; 2],
}

impl Order {
    #[target_feature(enable = "avx512f")]
    fn new(states: usize) -> Order {
        let of = subsets(machine(states));
        // States of a half that one vector holds.
        let held = (states / 2).min(WIDTH);
        let vector = |number: &dyn Fn(usize) -> usize| {
            load_i32(&std::array::from_fn(|lane| number(lane % held) as i32))
        };
        let side = |first: usize| vector(&|lane| (first + lane) / 2 + WIDTH * (lane & 1));
        Order {
            first: (0..WIDTH).filter(|lane| lane % held == 0).map(|lane| 1 << lane).sum(),
            subsets: vector(&|lane| of[lane]),
            sides: [side(0), side(held)],
        }
    }
}

/// Extends every path by one sample. Masks are those of even states, then those of the odd ones beside them.
#[target_feature(enable = "avx512f")]
#[inline]
fn advance<const STATES: usize, const HALF: usize, const WORDS: usize>(
    costs: &Costs<HALF>,
    order: &Order,
    by_subset: &[f32; 4],
    masks: &mut [u16; WORDS],
) -> Costs<HALF> {
    let subset = const { subsets(machine(STATES)) };
    // SAFETY: there are four numbers of 32 bits.
    #[allow(unsafe_code)]
    let four = unsafe { _mm_loadu_ps(by_subset.as_ptr()) };
    let four = _mm512_broadcast_f32x4(four);
    // Parities: those of a sum of states without common bits are sums of theirs.
    let taken = [0, 1, 2, 3]
        .map(|s| _mm512_permutevar_ps(four, _mm512_xor_si512(order.subsets, _mm512_set1_epi32(s))));
    let mut out = [_mm512_setzero_ps(); WORDS];
    for k in 0..HALF {
        let (low, high) = (subset[WIDTH * k % STATES], subset[(WIDTH * k + STATES / 2) % STATES]);
        let mut fresh = [_mm512_setzero_ps(); 2];
        for (odd, change) in [0, OTHER].into_iter().enumerate() {
            let a = _mm512_add_ps(costs[0][k], taken[low ^ change]);
            let b = _mm512_add_ps(costs[1][k], taken[high ^ change]);
            masks[HALF * odd + k] = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(b, a);
            fresh[odd] = _mm512_min_ps(b, a);
        }
        for (side, &order) in order.sides.iter().enumerate() {
            out[2 * k + side] = _mm512_permutex2var_ps(fresh[0], order, fresh[1]);
        }
    }
    let (halves, _) = out.as_chunks();
    [halves[0], halves[1]]
}

/// Subtracts the least cost from all.
#[target_feature(enable = "avx512f")]
#[inline]
fn settle<const HALF: usize>(costs: &mut Costs<HALF>) {
    let all = costs.as_flattened_mut();
    let mut least = all[0];
    for &mut c in &mut *all {
        least = _mm512_min_ps(least, c);
    }
    let least = _mm512_set1_ps(_mm512_reduce_min_ps(least));
    for c in all {
        *c = _mm512_sub_ps(*c, least);
    }
}

/// The first state of least cost.
#[target_feature(enable = "avx512f")]
fn best_state<const STATES: usize, const HALF: usize>(costs: &Costs<HALF>) -> usize {
    let held = (STATES / 2).min(WIDTH);
    let mut best = (f32::INFINITY, 0);
    for (k, &vector) in costs.as_flattened().iter().enumerate() {
        let mut of_states = [0.0; WIDTH];
        store_f32(&mut of_states, vector);
        for (i, &cost) in of_states[..held].iter().enumerate() {
            if cost < best.0 {
                best = (cost, k * held + i);
            }
        }
    }
    best.1
}

/// Follows the best path from its end.
#[inline]
fn trace_back<const STATES: usize, const WORDS: usize>(
    mut state: usize,
    masks: &[[u16; WORDS]],
    levels: &mut [i32],
) {
    let subset = const { subsets(machine(STATES)) };
    let top = STATES / 2;
    for (level, masks) in levels.iter_mut().zip(masks).rev() {
        let (bit, pair) = (state & 1, state >> 1);
        // Up to four masks fit a register: which of them is asked for need not wait for a load.
        let second = if WORDS <= 4 {
            let all = masks.iter().rev().fold(0, |all, &mask| all << WIDTH | u64::from(mask));
            all >> (pair + bit * (WIDTH * WORDS / 2)) & 1
        } else {
            u64::from(masks[pair / WIDTH + bit * (WORDS / 2)] >> (pair % WIDTH) & 1)
        };
        state = pair + second as usize * top;
        *level = Candidates(*level).level(subset[state] ^ (OTHER * bit));
    }
}
