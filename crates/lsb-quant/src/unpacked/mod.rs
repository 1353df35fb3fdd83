//! Levels of tiles in a form that is multiplied as fast as memory gives it: as few bits each as nearly all of them need, with
//! the others apart. For weights that stay in memory while text is generated.

mod form;
mod inputs;
mod kernel;
#[cfg(test)]
mod tests;

use crate::Isa;
use crate::lanes::{Lanes, Work, dispatch};
use form::{Block, Form, GROUP, PANEL};
use inputs::Inputs;
use kernel::Panels;
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// The share of levels that may lie apart in a tile; 1 / this. They take as much memory as one more bit of each level would
/// at 1 / 96, and are slower.
const APART: usize = 256;

/// In how many bits levels are unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As few as nearly all of them need: for weights that stay in memory, which limits how fast they are multiplied.
    Narrow,
    /// A byte each: the fastest to make and to multiply, for one product with many tokens.
    Bytes,
}

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

/// What products of a tile need besides it.
#[derive(Debug, Default)]
struct Workspace {
    inputs: Inputs,
    sums: Vec<f32>,
    /// The inputs of a token times the steps of their columns.
    stepped: Vec<f32>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl UnpackedTile {
    /// A tile of equal weights.
    pub(crate) fn constant(rows: usize, cols: usize, value: f32) -> Self {
        UnpackedTile { rows, cols, content: Content::Constant(value) }
    }

    pub(crate) fn new(unpacking: Unpacking<'_>) -> Self {
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
        let levels = Levels { form, packed, steps: steps.to_vec(), factors, powers, apart };
        UnpackedTile { rows, cols, content: Content::Levels(levels) }
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        let content = match &self.content {
            Content::Constant(_) => 0,
            Content::Levels(l) => {
                l.packed.capacity()
                    + size_of::<f32>() * (l.steps.capacity() + l.factors.capacity())
                    + size_of::<Apart>() * l.apart.capacity()
            }
        };
        (size_of::<Self>() + content) as u64
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
        let l = match &self.content {
            Content::Constant(value) => return out.fill(*value),
            Content::Levels(levels) => levels,
        };
        let panel_bytes = self.cols.div_ceil(GROUP) * l.form.block_bytes();
        for (panel, packed) in l.packed.chunks(panel_bytes.max(1)).enumerate() {
            let here = rows.start.max(panel * PANEL)..rows.end.min((panel + 1) * PANEL);
            if here.is_empty() {
                continue;
            }
            for (group, packed) in packed.chunks(l.form.block_bytes()).enumerate() {
                let block = l.form.unpack(packed);
                let cols = group * GROUP..((group + 1) * GROUP).min(self.cols);
                let steps = &l.steps[cols.clone()];
                for row in here.clone() {
                    let out = &mut out[(row - rows.start) * self.cols..][cols.clone()];
                    let factor = l.factor(row);
                    for ((weight, level), step) in out.iter_mut().zip(&block[row % PANEL]).zip(steps) {
                        *weight = l.weight(f32::from(*level), *step, factor);
                    }
                }
            }
        }
        let first = l.apart.partition_point(|apart| (apart.row as usize) < rows.start);
        for &Apart { row, col, level } in &l.apart[first..] {
            let (row, col) = (row as usize, col as usize);
            if row >= rows.end {
                break;
            }
            out[(row - rows.start) * self.cols + col] = l.weight(level as f32, l.steps[col], l.factor(row));
        }
    }

    /// Adds the products of the tile with the inputs of its columns, `x(token)`, to `y`, of shape `[tokens, rows]`.
    ///
    /// Inputs, each times the step of its column, are rounded to 16 bits: in each group of 32 columns, by `2^-16` of the largest
    /// of them at most. Their sums with levels are exact in a group and f32 beyond it. Results are the same on every processor.
    ///
    /// # Panics
    /// If a length does not fit the tile.
    pub fn add_products<'x>(&self, x: impl Fn(usize) -> &'x [f32], tokens: usize, y: &mut [f32]) {
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
        WORKSPACE.with_borrow_mut(|Workspace { inputs, sums, stepped }| {
            // Steps go into inputs, so that only levels are left to be multiplied.
            inputs.begin(self.cols);
            for token in 0..tokens {
                let x = x(token);
                assert_eq!(x.len(), self.cols);
                inputs.push(x, &l.steps, l.powers);
            }
            let padded = self.rows.next_multiple_of(PANEL);
            sums.clear();
            sums.resize(tokens * padded, 0.0);
            let panels = Panels { form: l.form, groups: self.cols.div_ceil(GROUP), packed: &l.packed };
            kernel::sums(Isa::chosen(), &panels, inputs, tokens, sums);
            for (token, (sums, y)) in
                sums.chunks_mut(padded.max(1)).zip(y.chunks_mut(self.rows.max(1))).enumerate()
            {
                if !l.apart.is_empty() {
                    l.step_inputs(x(token), stepped);
                    for &Apart { row, col, level } in &l.apart {
                        sums[row as usize] += level as f32 * stepped[col as usize];
                    }
                }
                if l.factors.is_empty() {
                    y.iter_mut().zip(&*sums).for_each(|(y, sum)| *y += sum);
                } else {
                    y.iter_mut()
                        .zip(&*sums)
                        .zip(&l.factors)
                        .for_each(|((y, sum), factor)| *y += factor * sum);
                }
            }
        });
    }
}

impl Levels {
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

/// Looks for the narrowest form that leaves no more than `apart` levels out; the widest one may leave more.
struct Narrowest<'a> {
    levels: &'a [[i16; GROUP]],
    apart: usize,
}

impl Work for Narrowest<'_> {
    type Output = Form;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> Form {
        // How many levels each form leaves out, in lanes that are read before they could overflow.
        let mut out = [0_usize; Form::ALL.len()];
        for groups in self.levels.chunks(1 << 10) {
            for (out, form) in out.iter_mut().zip(Form::ALL) {
                let (least, most) = (*form.range().start(), *form.range().end());
                let mut lanes = [0_u16; GROUP];
                for group in groups {
                    for (lane, &level) in lanes.iter_mut().zip(group) {
                        *lane += u16::from((level < least) | (level > most));
                    }
                }
                *out += lanes.iter().map(|&lane| usize::from(lane)).sum::<usize>();
            }
        }
        let fits = |&(out, _): &(usize, Form)| out <= self.apart;
        out.into_iter().zip(Form::ALL).find(fits).map_or(Form::Eight, |(_, form)| form)
    }
}

/// Packs levels, group by group and in each row by row, into panels; rows that the last panel lacks are 0.
struct Pack<'a> {
    form: Form,
    levels: &'a [[i16; GROUP]],
    rows: usize,
}

impl Work for Pack<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) -> Vec<u8> {
        // Once for each form, so that bits are constants.
        match self.form {
            Form::Four => self.blocks(Form::Four),
            Form::Five => self.blocks(Form::Five),
            Form::Six => self.blocks(Form::Six),
            Form::Eight => self.blocks(Form::Eight),
        }
    }
}

impl Pack<'_> {
    #[inline(always)]
    fn blocks(&self, form: Form) -> Vec<u8> {
        let rows = self.rows.max(1);
        let (panels, groups) = (rows.div_ceil(PANEL), self.levels.len() / rows);
        let mut packed = vec![0; panels * groups * form.block_bytes()];
        for (index, packed) in packed.chunks_exact_mut(form.block_bytes()).enumerate() {
            let (panel, group) = (index / groups, index % groups);
            let levels = &self.levels[group * rows..][panel * PANEL..rows.min((panel + 1) * PANEL)];
            match <&Block>::try_from(levels).ok() {
                Some(block) => form.pack(block, packed),
                None => {
                    let mut block: Block = [[0; GROUP]; PANEL];
                    block[..levels.len()].copy_from_slice(levels);
                    form.pack(&block, packed);
                }
            }
        }
        packed
    }
}

impl fmt::Debug for UnpackedTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match &self.content {
            Content::Constant(_) => None,
            Content::Levels(levels) => Some(levels.form),
        };
        f.debug_struct("UnpackedTile")
            .field("rows", &self.rows)
            .field("cols", &self.cols)
            .field("form", &form)
            .finish_non_exhaustive()
    }
}
