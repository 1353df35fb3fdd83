//! Sixteen sequences side by side: a vector of costs for each state, a bit for each sequence in its choices.

use super::super::{SETTLE, Samples, Scratch, UNREACHED, scalar};
use super::{OTHER, WIDTH, is_available, load_f32, load_i32, machine, nearest, store_i32, subsets, widen};
use crate::codec::trellis::machine::Machine;
use lsb_format::entropy::LANES;
use std::arch::x86_64::*;

/// As [`scalar::search`], which it does where the processor cannot.
pub(in super::super) fn lanes(
    machine: Machine,
    samples: &Samples<'_, LANES>,
    scratch: &mut Scratch,
    levels: &mut [[i32; LANES]],
) {
    if !is_available() {
        return scalar::search(machine, samples, scratch, levels);
    }
    let masks = &mut scratch.masks;
    // Reading the last mask reads one more.
    masks.resize(samples.values.len() * machine.states() + 1, 0);
    for half in 0..LANES / WIDTH {
        // SAFETY: the processor has what the functions are compiled for; there is room for a mask per sample and state, and one
        // more.
        #[allow(unsafe_code)]
        unsafe {
            match machine.states() {
                4 => search::<4>(half, samples, masks, levels),
                8 => search::<8>(half, samples, masks, levels),
                16 => search::<16>(half, samples, masks, levels),
                32 => search::<32>(half, samples, masks, levels),
                64 => search::<64>(half, samples, masks, levels),
                128 => search::<128>(half, samples, masks, levels),
                _ => search::<256>(half, samples, masks, levels),
            }
        }
    }
}

/// The lanes of a half.
#[inline(always)]
fn of_half<T>(half: usize, lanes: &[T; LANES]) -> &[T; WIDTH] {
    &lanes.as_chunks().0[half]
}

#[inline(always)]
fn of_half_mut<T>(half: usize, lanes: &mut [T; LANES]) -> &mut [T; WIDTH] {
    &mut lanes.as_chunks_mut().0[half]
}

/// Finds the levels of a half of the lanes.
///
/// # Safety
/// There is a table for each class, and there is a mask for each state of every sample, and one more.
#[target_feature(enable = "avx512f,avx512bw")]
#[allow(unsafe_code)]
unsafe fn search<const STATES: usize>(
    half: usize,
    samples: &Samples<'_, LANES>,
    masks: &mut [u16],
    levels: &mut [[i32; LANES]],
) {
    let mut costs = [_mm512_set1_ps(UNREACHED); STATES];
    costs[0] = _mm512_setzero_ps();
    let mut fresh = [_mm512_setzero_ps(); STATES];
    let (mut costs, mut fresh) = (&mut costs, &mut fresh);
    let steps = samples.values.iter().zip(samples.classes).zip(&mut *levels);
    let steps = steps.zip(masks.as_chunks_mut::<STATES>().0);
    for (t, (((values, classes), levels), masks)) in steps.enumerate() {
        let (values, classes) = (load_f32(of_half(half, values)), widen(of_half(half, classes)));
        // SAFETY: the caller's promise.
        let near = unsafe { nearest(values, classes, samples.tables.as_ptr()) };
        // What the sample becomes is known once the whole path is.
        store_i32(of_half_mut(half, levels), near.candidates);
        advance(costs, &near.costs, fresh, masks);
        std::mem::swap(&mut costs, &mut fresh);
        if t % SETTLE == SETTLE - 1 {
            settle(costs);
        }
    }
    // SAFETY: the caller's promise.
    unsafe { trace_back(half, costs, masks, levels) }
}

/// States whose ways out are told apart when this is compiled; those of further ones differ from them by one subset in all.
const BLOCK: usize = 8;

/// Extends every path by one sample.
#[target_feature(enable = "avx512f")]
#[inline]
fn advance<const STATES: usize>(
    costs: &[__m512; STATES],
    by_subset: &[__m512; 4],
    fresh: &mut [__m512; STATES],
    masks: &mut [u16; STATES],
) {
    let subset = const { subsets(machine(STATES)) };
    let top = STATES / 2;
    let block = top.min(BLOCK);
    for first in (0..top).step_by(block) {
        let in_block = |state: usize| [0, 1, 2, 3].map(|s: usize| by_subset[s ^ subset[state]]);
        // Parities: those of a sum of states without common bits are sums of theirs.
        let (low, high) = (in_block(first), in_block(first + top));
        for (i, &in_first) in subset[..block].iter().enumerate() {
            let from = first + i;
            let (a, b) = (costs[from], costs[from + top]);
            for (odd, change) in [0, OTHER].into_iter().enumerate() {
                let taken = in_first ^ change;
                let (a, b) = (_mm512_add_ps(a, low[taken]), _mm512_add_ps(b, high[taken]));
                masks[2 * from + odd] = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(b, a);
                fresh[2 * from + odd] = _mm512_min_ps(b, a);
            }
        }
    }
}

/// Subtracts the least cost from all.
#[target_feature(enable = "avx512f")]
#[inline]
fn settle<const STATES: usize>(costs: &mut [__m512; STATES]) {
    let mut least = costs[0];
    for &c in &*costs {
        least = _mm512_min_ps(least, c);
    }
    for c in costs {
        *c = _mm512_sub_ps(*c, least);
    }
}

/// Follows the best path of each sequence from its end.
///
/// # Safety
/// There is a mask for each state of every sample, and one more.
#[target_feature(enable = "avx512f,avx512bw")]
#[allow(unsafe_code)]
unsafe fn trace_back<const STATES: usize>(
    half: usize,
    costs: &[__m512; STATES],
    masks: &[u16],
    levels: &mut [[i32; LANES]],
) {
    let (mut best, mut states) = (costs[0], _mm512_setzero_si512());
    for (s, &of_state) in (0..).zip(costs) {
        let better = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(of_state, best);
        best = _mm512_min_ps(of_state, best);
        states = _mm512_mask_mov_epi32(states, better, _mm512_set1_epi32(s));
    }
    let (odd, turn, _) = machine(STATES).masks();
    let (odd, turn) = (_mm512_set1_epi32(i32::from(odd)), _mm512_set1_epi32(i32::from(turn)));
    let (one, top) = (_mm512_set1_epi32(1), _mm512_set1_epi32(STATES as i32 / 2));
    let lane_bits =
        _mm512_sllv_epi32(one, _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    for (levels, masks) in levels.iter_mut().zip(masks.chunks_exact(STATES)).rev() {
        // SAFETY: states are below their number, and what is read beyond the mask of the last of all is one more.
        let words = unsafe { _mm512_i32gather_epi32::<2>(states, masks.as_ptr().cast()) };
        let second = _mm512_test_epi32_mask(words, lane_bits);
        let bit = _mm512_and_si512(states, one);
        let before = _mm512_srli_epi32::<1>(states);
        let before = _mm512_mask_or_epi32(before, second, before, top);
        // The subset's low bit is the parity of the bits in `odd`; its high bit that of those in `turn`, changed by the one that
        // went in. Both at once: the second at bit 8.
        let turned = _mm512_slli_epi32::<8>(_mm512_and_si512(before, turn));
        let mut parities = _mm512_or_si512(_mm512_and_si512(before, odd), turned);
        parities = _mm512_xor_si512(parities, _mm512_srli_epi32::<4>(parities));
        parities = _mm512_xor_si512(parities, _mm512_srli_epi32::<2>(parities));
        parities = _mm512_xor_si512(parities, _mm512_srli_epi32::<1>(parities));
        let set = _mm512_and_si512(parities, one);
        let high = _mm512_and_si512(_mm512_xor_si512(bit, _mm512_srli_epi32::<8>(parities)), one);
        let subset = _mm512_add_epi32(set, _mm512_add_epi32(high, high));
        let levels = of_half_mut(half, levels);
        store_i32(levels, level(load_i32(levels), subset));
        states = before;
    }
}

/// As [`super::super::Candidates::level`].
#[target_feature(enable = "avx512f")]
#[inline]
fn level(candidates: __m512i, subset: __m512i) -> __m512i {
    let q = _mm512_srlv_epi32(candidates, _mm512_add_epi32(subset, subset));
    let q = _mm512_sub_epi32(_mm512_and_si512(q, _mm512_set1_epi32(3)), _mm512_set1_epi32(1));
    let fours = _mm512_add_epi32(_mm512_srai_epi32::<8>(candidates), q);
    _mm512_add_epi32(_mm512_slli_epi32::<2>(fours), subset)
}
