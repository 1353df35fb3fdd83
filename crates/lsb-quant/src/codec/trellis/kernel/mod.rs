//! From the entropy-coded run of a tile to its levels. [`scalar`] is the specification; the others equal it to the last bit
//! and are chosen by what the processor can do.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;
#[cfg(test)]
mod tests;

use super::machine::Machine;
use crate::isa::Isa;
use lsb_format::Result;
use lsb_format::entropy::{DecodeTable, LANES, RunDecoder};

/// What the symbols of a tile mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code<'a> {
    pub(super) machine: Machine,
    /// The class of every sample, in the order of the lanes.
    pub(super) map: &'a [[u8; LANES]],
    /// Two tables for each class: for even levels and for odd ones.
    pub(super) tables: &'a [DecodeTable],
    /// Steps after which all lanes start again in state 0; [`usize::MAX`] where they never do.
    pub(super) restart: usize,
}

/// A sample that is not what its symbol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Escape {
    /// Its place in the order of the lanes.
    pub(super) at: usize,
    /// 0 where its level is even, 1 where it is odd.
    pub(super) set: u8,
    /// 0 or 1.
    pub(super) symbol: u8,
}

/// How far lanes are.
#[derive(Debug)]
struct Progress<'a> {
    /// Steps done.
    step: usize,
    /// States of the trellis.
    states: [u8; LANES],
    levels: &'a mut [[i32; LANES]],
    escapes: &'a mut Vec<Escape>,
}

/// Decodes all levels of a tile from all of `bytes` into `levels`, those that are no escapes. What is one is appended to
/// `escapes`, in order.
///
/// # Errors
/// As [`lsb_format::entropy::decode_run`].
///
/// # Panics
/// If there are not two tables for every class of the map, or not as many levels as classes.
pub(super) fn decode(
    bytes: &[u8],
    code: &Code<'_>,
    isa: Isa,
    levels: &mut [[i32; LANES]],
    escapes: &mut Vec<Escape>,
) -> Result<()> {
    let largest = code.map.as_flattened().iter().copied().max().unwrap_or(0);
    assert!(code.tables.len() >= 2 * (usize::from(largest) + 1), "two tables for every class");
    assert_eq!(levels.len(), code.map.len(), "a level for every sample");
    let mut run = RunDecoder::new(bytes, LANES * levels.len())?;
    let mut progress = Progress { step: 0, states: [0; LANES], levels, escapes };
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::decode(&mut run, code, &mut progress),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::decode(&mut run, code, &mut progress),
        _ => {}
    }
    scalar::decode(&mut run, code, &mut progress)?;
    run.finish()
}
