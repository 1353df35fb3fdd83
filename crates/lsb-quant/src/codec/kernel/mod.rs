//! Runs of one table to bytes, in vectors. What [`RunDecoder::decode`] gives is the specification; without vectors, and where
//! they have no gather, it is used.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod coder;
#[cfg(test)]
mod tests;

use crate::Isa;
use lsb_format::entropy::{DecodeTable, LANES, RunDecoder};

/// Decodes the first symbols of `out`, whole steps of 32 as long as there are words for all lanes, and says how many.
pub(super) fn decode(isa: Isa, run: &mut RunDecoder<'_>, table: &DecodeTable, out: &mut [u8]) -> usize {
    let steps = out.as_chunks_mut::<LANES>().0;
    let done = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::decode(run, table, steps),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::decode(run, table, steps),
        _ => {
            let _ = (run, table, steps);
            0
        }
    };
    done * LANES
}
