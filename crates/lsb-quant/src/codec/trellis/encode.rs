//! Encoding one tile on its own: no statistics of inputs, every weight counts the same.

use super::classes::Classes;
use super::machine::Machine;
use super::search::{RateTable, Scratch, Search};
use super::shape::{MAX_MAGNITUDES, Shape};
use super::tile::{self, Model, Size, class_map};
use super::{CONSTANT, RUNNING_ON, tile_header};
use crate::codec::divided::divided_weights;
use crate::lanes::{Lanes, Work, dispatch};
use crate::{EncodedTile, Result, TileEncoder};
use lsb_format::entropy::LANES;
use lsb_format::{DType, Tile};
use std::cell::RefCell;

#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) machine: Machine,
    pub(super) lambda: f64,
    /// Distance of neighbouring levels, in units of the weights; 0 where all weights are zero.
    pub(super) step: f64,
    pub(super) dtype: DType,
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let (exponent, weights) = divided_weights(self.dtype, bytes)?;
        let size = Size { rows: tile.rows as usize, cols: tile.cols as usize };
        let step = (self.step / exponent.power()) as f32;
        let is_constant = weights.windows(2).all(|w| w[0] == w[1]);
        let inverse = 1.0 / step;
        // A step that no f32 holds is far above or below all weights of the tile.
        if is_constant || !inverse.is_normal() || !step.is_normal() {
            write_constant(exponent.restore(mean(&weights)), out);
            return Ok(());
        }
        let samples = in_lanes(size, &weights, inverse);
        let (model, map, levels) = SCRATCH.with_borrow_mut(|scratch| self.quantize(size, &samples, scratch));
        // The step that suits the levels best. Levels err towards zero, the more so the rarer large ones are.
        let (mut products, mut squares) = (0.0, 0.0);
        for (x, level) in samples.as_flattened().iter().zip(levels.as_flattened()) {
            let level = f64::from(*level);
            products += f64::from(*x) * level;
            squares += level * level;
        }
        let step = (f64::from(step) * products / squares) as f32;
        if squares == 0.0 || !step.is_normal() || step < 0.0 {
            write_constant(exponent.restore(mean(&weights)), out);
            return Ok(());
        }
        let buffer = out.buffer();
        tile_header(RUNNING_ON, exponent, step, buffer);
        tile::encode(&model, &map, &levels, buffer)?;
        out.end_part();
        Ok(())
    }
}

thread_local! {
    /// Choices of the search: 1 MB for each thread that encodes, with 64 states.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The model, the class of every sample and its level.
type Quantized = (Model, Vec<[u8; LANES]>, Vec<[i32; LANES]>);

impl Encoder {
    /// Levels for samples in units of the step, and the model that suits them.
    fn quantize(&self, size: Size, samples: &[[f32; LANES]], scratch: &mut Scratch) -> Quantized {
        let deviations = Deviations::of(size, |row, first, out| {
            for (out, &x) in out.iter_mut().zip(&samples[first / LANES * size.rows + row]) {
                *out = f64::from(x);
            }
        });
        let mut levels = vec![[0; LANES]; samples.len()];
        let mut search = Search::new(self.machine, scratch);
        let mut find = |shapes: &[Shape], map: &[[u8; LANES]], levels: &mut [[i32; LANES]]| {
            // Columns that are missing in the last group need rates too.
            let missing = Shape::default();
            let rates: Vec<RateTable> =
                shapes.iter().chain([&missing]).map(|s| s.rates(self.lambda)).collect();
            search.lanes(samples, map, &rates, levels);
        };
        let guess = deviations.classes(true, true);
        let shapes: Vec<Shape> =
            (0..guess.count()).map(|class| Shape::gaussian(guess.deviation(class))).collect();
        find(&shapes, &class_map(size, &guess), &mut levels);
        // Once levels are known, classes are kept where they pay, and the rates are those of the levels.
        let (mut model, map) = best_model(size, &deviations, &levels);
        find(&model.shapes, &map, &mut levels);
        model.shapes = shapes_of(&count(&map, model.shapes.len(), &levels));
        (model, map, levels)
    }
}

/// The model of least size: classes by rows, by columns, by both or none.
pub(super) fn best_model(
    size: Size,
    deviations: &Deviations,
    levels: &[[i32; LANES]],
) -> (Model, Vec<[u8; LANES]>) {
    let mut candidates: Vec<_> = [(false, true), (true, false), (true, true)]
        .into_iter()
        .map(|(by_rows, by_cols)| deviations.classes(by_rows, by_cols))
        .filter(|classes| classes.count() > 1)
        .map(|classes| {
            let map = class_map(size, &classes);
            let counts = count(&map, classes.count(), levels);
            (classes, map, counts)
        })
        .collect();
    // All samples are those of the classes together.
    let one = Classes::one(size.rows, size.cols);
    let map = class_map(size, &one);
    let counts = match candidates.first() {
        Some((_, _, counts)) => vec![sums_of(counts)],
        None => count(&map, 1, levels),
    };
    candidates.insert(0, (one, map, counts));
    let mut best: Option<(f64, Model, Vec<[u8; LANES]>)> = None;
    for (classes, map, counts) in candidates {
        let shapes = shapes_of(&counts);
        let coded: f64 = shapes.iter().zip(&counts).map(|(s, c)| s.cost(c)).sum();
        let model = Model { classes, shapes };
        let bits = coded + model.bits() as f64;
        if best.as_ref().is_none_or(|best| bits < best.0) {
            best = Some((bits, model, map));
        }
    }
    match best {
        Some((_, model, map)) => (model, map),
        None => unreachable!("one class is always there"),
    }
}

/// The shape that suits each class.
fn shapes_of(counts: &[Vec<f64>]) -> Vec<Shape> {
    counts.iter().map(|c| Shape::of_counts(c)).collect()
}

/// Whole numbers, so that their order does not matter.
fn sums_of(counts: &[Vec<f64>]) -> Vec<f64> {
    let mut sums = vec![0.0; MAX_MAGNITUDES + 1];
    for counts in counts {
        sums.iter_mut().zip(counts).for_each(|(sum, &n)| *sum += n);
    }
    sums
}

/// How often each magnitude occurs in each class; those from [`MAX_MAGNITUDES`] on, which are all escapes, count as one.
pub(super) fn count(map: &[[u8; LANES]], classes: usize, levels: &[[i32; LANES]]) -> Vec<Vec<f64>> {
    let size = ROW * (classes + 1);
    let mut counts = vec![0u32; TABLES * size];
    dispatch(Count { map, levels, counts: &mut counts });
    let of = |class: usize, m: usize| -> u32 {
        (0..TABLES).map(|table| counts[table * size + class * ROW + m]).sum()
    };
    (0..classes).map(|class| (0..=MAX_MAGNITUDES).map(|m| f64::from(of(class, m))).collect()).collect()
}

/// Counts of a class.
const ROW: usize = MAX_MAGNITUDES + 3;
/// Tables that lanes take in turn: the same count twice in a row waits for itself.
const TABLES: usize = 4;

/// Adds to counts of classes, table after table.
struct Count<'a> {
    map: &'a [[u8; LANES]],
    levels: &'a [[i32; LANES]],
    counts: &'a mut [u32],
}

impl Work for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let size = self.counts.len() / TABLES;
        for (classes, levels) in self.map.iter().zip(self.levels) {
            let mut places = [0u32; LANES];
            for lane in 0..LANES {
                let magnitude = levels[lane].unsigned_abs().min(MAX_MAGNITUDES as u32);
                places[lane] = u32::from(classes[lane]) * ROW as u32 + magnitude;
            }
            for places in places.as_chunks::<TABLES>().0 {
                for (table, &place) in places.iter().enumerate() {
                    self.counts[table * size + place as usize] += 1;
                }
            }
        }
    }
}

/// Standard deviations of rows and columns, in steps.
pub(super) struct Deviations {
    cols: Vec<f64>,
    rows: Vec<f64>,
    /// Of rows whose columns were divided by theirs.
    rows_in_cols: Vec<f64>,
}

/// Rows whose squares are summed side by side: a sum waits for itself.
const SIDE_BY_SIDE: usize = 8;

impl Deviations {
    /// Of samples; `values(row, first, out)` puts those of `row` from column `first` on into `out`, at most [`LANES`].
    pub(super) fn of(size: Size, values: impl Fn(usize, usize, &mut [f64])) -> Deviations {
        let mut cols = vec![[0.0f64; LANES]; size.groups()];
        for (row, first, width) in size.each_step() {
            let mut step = [0.0; LANES];
            values(row, first, &mut step[..width]);
            for (sum, x) in cols[first / LANES].iter_mut().zip(step) {
                *sum += x * x;
            }
        }
        let mut cols = cols.into_flattened();
        // A column far below the step says nothing about rows.
        let inverse: Vec<f64> = cols.iter().map(|&s| 1.0 / (s / size.rows as f64).max(0.01)).collect();
        let (mut rows, mut rows_in_cols) = (vec![0.0; size.rows], vec![0.0; size.rows]);
        for (first, inverse) in (0..).step_by(LANES).zip(inverse.as_chunks::<LANES>().0) {
            let width = (size.cols - first).min(LANES);
            let blocks = rows.chunks_mut(SIDE_BY_SIDE).zip(rows_in_cols.chunks_mut(SIDE_BY_SIDE));
            for (block, (sums, sums_in_cols)) in blocks.enumerate() {
                let squares = squares(block, width, sums.len(), |row, out| values(row, first, out));
                sum_rows(&squares, &[1.0; LANES], sums);
                sum_rows(&squares, inverse, sums_in_cols);
            }
        }
        let root = |sums: Vec<f64>, n: usize| sums.iter().map(|s| (s / n as f64).sqrt()).collect();
        cols.truncate(size.cols);
        Deviations {
            cols: root(cols, size.rows),
            rows: root(rows, size.cols),
            rows_in_cols: root(rows_in_cols, size.cols),
        }
    }

    /// Deviations of rows whose columns are divided by `cols`, those of the columns; `values` as for [`Deviations::of`].
    pub(super) fn rows_within(
        size: Size,
        cols: &[f64],
        values: impl Fn(usize, usize, &mut [f64]),
    ) -> Vec<f64> {
        let mut rows = vec![0.0; size.rows];
        for (first, cols) in (0..).step_by(LANES).zip(cols.chunks(LANES)) {
            let mut inverse = [0.0; LANES];
            for (inverse, &d) in inverse.iter_mut().zip(cols) {
                // A column far below the step says nothing about rows.
                *inverse = 1.0 / (d * d).max(0.01);
            }
            for (block, sums) in rows.chunks_mut(SIDE_BY_SIDE).enumerate() {
                let squares = squares(block, cols.len(), sums.len(), |row, out| values(row, first, out));
                sum_rows(&squares, &inverse, sums);
            }
        }
        rows.iter().map(|s| (s / size.cols as f64).sqrt()).collect()
    }

    /// Classes by rows, by columns, by both or none.
    pub(super) fn classes(&self, by_rows: bool, by_cols: bool) -> Classes {
        let rows = if by_cols { &self.rows_in_cols } else { &self.rows };
        Classes::of_deviations(rows, &self.cols, by_rows, by_cols)
    }
}

/// Squares of some columns of a block of rows, zero where there is none.
#[inline(always)]
fn squares(
    block: usize,
    width: usize,
    height: usize,
    values: impl Fn(usize, &mut [f64]),
) -> [[f64; LANES]; SIDE_BY_SIDE] {
    let mut out = [[0.0; LANES]; SIDE_BY_SIDE];
    for (row, out) in (block * SIDE_BY_SIDE..).zip(&mut out[..height]) {
        values(row, &mut out[..width]);
        out.iter_mut().for_each(|x| *x *= *x);
    }
    out
}

/// Adds to the sum of each row its squares times `factors`, from left to right.
#[inline(always)]
fn sum_rows(squares: &[[f64; LANES]; SIDE_BY_SIDE], factors: &[f64; LANES], sums: &mut [f64]) {
    let mut all = [0.0; SIDE_BY_SIDE];
    all[..sums.len()].copy_from_slice(sums);
    for (lane, factor) in factors.iter().enumerate() {
        for (sum, squares) in all.iter_mut().zip(squares) {
            *sum += squares[lane] * factor;
        }
    }
    sums.copy_from_slice(&all[..sums.len()]);
}

/// The weights of a tile times `factor`, in the order of the lanes; zero where a column is missing.
fn in_lanes(size: Size, weights: &[f32], factor: f32) -> Vec<[f32; LANES]> {
    let of = |(row, first, width): (usize, usize, usize)| {
        let mut out = [0.0; LANES];
        for (x, &w) in out.iter_mut().zip(&weights[row * size.cols + first..][..width]) {
            *x = w * factor;
        }
        out
    };
    size.each_step().map(of).collect()
}

fn mean(weights: &[f32]) -> f64 {
    weights.iter().map(|&w| f64::from(w)).sum::<f64>() / weights.len().max(1) as f64
}

fn write_constant(value: f32, out: &mut EncodedTile) {
    out.buffer().push(CONSTANT);
    out.buffer().extend_from_slice(&value.to_le_bytes());
    out.end_part();
}
