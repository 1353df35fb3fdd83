//! Tiles in a form that is multiplied as fast as memory gives it: levels of as few bits each as nearly all of them need, with
//! what does not fit apart. For weights that stay in memory while text is generated.

mod activations;
mod by_column;
mod by_group;
mod form;
mod inputs;
mod kernel;
mod pack;
mod signs;
mod sparse;
#[cfg(test)]
mod tests;

use by_column::ByColumn;
use by_group::ByGroup;
use form::Form;
use inputs::Inputs;
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

pub use activations::Activations;
pub(crate) use by_column::{Apart, Unpacking};
pub(crate) use by_group::{Grouped, Rule, TOKENS_TO_DECODE, TileLevels, bits_of_groups, can_group};
pub(crate) use signs::Signs;

/// In how many bits levels are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As few as nearly all of them need: for weights that stay in memory, which limits how fast they are multiplied.
    Narrow,
    /// A byte each: the fastest to make and to multiply, for one product with many tokens.
    Bytes,
}

/// The weights of a tile, or of rows of several tiles that lie one below the other, unpacked.
#[derive(Clone)]
pub struct UnpackedTile {
    rows: usize,
    cols: usize,
    content: Content,
}

#[derive(Clone)]
enum Content {
    /// All weights are this.
    Constant(f32),
    /// Levels times steps of their columns.
    ByColumn(ByColumn),
    /// Levels times scales of their groups.
    ByGroup(ByGroup),
}

/// What products of a tile need besides it.
#[derive(Debug, Default)]
struct Workspace {
    inputs: Inputs,
    sums: Vec<f32>,
    by_column: by_column::Workspace,
    by_group: by_group::Workspace,
    signs: signs::Buffers,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl UnpackedTile {
    /// A tile of equal weights.
    pub(crate) fn constant(rows: usize, cols: usize, value: f32) -> Self {
        UnpackedTile { rows, cols, content: Content::Constant(value) }
    }

    /// A tile whose columns have steps.
    pub(crate) fn new(unpacking: Unpacking<'_>) -> Self {
        let (rows, cols) = (unpacking.rows, unpacking.steps.len());
        UnpackedTile { rows, cols, content: Content::ByColumn(ByColumn::new(unpacking)) }
    }

    /// Rows whose groups have scales.
    pub(crate) fn of_groups(grouped: &Grouped, packing: Packing) -> Self {
        let (rows, cols) = (grouped.rows(), grouped.cols());
        UnpackedTile { rows, cols, content: Content::ByGroup(ByGroup::new(grouped, packing)) }
    }

    /// Its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        let content = match &self.content {
            Content::Constant(_) => 0,
            Content::ByColumn(levels) => levels.bytes(),
            Content::ByGroup(levels) => levels.bytes(),
        };
        (size_of::<Self>() + content) as u64
    }

    /// Whether [`UnpackedTile::add_products`] with so many tokens is faster than decoding it and a product of matrices in f32.
    pub fn multiplies(&self, tokens: usize) -> bool {
        match &self.content {
            Content::Constant(_) | Content::ByColumn(_) => true,
            Content::ByGroup(_) => tokens < by_group::TOKENS_TO_DECODE,
        }
    }

    /// See [`TileProducts::activation_bytes`](crate::TileProducts::activation_bytes).
    pub fn activation_bytes(&self) -> usize {
        match &self.content {
            Content::Constant(_) | Content::ByColumn(_) => 0,
            Content::ByGroup(_) => Activations::MOST_BYTES,
        }
    }

    /// Writes the weights, row by row, into `out`: the same that its codec decodes.
    ///
    /// # Panics
    /// If `out` is not as long as the tile.
    pub fn decode(&self, out: &mut [f32]) {
        self.decode_rows(0..self.rows, out);
    }

    /// Writes the weights of `rows`, row by row, into `out`: the same that its codec decodes.
    ///
    /// # Panics
    /// If there are no such rows, or `out` is not as long as they are.
    pub fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        assert!(rows.end <= self.rows);
        assert_eq!(out.len(), rows.len() * self.cols);
        match &self.content {
            Content::Constant(value) => out.fill(*value),
            Content::ByColumn(levels) => levels.decode_rows(rows, out),
            Content::ByGroup(levels) => levels.decode_rows(rows, self.cols, out),
        }
    }

    /// Adds the products of the tile with the inputs of its columns, from column `first` of the matrix on, to `y`, of shape
    /// `[tokens, rows]`.
    ///
    /// Inputs, each times the step of its column, are rounded to 16 bits: in each group of 32 columns, by `2^-16` of the largest
    /// of them at most; where levels have one bit to 12 bits, by `2^-12` of the largest, so that sums of four of them can be
    /// looked up. Their sums with levels are exact in a group and f32 beyond it. Results are the same on every processor.
    ///
    /// # Panics
    /// If a length does not fit the tile.
    pub fn add_products(&self, x: &Activations<'_>, first: usize, y: &mut [f32]) {
        assert_eq!(y.len(), x.tokens() * self.rows);
        assert!(first + self.cols <= x.columns() || x.tokens() == 0);
        WORKSPACE.with_borrow_mut(|work| match &self.content {
            Content::Constant(value) => {
                for (token, y) in y.chunks_mut(self.rows.max(1)).enumerate() {
                    let sum: f32 = x.token(token)[first..first + self.cols].iter().sum();
                    y.iter_mut().for_each(|y| *y += value * sum);
                }
            }
            Content::ByColumn(levels) => levels.add_products(x, first, y, work),
            Content::ByGroup(levels) => levels.add_products(x, first, y, work),
        });
    }
}

impl fmt::Debug for UnpackedTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form: Option<Form> = match &self.content {
            Content::Constant(_) => None,
            Content::ByColumn(levels) => Some(levels.form()),
            Content::ByGroup(levels) => Some(levels.form()),
        };
        f.debug_struct("UnpackedTile")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .field("form", &form)
            .finish_non_exhaustive()
    }
}
