//! Activations of tokens, with what products make of them once for all tiles and threads.

use super::form::Form;
use super::inputs::Inputs;
use super::sparse::{Sixteen, side_by_side};
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Inputs of a matrix, those of some tokens.
///
/// What products of [`TileProducts`](crate::TileProducts) and [`UnpackedTile`](crate::UnpackedTile) want of them in another form is
/// made when it is wanted first, and kept: it is the same for all tiles of a matrix, on all threads.
pub struct Activations<'x> {
    x: &'x [f32],
    tokens: usize,
    width: usize,
    /// Others have another.
    number: u64,
    /// In fixed point, beside levels of one bit and beside others.
    fixed: [OnceLock<Inputs>; 2],
    sixteens: OnceLock<Vec<Sixteen>>,
}

impl<'x> Activations<'x> {
    /// Bytes that what is kept takes for each number of 64 tokens or more, at most: 4.25 in fixed point, nearly 5 beside outliers,
    /// whose tokens are filled up to sixteens, and 8 in tables where a processor looks up products for all tokens.
    pub const MOST_BYTES: usize = if cfg!(target_arch = "aarch64") { 18 } else { 10 };

    /// `x`, of shape `[tokens, columns of the matrix]`.
    ///
    /// # Panics
    /// If it does not have so many tokens of the same length.
    pub fn new(x: &'x [f32], tokens: usize) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let width = x.len() / tokens.max(1);
        assert_eq!(x.len(), tokens * width, "tokens of the same length");
        Activations {
            x,
            tokens,
            width,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            fixed: Default::default(),
            sixteens: OnceLock::new(),
        }
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Columns of the matrix.
    pub fn columns(&self) -> usize {
        self.width
    }

    /// The inputs of one token.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn token(&self, index: usize) -> &'x [f32] {
        &self.x[index * self.width..][..self.width]
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// In fixed point, as they meet levels of a form.
    pub(super) fn fixed(&self, form: Form) -> &Inputs {
        self.fixed[usize::from(form == Form::One)].get_or_init(|| {
            let mut inputs = Inputs::default();
            inputs.fill(form, [self.tokens, self.width], |token| self.token(token), &[], [1.0; 2]);
            inputs
        })
    }

    /// By column, sixteen tokens side by side.
    pub(super) fn sixteens(&self) -> &[Sixteen] {
        self.sixteens.get_or_init(|| side_by_side(|token| self.token(token), self.tokens))
    }
}

impl fmt::Debug for Activations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activations")
            .field("tokens", &self.tokens)
            .field("columns", &self.width)
            .finish_non_exhaustive()
    }
}
