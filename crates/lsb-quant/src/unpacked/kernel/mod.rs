//! Sums of rows of levels times inputs. [`scalar`] is the specification; the others equal it to the last bit.
//!
//! The products of a group of columns are summed as integers, which is exact. The sum is made f32, multiplied by the scale of
//! the group and added to that of the groups before: in that order, nothing fused.

/// The vector of a plane shifted so that the upper bits of quads `2 pair` and `2 pair + 1` begin at bit 4 of each byte, where they
/// belong; other bits are still beside them. The places are those of `upper_bits` in `form.rs`; shifts want constants.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! brought_down {
    ($bits:expr, $pair:expr, $plane:expr, $left:ident, $right:ident) => {
        match ($bits, $pair) {
            (5, 0) => [$plane, $right::<1>($plane)],
            (5, 1) => [$right::<2>($plane), $right::<3>($plane)],
            (5, 2) => [$left::<4>($plane), $left::<3>($plane)],
            (5, _) => [$left::<2>($plane), $left::<1>($plane)],
            (_, 0 | 2) => [$plane, $right::<2>($plane)],
            _ => [$left::<4>($plane), $left::<2>($plane)],
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

use super::form::{Form, PANEL};
use super::inputs::Inputs;
use crate::Isa;

/// The plane that has the upper bits of quads `2 pair` and `2 pair + 1`, where levels have `bits` bits, five or six.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn plane_of(bits: usize, pair: usize) -> usize {
    if bits == 5 { 0 } else { pair / 2 }
}

/// The levels of a tile: panels of rows, each of `groups` blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels<'a> {
    pub(super) form: Form,
    pub(super) groups: usize,
    pub(super) packed: &'a [u8],
}

impl<'a> Panels<'a> {
    /// Bytes of a panel.
    fn bytes(&self) -> usize {
        self.groups * self.form.block_bytes()
    }

    fn count(&self) -> usize {
        self.packed.len() / self.bytes().max(1)
    }

    /// The blocks of a panel.
    fn panel(&self, index: usize) -> &'a [u8] {
        &self.packed[index * self.bytes()..(index + 1) * self.bytes()]
    }
}

/// For each of `tokens` tokens the sum of each row of all panels: `sums` has their shape, `[tokens, rows of panels]`.
pub(super) fn sums(isa: Isa, panels: &Panels<'_>, inputs: &Inputs, tokens: usize, sums: &mut [f32]) {
    assert_eq!(sums.len(), tokens * panels.count() * PANEL);
    assert_eq!(panels.packed.len(), panels.count() * panels.bytes());
    let done = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::sums(panels, inputs, tokens, sums) || avx2::sums(panels, inputs, tokens, sums),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::sums(panels, inputs, tokens, sums),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::sums(panels, inputs, tokens, sums),
        _ => false,
    };
    if !done {
        scalar::sums(panels, inputs, tokens, sums);
    }
}
