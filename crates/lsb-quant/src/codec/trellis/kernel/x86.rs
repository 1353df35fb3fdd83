//! What the kernels of one processor family have in common.

use std::arch::x86_64::*;

/// Buckets of two lanes, whose numbers are the lowest and the third 16 bits of `four`.
///
/// # Safety
/// There are more buckets than the larger number.
#[inline(always)]
#[allow(unsafe_code)]
pub(super) unsafe fn load_pair(buckets: *const u64, four: u64) -> __m128i {
    let (a, b) = (four as u16, (four >> 32) as u16);
    // SAFETY: the caller's promise; every such processor has SSE2.
    unsafe {
        let a = _mm_loadl_epi64(buckets.add(usize::from(a)).cast());
        _mm_castpd_si128(_mm_loadh_pd(_mm_castsi128_pd(a), buckets.add(usize::from(b)).cast()))
    }
}
