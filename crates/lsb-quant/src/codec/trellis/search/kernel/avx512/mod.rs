//! Vectors of 16: of sequences where there are many, of states where there is one.

mod column;
mod lanes;

pub(super) use column::column;
pub(super) use lanes::lanes;

use super::{MAX_SAMPLE, ROUNDER};
use crate::codec::trellis::machine::Machine;
use crate::codec::trellis::search::{N_RATES, REACH, RateTable};
use std::arch::x86_64::*;

/// Numbers of a vector.
const WIDTH: usize = 16;

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// The machine with a number of states that is known when this is compiled.
const fn machine(states: usize) -> Machine {
    match Machine::new(states as u32) {
        Some(machine) => machine,
        None => panic!("there is no such machine"),
    }
}

/// The subset that leads from each state to an even one; the one to the odd state beside it is [`OTHER`] of it.
const fn subsets(machine: Machine) -> [usize; 256] {
    let (odd, turn, mask) = machine.masks();
    let mut out = [0; 256];
    let mut from = 0;
    while from <= mask as usize {
        let (odd, turn) = ((from as u8 & odd).count_ones() & 1, (from as u8 & turn).count_ones() & 1);
        out[from] = (turn << 1 | odd) as usize;
        from += 1;
    }
    out
}

/// What the two subsets of a state differ in.
const OTHER: usize = 2;

/// Costs of the best levels of the four subsets near each of 16 samples, and [`super::Candidates`].
struct Nearest {
    costs: [__m512; 4],
    candidates: __m512i,
}

/// The best levels near samples of these classes.
///
/// # Safety
/// There is a table for each class.
#[target_feature(enable = "avx512f")]
#[inline]
#[allow(unsafe_code)]
unsafe fn nearest(samples: __m512, classes: __m512i, tables: *const RateTable) -> Nearest {
    let largest = _mm512_set1_ps(MAX_SAMPLE);
    let x = _mm512_max_ps(_mm512_set1_ps(-MAX_SAMPLE), samples);
    let x = _mm512_min_ps(largest, x);
    let rounder = _mm512_set1_ps(ROUNDER);
    let rounded = _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(0.25)), rounder);
    let m = _mm512_sub_epi32(_mm512_castps_si512(rounded), _mm512_castps_si512(rounder));
    let rest = _mm512_sub_ps(x, _mm512_mul_ps(_mm512_set1_ps(4.0), _mm512_sub_ps(rounded, rounder)));

    const LAST: i32 = REACH / 4 - 1;
    let clamped = _mm512_max_epi32(_mm512_set1_epi32(-LAST), _mm512_min_epi32(m, _mm512_set1_epi32(LAST)));
    let in_table = _mm512_add_epi32(_mm512_slli_epi32::<2>(clamped), _mm512_set1_epi32(REACH - 4));
    let at = _mm512_add_epi32(_mm512_mullo_epi32(classes, _mm512_set1_epi32(N_RATES as i32)), in_table);
    // SAFETY: the caller's promise; nine rates from `at` on lie inside the table of the class, because m is clamped.
    let near = unsafe { rates(tables.cast(), at) };

    let cost = |i: usize| {
        let e = _mm512_sub_ps(rest, _mm512_set1_ps(i as f32 - 4.0));
        _mm512_add_ps(_mm512_mul_ps(e, e), near[i])
    };
    // Of equal costs the first is kept.
    let better = |a, b| (_mm512_min_ps(b, a), _mm512_cmp_ps_mask::<_CMP_LT_OQ>(b, a));
    let (below, first) = better(cost(4), cost(0));
    let (zero, second) = better(below, cost(8));
    let (one, third) = better(cost(5), cost(1));
    let (two, fourth) = better(cost(6), cost(2));
    let (three, fifth) = better(cost(3), cost(7));
    let q = _mm512_set1_epi32(0b00_01_01_01);
    let q = _mm512_mask_sub_epi32(q, first & !second, q, _mm512_set1_epi32(1));
    let q = _mm512_mask_add_epi32(q, second, q, _mm512_set1_epi32(1));
    let q = _mm512_mask_sub_epi32(q, third, q, _mm512_set1_epi32(1 << 2));
    let q = _mm512_mask_sub_epi32(q, fourth, q, _mm512_set1_epi32(1 << 4));
    let q = _mm512_mask_add_epi32(q, fifth, q, _mm512_set1_epi32(1 << 6));
    let candidates = _mm512_or_si512(_mm512_slli_epi32::<8>(m), q);
    Nearest { costs: [zero, one, two, three], candidates }
}

/// Nine rates from each place on, transposed. Sixteen loads and three rounds of shuffles take half the time of nine gathers.
///
/// # Safety
/// There are nine rates at each place.
#[target_feature(enable = "avx512f")]
#[inline]
#[allow(unsafe_code)]
unsafe fn rates(table: *const f32, at: __m512i) -> [__m512; 9] {
    let mut places = [0i32; WIDTH];
    store_i32(&mut places, at);
    let eight = |lane: usize| {
        // SAFETY: the caller's promise.
        unsafe { _mm256_castps_pd(_mm256_loadu_ps(table.add(places[lane] as usize))) }
    };
    // Lanes in such pairs that the last round of shuffles puts all in order.
    let pair = |low: usize| {
        let low_half = _mm512_castpd256_pd512(eight(low));
        _mm512_castpd_ps(_mm512_insertf64x4::<1>(low_half, eight(low + 4)))
    };
    let quarter = |first: usize| {
        let rows = [pair(first), pair(first + 1), pair(first + 2), pair(first + 3)];
        let low = |a, b| _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
        let high = |a, b| _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
        let low = [low(rows[0], rows[1]), low(rows[2], rows[3])];
        let high = [high(rows[0], rows[1]), high(rows[2], rows[3])];
        [
            _mm512_castpd_ps(_mm512_unpacklo_pd(low[0], low[1])),
            _mm512_castpd_ps(_mm512_unpackhi_pd(low[0], low[1])),
            _mm512_castpd_ps(_mm512_unpacklo_pd(high[0], high[1])),
            _mm512_castpd_ps(_mm512_unpackhi_pd(high[0], high[1])),
        ]
    };
    let (a, b) = (quarter(0), quarter(8));
    let low = |i: usize| _mm512_shuffle_f32x4::<0b10_00_10_00>(a[i], b[i]);
    let high = |i: usize| _mm512_shuffle_f32x4::<0b11_01_11_01>(a[i], b[i]);
    // SAFETY: the caller's promise.
    let last = unsafe { _mm512_i32gather_ps::<4>(at, table.add(8)) };
    [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3), last]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_f32(values: &[f32; WIDTH]) -> __m512 {
    // SAFETY: there are 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_ps(values.as_ptr())
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_i32(values: &[i32; WIDTH]) -> __m512i {
    // SAFETY: there are 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_si512(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn widen(bytes: &[u8; WIDTH]) -> __m512i {
    // SAFETY: there are 16 bytes.
    #[allow(unsafe_code)]
    let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm512_cvtepu8_epi32(bytes)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store_i32(out: &mut [i32; WIDTH], values: __m512i) {
    // SAFETY: there is room for 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(out.as_mut_ptr().cast(), values);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store_f32(out: &mut [f32; WIDTH], values: __m512) {
    // SAFETY: there is room for 16 numbers of 32 bits.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_ps(out.as_mut_ptr(), values);
    }
}
