//! The scalar search, compiled for vectors of eight lanes.

use super::{Samples, Scratch, scalar};
use crate::codec::trellis::machine::Machine;

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
}

/// As [`scalar::search`], which it does where the processor has no AVX2.
pub(super) fn search<const N: usize>(
    machine: Machine,
    samples: &Samples<'_, N>,
    scratch: &mut Scratch,
    levels: &mut [[i32; N]],
) {
    if !is_available() {
        return scalar::search(machine, samples, scratch, levels);
    }
    // SAFETY: the processor has what the function is compiled for.
    #[allow(unsafe_code)]
    unsafe {
        compiled(machine, samples, scratch, levels);
    }
}

#[target_feature(enable = "avx2")]
fn compiled<const N: usize>(
    machine: Machine,
    samples: &Samples<'_, N>,
    scratch: &mut Scratch,
    levels: &mut [[i32; N]],
) {
    scalar::search(machine, samples, scratch, levels);
}
