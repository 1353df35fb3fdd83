//! Levels of tiles in a form that is multiplied as fast as memory gives it: four bits each, or eight where four are too few,
//! with the rare larger ones apart. For weights that stay in memory while text is generated.

mod kernel;
#[cfg(test)]
mod tests;

use crate::Isa;
use kernel::{GROUP, Width};
use std::fmt;

/// The share of levels that may lie apart in a tile of four bits; 1 / this.
const APART: usize = 64;

/// The weights of a tile, unpacked: `level * step of the column * factor of the row` and a power of two.
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
    Levels(Levels),
}

#[derive(Clone)]
struct Levels {
    width: Width,
    /// Row by row, in whole groups of 32 columns.
    packed: Vec<u8>,
    /// The step of each column, in whole groups: 0 where a column is missing.
    steps: Vec<f32>,
    /// The factor of each row; empty where all are 1.
    factors: Vec<f32>,
    /// A power of two in two factors.
    powers: [f32; 2],
    /// Row, column and level of what `packed` has a 0 for, row by row.
    apart: Vec<(u32, u32, i32)>,
}

/// The levels of a tile, before they are packed.
#[derive(Debug)]
pub(crate) struct Unpacking<'a> {
    /// The step of each column.
    pub(crate) steps: &'a [f32],
    /// The factor of each row; none where all are 1.
    pub(crate) factors: &'a [f32],
    /// A power of two in two factors.
    pub(crate) powers: [f32; 2],
    /// Rows of whole groups of 32 columns; what stands for missing columns means nothing.
    pub(crate) levels: &'a mut [i16],
    /// Row, column and level of those that are none of `levels`, which has a 0 there.
    pub(crate) apart: Vec<(u32, u32, i32)>,
}

impl UnpackedTile {
    /// A tile of equal weights.
    pub(crate) fn constant(rows: usize, cols: usize, value: f32) -> Self {
        UnpackedTile { rows, cols, content: Content::Constant(value) }
    }

    pub(crate) fn new(unpacking: Unpacking<'_>) -> Self {
        let Unpacking { steps, factors, powers, levels, mut apart } = unpacking;
        let (cols, padded) = (steps.len(), steps.len().next_multiple_of(GROUP));
        let rows = levels.len() / padded.max(1);
        for row in levels.chunks_mut(padded.max(1)) {
            row.get_mut(cols..).unwrap_or_default().fill(0);
        }
        let beyond = |width: Width| levels.iter().filter(|l| !width.range().contains(*l)).count();
        let narrow = beyond(Width::Nibbles) + apart.len() <= rows * cols / APART;
        let width = if narrow { Width::Nibbles } else { Width::Bytes };
        for (row, levels) in (0..).zip(levels.chunks_mut(padded.max(1))) {
            for (col, level) in (0..).zip(levels) {
                if !width.range().contains(level) {
                    apart.push((row, col, i32::from(std::mem::take(level))));
                }
            }
        }
        apart.sort_unstable();
        apart.shrink_to_fit();
        let mut padded_steps = Vec::with_capacity(padded);
        padded_steps.extend_from_slice(steps);
        padded_steps.resize(padded, 0.0);
        let packed = width.pack(levels);
        let factors = factors.get(..rows).unwrap_or_default().to_vec();
        let levels = Levels { width, packed, steps: padded_steps, factors, powers, apart };
        UnpackedTile { rows, cols, content: Content::Levels(levels) }
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        let content = match &self.content {
            Content::Constant(_) => 0,
            Content::Levels(l) => {
                l.packed.capacity()
                    + size_of::<f32>() * (l.steps.capacity() + l.factors.capacity())
                    + size_of::<(u32, u32, i32)>() * l.apart.capacity()
            }
        };
        (size_of::<Self>() + content) as u64
    }

    /// Bytes that a tile of that size takes at most, but for levels that lie apart.
    pub fn most_bytes(rows: u64, cols: u64) -> u64 {
        let padded = cols.next_multiple_of(GROUP as u64);
        size_of::<Self>() as u64 + rows * padded + 4 * (rows + padded)
    }

    /// Writes the weights, row by row, into `out`: the same that its codec decodes.
    ///
    /// # Panics
    /// If `out` is not as long as the tile.
    pub fn decode(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.rows * self.cols);
        let l = match &self.content {
            Content::Constant(value) => return out.fill(*value),
            Content::Levels(levels) => levels,
        };
        let row_bytes = l.width.bytes(l.steps.len());
        for (row, (out, packed)) in
            out.chunks_mut(self.cols.max(1)).zip(l.packed.chunks(row_bytes.max(1))).enumerate()
        {
            for (group, out) in out.chunks_mut(GROUP).enumerate() {
                let levels = l.width.group(packed, group);
                let steps = &l.steps[group * GROUP..];
                for ((w, level), step) in out.iter_mut().zip(levels).zip(steps) {
                    *w = l.weight(level, *step, row);
                }
            }
        }
        for &(row, col, level) in &l.apart {
            let (row, col) = (row as usize, col as usize);
            out[row * self.cols + col] = l.weight(level as f32, l.steps[col], row);
        }
    }

    /// Adds the products of the tile with the inputs of its columns, `x(token)`, to `y`, of shape `[tokens, rows]`. `buffer` is
    /// for the function's own use. Sums are the same on every processor.
    ///
    /// # Panics
    /// If a length does not fit the tile.
    pub fn add_products<'x>(
        &self,
        x: impl Fn(usize) -> &'x [f32],
        tokens: usize,
        y: &mut [f32],
        buffer: &mut Vec<f32>,
    ) {
        assert_eq!(y.len(), tokens * self.rows);
        let l = match &self.content {
            Content::Constant(value) => {
                for (token, y) in y.chunks_mut(self.rows.max(1)).enumerate() {
                    let sum: f32 = x(token).iter().sum();
                    y.iter_mut().for_each(|y| *y += value * sum);
                }
                return;
            }
            Content::Levels(levels) => levels,
        };
        // Steps go into inputs, so that only levels are left to be multiplied.
        let padded = l.steps.len();
        buffer.clear();
        buffer.resize(tokens * padded + self.rows, 0.0);
        let (inputs, sums) = buffer.split_at_mut(tokens * padded);
        let [a, b] = l.powers;
        for (token, inputs) in inputs.chunks_mut(padded.max(1)).enumerate() {
            let x = x(token);
            assert_eq!(x.len(), self.cols);
            for ((input, x), step) in inputs.iter_mut().zip(x).zip(&l.steps) {
                *input = x * step * a * b;
            }
        }
        let isa = Isa::chosen();
        for (inputs, y) in inputs.chunks(padded.max(1)).zip(y.chunks_mut(self.rows.max(1))) {
            kernel::sums(isa, l.width, &l.packed, inputs, sums);
            for &(row, col, level) in &l.apart {
                sums[row as usize] += level as f32 * inputs[col as usize];
            }
            for (row, (y, sum)) in y.iter_mut().zip(&*sums).enumerate() {
                *y += l.factor(row) * sum;
            }
        }
    }
}

impl Levels {
    fn factor(&self, row: usize) -> f32 {
        self.factors.get(row).copied().unwrap_or(1.0)
    }

    fn weight(&self, level: f32, step: f32, row: usize) -> f32 {
        let [a, b] = self.powers;
        (level * step * self.factor(row) * a * b).clamp(f32::MIN, f32::MAX)
    }
}

impl fmt::Debug for UnpackedTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = match &self.content {
            Content::Constant(_) => None,
            Content::Levels(levels) => Some(levels.width),
        };
        f.debug_struct("UnpackedTile")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .field("width", &width)
            .finish_non_exhaustive()
    }
}
