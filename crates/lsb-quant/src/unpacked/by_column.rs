//! Levels with a step for each column and a factor for each row.

use super::form::{Form, GROUP, PANEL};
use super::kernel::{self, Panels};
use super::pack::{Narrowest, Pack};
use super::{Activations, Packing, Workspace as Common};
use crate::Isa;
use crate::lanes::dispatch;
use std::ops::Range;

/// The share of levels that may lie apart in a tile; 1 / this. They take as much memory as one more bit of each level would
/// at 1 / 96, and are slower.
const APART: usize = 256;

/// Tokens that are multiplied at once: their inputs and sums stay in the cache.
const TOKENS: usize = 64;

/// Levels: a weight is `level * step of the column * factor of the row` and a power of two.
#[derive(Clone)]
pub(super) struct ByColumn {
    form: Form,
    packed: Vec<u8>,
    /// The step of each column.
    steps: Vec<f32>,
    /// The factor of each row; empty where all are 1.
    factors: Vec<f32>,
    /// A power of two in two factors.
    powers: [f32; 2],
    /// What `packed` has a 0 for, row by row.
    apart: Vec<Apart>,
}

/// A level outside of what the others have bits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Apart {
    pub(crate) row: u32,
    pub(crate) col: u32,
    pub(crate) level: i32,
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
    /// Rows of the tile.
    pub(crate) rows: usize,
    /// Groups of 32 columns, in each row by row; what stands for missing columns means nothing.
    pub(crate) levels: &'a mut [[i16; GROUP]],
    /// Those that are none of `levels`, which has a 0 there.
    pub(crate) apart: Vec<Apart>,
    pub(crate) packing: Packing,
}

/// What products need besides that of all.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// The inputs of a token times the steps of their columns.
    stepped: Vec<f32>,
}

impl ByColumn {
    pub(super) fn new(unpacking: Unpacking<'_>) -> Self {
        let Unpacking { rows, steps, factors, powers, levels, mut apart, packing } = unpacking;
        let cols = steps.len();
        debug_assert_eq!(levels.len(), rows * cols.div_ceil(GROUP));
        // Missing columns, which the last group may have, are 0.
        let missing = cols.next_multiple_of(GROUP) - cols;
        if missing > 0 {
            let last = levels.len() - rows;
            levels[last..].iter_mut().for_each(|row| row[GROUP - missing..].fill(0));
        }
        let form = match packing {
            Packing::Narrow => {
                dispatch(Narrowest { levels, apart: (rows * cols / APART).saturating_sub(apart.len()) })
            }
            Packing::Bytes => Form::Eight,
        };
        let (least, most) = (*form.range().start(), *form.range().end());
        for (first, group) in (0..).step_by(GROUP).zip(levels.chunks_mut(rows.max(1))) {
            for (row, levels) in (0..).zip(group) {
                // Most have none: one test for all.
                if !levels.iter().fold(false, |any, &level| any | (level < least) | (level > most)) {
                    continue;
                }
                for (col, level) in (first..).zip(levels).filter(|(_, level)| !form.range().contains(*level))
                {
                    apart.push(Apart { row, col, level: i32::from(std::mem::take(level)) });
                }
            }
        }
        apart.sort_unstable();
        apart.shrink_to_fit();
        let packed = dispatch(Pack { form, levels, rows });
        let factors = factors.get(..rows).unwrap_or_default().to_vec();
        ByColumn { form, packed, steps: steps.to_vec(), factors, powers, apart }
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Levels that lie apart.
    #[cfg(test)]
    pub(super) fn apart(&self) -> usize {
        self.apart.len()
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.packed.capacity()
            + size_of::<f32>() * (self.steps.capacity() + self.factors.capacity())
            + size_of::<Apart>() * self.apart.capacity()
    }

    /// See [`super::UnpackedTile::decode_rows`].
    pub(super) fn decode_rows(&self, rows: Range<usize>, out: &mut [f32]) {
        let cols = self.steps.len();
        let panel_bytes = cols.div_ceil(GROUP) * self.form.block_bytes();
        for (panel, packed) in self.packed.chunks(panel_bytes.max(1)).enumerate() {
            let here = rows.start.max(panel * PANEL)..rows.end.min((panel + 1) * PANEL);
            if here.is_empty() {
                continue;
            }
            for (group, packed) in packed.chunks(self.form.block_bytes()).enumerate() {
                let block = self.form.unpack(packed);
                let range = group * GROUP..((group + 1) * GROUP).min(cols);
                let steps = &self.steps[range.clone()];
                for row in here.clone() {
                    let out = &mut out[(row - rows.start) * cols..][range.clone()];
                    let factor = self.factor(row);
                    for ((weight, level), step) in out.iter_mut().zip(&block[row % PANEL]).zip(steps) {
                        *weight = self.weight(f32::from(*level), *step, factor);
                    }
                }
            }
        }
        let first = self.apart.partition_point(|apart| (apart.row as usize) < rows.start);
        for &Apart { row, col, level } in &self.apart[first..] {
            let (row, col) = (row as usize, col as usize);
            if row >= rows.end {
                break;
            }
            out[(row - rows.start) * cols + col] =
                self.weight(level as f32, self.steps[col], self.factor(row));
        }
    }

    /// See [`super::UnpackedTile::add_products`].
    pub(super) fn add_products(&self, x: &Activations<'_>, first: usize, y: &mut [f32], work: &mut Common) {
        let (cols, rows) = (first..first + self.steps.len(), y.len() / x.tokens().max(1));
        for (start, y) in (0..).step_by(TOKENS).zip(y.chunks_mut((TOKENS * rows).max(1))) {
            let x = |token: usize| &x.token(start + token)[cols.clone()];
            self.add_some(x, y.len() / rows.max(1), rows, y, work);
        }
    }

    /// The same for some tokens.
    fn add_some<'x>(
        &self,
        x: impl Fn(usize) -> &'x [f32],
        tokens: usize,
        rows: usize,
        y: &mut [f32],
        work: &mut Common,
    ) {
        let Common { inputs, sums, by_column: Workspace { stepped }, .. } = work;
        // Steps go into inputs, so that only levels are left to be multiplied.
        inputs.fill(self.form, [tokens, self.steps.len()], &x, &self.steps, self.powers);
        let padded = rows.next_multiple_of(PANEL);
        sums.clear();
        sums.resize(tokens * padded, 0.0);
        let groups = self.steps.len().div_ceil(GROUP);
        let panels = Panels { form: self.form, first: 0, groups, packed: &self.packed };
        kernel::sums(Isa::chosen(), &panels, inputs, tokens, sums);
        for (token, (sums, y)) in sums.chunks_mut(padded.max(1)).zip(y.chunks_mut(rows.max(1))).enumerate() {
            if !self.apart.is_empty() {
                self.step_inputs(x(token), stepped);
                for &Apart { row, col, level } in &self.apart {
                    sums[row as usize] += level as f32 * stepped[col as usize];
                }
            }
            if self.factors.is_empty() {
                y.iter_mut().zip(&*sums).for_each(|(y, sum)| *y += sum);
            } else {
                let with_factors = y.iter_mut().zip(&*sums).zip(&self.factors);
                with_factors.for_each(|((y, sum), factor)| *y += factor * sum);
            }
        }
    }

    fn factor(&self, row: usize) -> f32 {
        self.factors.get(row).copied().unwrap_or(1.0)
    }

    #[inline]
    fn weight(&self, level: f32, step: f32, factor: f32) -> f32 {
        let [a, b] = self.powers;
        (level * step * factor * a * b).clamp(f32::MIN, f32::MAX)
    }

    /// Activations times the steps of their columns.
    fn step_inputs(&self, x: &[f32], out: &mut Vec<f32>) {
        let [a, b] = self.powers;
        out.clear();
        out.extend(x.iter().zip(&self.steps).map(|(x, step)| x * step * a * b));
    }
}
