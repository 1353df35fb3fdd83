//! Runs a loop over vectors with a set of instructions.

use crate::isa::Isa;
use pulp::{Simd, WithSimd};

/// Runs `op` with the vectors of `isa`. Operations that fuse nothing and keep lanes apart have the same results with all of
/// them.
pub(crate) fn vectorize<Op: WithSimd>(isa: Isa, op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if isa == Isa::Avx512
            && let Some(simd) = pulp::x86::V4::try_new()
        {
            return Simd::vectorize(simd, op);
        }
        if isa != Isa::Scalar
            && let Some(simd) = pulp::x86::V3::try_new()
        {
            return Simd::vectorize(simd, op);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    if isa != Isa::Scalar {
        return pulp::Arch::new().dispatch(op);
    }
    // Four lanes of f32: what every target has in one form or the other.
    Simd::vectorize(pulp::Scalar128b, op)
}
