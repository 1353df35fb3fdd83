//! Sums of rows of levels times inputs. [`scalar`] is the specification; the others equal it to the last bit.
//!
//! The products of a group of columns are summed as integers, which is exact. The sum is made f32, multiplied by the scale of
//! the group and added to that of the groups before: in that order, nothing fused.

/// A vector shifted so that what levels of `bits` bits have in it for quads `2 pair` and `2 pair + 1` begins at the bit of each byte
/// where it belongs; other bits are still beside it. Of the bits at the bottom. Shifts want constants.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! bottom {
    ($bits:expr, $pair:expr, $vector:expr, $right:ident) => {
        match ($bits, $pair) {
            (2 | 3, 0 | 2) => [$vector, $right::<2>($vector)],
            (2 | 3, _) => [$right::<4>($vector), $right::<6>($vector)],
            _ => [$vector, $right::<4>($vector)],
        }
    };
}

/// The same of a plane of upper bits, whose places are those of `upper_bits` in `form.rs`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! brought_down {
    ($bits:expr, $pair:expr, $plane:expr, $left:ident, $right:ident) => {
        match ($bits, $pair) {
            (3, 0) => [$plane, $right::<1>($plane)],
            (3, 1) => [$right::<2>($plane), $right::<3>($plane)],
            (3, 2) => [$right::<4>($plane), $right::<5>($plane)],
            (3, _) => [$left::<2>($plane), $left::<1>($plane)],
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
#[cfg(target_arch = "x86_64")]
pub(super) mod inputs;
#[cfg(target_arch = "x86_64")]
mod lookup_avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

use super::form::{Form, PANEL};
use super::inputs::{Inputs, Token};
use crate::Isa;
use std::ops::Range;

/// The vector of a block that has the bits at the bottom of quads `2 pair` and `2 pair + 1`, where levels have `bits` bits, more
/// than one and fewer than eight.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn bottom_of(bits: usize, pair: usize) -> usize {
    match bits {
        2 | 3 => pair / 2,
        _ => pair,
    }
}

/// The one that has their upper bits, where there are any.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn plane_of(bits: usize, pair: usize) -> usize {
    match bits {
        3 => 2,
        5 => 4,
        _ => 4 + pair / 2,
    }
}

/// Bits at the bottom of a level, and all bits of one: masks of a byte.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const fn masks(bits: usize) -> [u8; 2] {
    let bottom: u8 = match bits {
        2 | 3 => 0b11,
        4..8 => 0b1111,
        _ => 0xff,
    };
    [bottom, 0xff >> (8 - bits)]
}

/// Levels of a tile: panels of rows, each of `groups` blocks, whose inputs begin with group `first`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels<'a> {
    pub(super) form: Form,
    pub(super) first: usize,
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

    /// What a token has for them.
    fn token<'i>(&self, inputs: &'i Inputs, index: usize) -> Token<'i> {
        inputs.token(index, self.first..self.first + self.groups)
    }

    /// The blocks of a panel.
    fn panel(&self, index: usize) -> &'a [u8] {
        &self.packed[index * self.bytes()..(index + 1) * self.bytes()]
    }
}

/// Of `tokens` tokens those whose products with levels of a form the processor looks up: their inputs need tables.
pub(super) fn looked_up(isa: Isa, form: Form, tokens: usize) -> Range<usize> {
    let first = match isa {
        _ if form != Form::One => tokens,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 if Isa::Avx2.is_available() => avx2::first_looked_up(tokens),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if Isa::Neon.is_available() => 0,
        _ => tokens,
    };
    first..tokens
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
