//! Levels with a scale and a middle for each group of columns of a row, and outliers beside them.

use super::form::{Block, Form, GROUP, PANEL, for_each_form};
use super::inputs::Inputs;
use super::kernel::{self, Panels};
use super::signs::Signs;
use super::sparse::Sparse;
use super::{Activations, Packing, Workspace as Common};
use crate::Isa;
use crate::lanes::{Lanes, Work, dispatch};
use crate::scale::{TileExponent, half_to_f32};
use half::f16;
use std::ops::Range;

/// What the levels of a group stand for, before they are multiplied by a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `scale * (level - middle)`.
    Integers,
    /// `middle - scale` for level -1 and `middle + scale` for level 0, where there is no outlier.
    Signs,
}

/// With so many tokens, a product of matrices in f32 makes up for decoding, also of what lies in memory unpacked: decoded weights
/// that are used again and again stay in the second cache, and the library's product comes near the processor's peak.
pub(crate) const TOKENS_TO_DECODE: usize = 128;

/// Whether levels of rows of `cols` columns, of which `group` share a scale, can be unpacked: groups consist of whole blocks.
pub(crate) fn can_group(cols: usize, group: usize) -> bool {
    cols <= Sparse::MOST_COLS && Signs::can_group(cols, group)
}

/// Bits that a weight of `bits` bits takes unpacked with what its group has.
pub(crate) fn bits_of_groups(bits: u32, group: usize) -> f64 {
    // Scale and middle in halves.
    Form::of_bits(bits).bits() as f64 + 32.0 / group.max(1) as f64
}

/// Rows before they are packed.
#[derive(Debug)]
pub(crate) struct Grouped {
    rule: Rule,
    /// Of a level.
    bits: u32,
    /// What is taken off a stored level.
    center: u8,
    cols: usize,
    /// Columns of a group.
    group: usize,
    /// Of each row.
    exponents: Vec<TileExponent>,
    /// Row by row.
    stored: Vec<u8>,
    /// Scale and middle of each group, row by row.
    scales: Vec<[f32; 2]>,
    /// Where the outliers of each group end, row by row; their columns; their values.
    ends: Vec<u32>,
    outlier_cols: Vec<u16>,
    outliers: Vec<f32>,
}

/// A tile before it is packed.
#[derive(Debug, Default)]
pub(crate) struct TileLevels {
    pub(crate) exponent: TileExponent,
    /// Levels of all rows, row by row; none is negative.
    pub(crate) stored: Vec<u8>,
    /// Of all groups, row by row.
    pub(crate) scales: Vec<f32>,
    /// The same; halves hold them, as they do scales.
    pub(crate) middles: Vec<f32>,
    /// Positions of outliers, in increasing order, and their values.
    pub(crate) positions: Vec<u32>,
    pub(crate) outliers: Vec<f32>,
}

impl Grouped {
    /// No rows yet. Levels are stored with `center` added.
    pub(crate) fn new(rule: Rule, bits: u32, center: u8, cols: usize, group: usize) -> Self {
        debug_assert!(can_group(cols, group));
        Grouped {
            rule,
            bits,
            center,
            cols,
            group: group.max(1),
            exponents: Vec::new(),
            stored: Vec::new(),
            scales: Vec::new(),
            ends: Vec::new(),
            outlier_cols: Vec::new(),
            outliers: Vec::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.exponents.len()
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    /// Columns of a group.
    pub(crate) fn group(&self) -> usize {
        self.group
    }

    /// What is taken off a stored level.
    pub(crate) fn center(&self) -> u8 {
        self.center
    }

    /// Adds some rows of a tile.
    pub(crate) fn push(&mut self, tile: &TileLevels, rows: Range<usize>) {
        let groups = self.cols.div_ceil(self.group);
        self.stored.extend_from_slice(&tile.stored[rows.start * self.cols..rows.end * self.cols]);
        let of_groups = rows.start * groups..rows.end * groups;
        let pairs = tile.scales[of_groups.clone()].iter().zip(&tile.middles[of_groups]);
        self.scales.extend(pairs.map(|(&scale, &middle)| [scale, middle]));
        let mut next = tile.positions.partition_point(|&at| (at as usize) < rows.start * self.cols);
        for row in rows {
            self.exponents.push(tile.exponent);
            let first = row * self.cols;
            for group in 0..groups {
                let end = first + self.cols.min((group + 1) * self.group);
                while let Some(&at) = tile.positions.get(next).filter(|&&at| (at as usize) < end) {
                    self.outlier_cols.push((at as usize - first) as u16);
                    self.outliers.push(tile.outliers[next]);
                    next += 1;
                }
                self.ends.push(self.outliers.len() as u32);
            }
        }
    }
}

/// Scales and middles of a panel's rows in one group, in halves.
type Halves = [[u16; PANEL]; 2];

/// Packed levels of rows, and what they stand for in each group.
#[derive(Clone, Debug)]
pub(super) struct PackedLevels {
    pub(super) rule: Rule,
    pub(super) form: Form,
    pub(super) panels: usize,
    pub(super) cols: usize,
    /// Columns of a group.
    pub(super) group: usize,
    /// Group by group, in each panel by panel.
    pub(super) packed: Vec<u8>,
    /// The same.
    pub(super) halves: Vec<Halves>,
}

impl PackedLevels {
    /// Scales and middles of all groups, row by row, as they lie here.
    pub(super) fn put_halves(&mut self, scales_and_middles: impl Iterator<Item = [f32; 2]>) {
        let groups = self.cols.div_ceil(self.group).max(1);
        self.halves.clear();
        self.halves.resize(groups * self.panels, [[0; PANEL]; 2]);
        for (index, pair) in scales_and_middles.enumerate() {
            let (row, group) = (index / groups, index % groups);
            let of_panel = &mut self.halves[group * self.panels + row / PANEL];
            for (halves, number) in of_panel.iter_mut().zip(pair) {
                halves[row % PANEL] = f16::from_f32(number).to_bits();
            }
        }
    }

    /// The columns of each group and the blocks of its panels.
    fn groups(&self) -> impl Iterator<Item = (Range<usize>, &[u8])> {
        let mut rest = &self.packed[..];
        (0..self.cols).step_by(self.group).map(move |first| {
            let cols = first..self.cols.min(first + self.group);
            let bytes = self.panels * cols.len().div_ceil(GROUP) * self.form.block_bytes();
            let (here, behind) = rest.split_at(bytes);
            rest = behind;
            (cols, here)
        })
    }

    /// Scale and middle of a row's group.
    fn scale_and_middle(&self, group: usize, row: usize) -> [f32; 2] {
        let [scales, middles] = &self.halves[group * self.panels + row / PANEL];
        [half_to_f32(scales[row % PANEL]), half_to_f32(middles[row % PANEL])]
    }

    /// Fills `totals`, of shape `[tokens, rows of panels]`, with products of what levels stand for and the inputs from column `first`
    /// on.
    pub(super) fn multiply(&self, x: &Activations<'_>, first: usize, work: &mut Common) {
        let tokens = x.tokens();
        let Common { inputs, sums, by_group: Workspace { totals, sums_of_inputs, .. }, .. } = work;
        let cols = first..first + self.cols;
        let whole_groups =
            first.is_multiple_of(GROUP) && (self.cols.is_multiple_of(GROUP) || cols.end == x.columns());
        let (inputs, first) = if whole_groups {
            (x.fixed(self.form), first / GROUP)
        } else {
            let x = |token| &x.token(token)[cols.clone()];
            inputs.fill(self.form, [tokens, self.cols], x, &[], [1.0; 2]);
            (&*inputs, 0)
        };
        for sums in [&mut *sums, &mut *totals] {
            sums.clear();
            sums.resize(tokens * self.panels * PANEL, 0.0);
        }
        for (group, (cols, packed)) in self.groups().enumerate() {
            let blocks = first + cols.start / GROUP..first + cols.end.div_ceil(GROUP);
            let panels = Panels { form: self.form, first: blocks.start, groups: blocks.len(), packed };
            kernel::sums(Isa::chosen(), &panels, inputs, tokens, sums);
            let halves = &self.halves[group * self.panels..][..self.panels];
            dispatch(AddGroup { rule: self.rule, halves, inputs, blocks, sums, sums_of_inputs, totals });
        }
    }
}

/// Packed rows with outliers.
#[derive(Clone)]
pub(super) struct ByGroup {
    levels: PackedLevels,
    /// Of each row.
    exponents: Vec<TileExponent>,
    /// The largest of them.
    exponent: TileExponent,
    /// What the power of each row is of the largest; empty where they are the same.
    factors: Vec<f32>,
    sparse: Option<Sparse>,
}

/// What products need besides that of all.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) totals: Vec<f32>,
    /// Of one group, token by token.
    sums_of_inputs: Vec<f32>,
    /// Lower and upper weight of each group, row by row.
    levels: Vec<[f32; 2]>,
    sparse: super::sparse::Workspace,
}

impl ByGroup {
    pub(super) fn new(grouped: &Grouped, packing: Packing) -> Self {
        let Grouped { rule, bits, cols, group, exponents, scales, ends, outlier_cols, outliers, .. } =
            grouped;
        let form = match packing {
            // Single bits are looked up: nothing is faster.
            _ if *bits == 1 => Form::One,
            Packing::Narrow => Form::of_bits(*bits),
            Packing::Bytes => Form::Eight,
        };
        let mut levels = PackedLevels {
            rule: *rule,
            form,
            panels: grouped.rows().div_ceil(PANEL),
            cols: *cols,
            group: *group,
            packed: dispatch(Pack { form, grouped }),
            halves: Vec::new(),
        };
        levels.put_halves(scales.iter().copied());
        let exponent = exponents.iter().copied().max().unwrap_or_default();
        let mut factors = Vec::new();
        if exponents.iter().any(|&e| e != exponent) {
            factors = exponents.iter().map(|e| (e.power() / exponent.power()) as f32).collect();
        }
        ByGroup {
            levels,
            exponents: exponents.clone(),
            exponent,
            factors,
            sparse: (!outliers.is_empty()).then(|| Sparse::new(ends, outlier_cols, outliers)),
        }
    }

    pub(super) fn form(&self) -> Form {
        self.levels.form
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.levels.packed.capacity()
            + size_of::<Halves>() * self.levels.halves.capacity()
            + size_of::<TileExponent>() * self.exponents.capacity()
            + size_of::<f32>() * self.factors.capacity()
            + self.sparse.as_ref().map_or(0, Sparse::bytes)
    }

    fn groups_of_row(&self) -> usize {
        self.levels.cols.div_ceil(self.levels.group)
    }

    /// The lower and the upper weight of a row's group.
    fn weights(&self, group: usize, row: usize) -> [f32; 2] {
        let [scale, middle] = self.levels.scale_and_middle(group, row);
        self.exponents[row].levels(scale, middle)
    }

    /// See [`super::UnpackedTile::decode_rows`].
    pub(super) fn decode_rows(&self, rows: Range<usize>, wide: usize, out: &mut [f32]) {
        let form = self.levels.form;
        for (group, (cols, packed)) in self.levels.groups().enumerate() {
            let blocks = cols.len().div_ceil(GROUP);
            for (index, packed) in packed.chunks(form.block_bytes()).enumerate() {
                let (panel, block) = (index / blocks, index % blocks);
                let here = rows.start.max(panel * PANEL)..rows.end.min((panel + 1) * PANEL);
                if here.is_empty() {
                    continue;
                }
                let levels = form.unpack(packed);
                let first = cols.start + block * GROUP;
                let cols = first..cols.end.min(first + GROUP);
                for row in here {
                    let out = &mut out[(row - rows.start) * wide..][cols.clone()];
                    let levels = out.iter_mut().zip(&levels[row % PANEL]);
                    match self.levels.rule {
                        Rule::Integers => {
                            let [scale, middle] = self.levels.scale_and_middle(group, row);
                            levels.for_each(|(w, &level)| *w = scale * (f32::from(level) - middle));
                            self.exponents[row].multiply_all(out);
                        }
                        Rule::Signs => {
                            let [low, high] = self.weights(group, row);
                            levels.for_each(|(w, &level)| *w = if level < 0 { low } else { high });
                        }
                    }
                }
            }
        }
        if let Some(sparse) = &self.sparse {
            let groups = self.groups_of_row();
            sparse.put(rows.start * groups..rows.end * groups, |index, col, value| {
                out[(index / groups - rows.start) * wide + col] = value;
            });
        }
    }

    /// See [`super::UnpackedTile::add_products`].
    pub(super) fn add_products(&self, x: &Activations<'_>, first: usize, y: &mut [f32], work: &mut Common) {
        self.levels.multiply(x, first, work);
        let rows = self.exponents.len();
        let Workspace { totals, levels, sparse, .. } = &mut work.by_group;
        let padded = self.levels.panels * PANEL;
        let [a, b] = self.exponent.multiply();
        for (totals, y) in totals.chunks(padded.max(1)).zip(y.chunks_mut(rows.max(1))) {
            if self.factors.is_empty() {
                y.iter_mut().zip(totals).for_each(|(y, sum)| *y += sum * a * b);
            } else {
                let with_factors = y.iter_mut().zip(totals).zip(&self.factors);
                with_factors.for_each(|((y, sum), factor)| *y += factor * sum * a * b);
            }
        }
        if let Some(outliers) = &self.sparse {
            let groups = self.groups_of_row();
            levels.clear();
            levels.extend((0..rows * groups).map(|i| self.weights(i % groups, i / groups)));
            outliers.add_products(levels, x, first..first + self.levels.cols, y, sparse);
        }
    }
}

/// Packs levels group by group, in each panel by panel; rows and columns that are missing are 0.
struct Pack<'a> {
    form: Form,
    grouped: &'a Grouped,
}

impl Work for Pack<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> Vec<u8> {
        for_each_form!(self.form, |form| self.blocks(form))
    }
}

impl Pack<'_> {
    #[inline(always)]
    fn blocks(&self, form: Form) -> Vec<u8> {
        let Grouped { cols, group, center, stored, .. } = self.grouped;
        let (rows, cols) = (self.grouped.rows(), *cols);
        let blocks: usize =
            (0..cols).step_by(*group).map(|first| (cols - first).min(*group).div_ceil(GROUP)).sum();
        let mut packed = vec![0; rows.div_ceil(PANEL) * blocks * form.block_bytes()];
        let mut out = packed.chunks_exact_mut(form.block_bytes());
        for first in (0..cols).step_by(*group) {
            let end = cols.min(first + group);
            for panel in (0..rows).step_by(PANEL) {
                for col in (first..end).step_by(GROUP) {
                    let (mut block, width): (Block, usize) = ([[0; GROUP]; PANEL], GROUP.min(end - col));
                    for (levels, row) in block.iter_mut().zip(panel..rows) {
                        let stored = &stored[row * cols + col..][..width];
                        for (level, stored) in levels.iter_mut().zip(stored) {
                            *level = i16::from(*stored) - i16::from(*center);
                        }
                    }
                    if let Some(out) = out.next() {
                        form.pack(&block, out);
                    }
                }
            }
        }
        packed
    }
}

/// Adds what the levels of one group give to the totals of all rows and tokens.
struct AddGroup<'a> {
    rule: Rule,
    /// Of each panel.
    halves: &'a [Halves],
    inputs: &'a Inputs,
    /// Of the group.
    blocks: Range<usize>,
    /// Of levels and inputs, token by token.
    sums: &'a [f32],
    /// To be filled.
    sums_of_inputs: &'a mut Vec<f32>,
    totals: &'a mut [f32],
}

impl Work for AddGroup<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let AddGroup { rule, halves, inputs, blocks, sums, sums_of_inputs, totals } = self;
        sums_of_inputs.clear();
        let tokens = totals.len() / (halves.len() * PANEL).max(1);
        sums_of_inputs.extend((0..tokens).map(|token| inputs.token(token, blocks.clone()).sum()));
        for (panel, [scales, middles]) in halves.iter().enumerate() {
            let (mut factors, mut beside) = ([0.0; PANEL], [0.0; PANEL]);
            for row in 0..PANEL {
                let (scale, middle) = (half_to_f32(scales[row]), half_to_f32(middles[row]));
                [factors[row], beside[row]] = match rule {
                    Rule::Integers => [scale, -scale * middle],
                    Rule::Signs => [2.0 * scale, middle + scale],
                };
            }
            let of_token = halves.len() * PANEL;
            for (token, sum_of_inputs) in sums_of_inputs.iter().enumerate() {
                let at = token * of_token + panel * PANEL;
                let (sums, totals) = (&sums[at..][..PANEL], &mut totals[at..][..PANEL]);
                for (row, (total, sum)) in totals.iter_mut().zip(sums).enumerate() {
                    *total += factors[row] * sum + beside[row] * sum_of_inputs;
                }
            }
        }
    }
}
