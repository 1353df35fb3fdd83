//! The reference compiled for AVX2. Fused multiply-add stays off, so results are the reference's own.
#![allow(unsafe_code)]

use super::{Kernel, LANES, Lanes, scalar};

/// The AVX2 kernel, where this CPU has AVX2.
pub(super) fn avx2() -> Option<Kernel> {
    // SAFETY: `block` is only handed out once the CPU was seen to have AVX2.
    is_x86_feature_detected!("avx2").then_some(|w, q| unsafe { block(w, q) })
}

#[target_feature(enable = "avx2")]
fn block(original: &[[f32; LANES]], decoded: &[[f32; LANES]]) -> Lanes {
    scalar::block(original, decoded)
}
