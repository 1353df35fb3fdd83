//! What is the same loop in every set of instructions, and what is not. [`scalar`] is the specification.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;
#[cfg(test)]
mod tests;

use super::Work;
use crate::isa::Isa;

/// Does `work` with the instructions of `isa`, or without any where this processor lacks them.
#[inline]
pub(super) fn run<W: Work>(isa: Isa, work: W) -> W::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => match avx512::Avx512::detect() {
            Some(lanes) => lanes.run(work),
            None => work.run(scalar::Scalar),
        },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => match avx2::Avx2::detect() {
            Some(lanes) => lanes.run(work),
            None => work.run(scalar::Scalar),
        },
        _ => work.run(scalar::Scalar),
    }
}
