//! Encoding one tile on its own: no statistics of inputs, every weight counts the same.

use super::classes::Classes;
use super::machine::Machine;
use super::search::{RateTable, Search};
use super::shape::Shape;
use super::tile::{self, Model, Size, class_map};
use super::{CONSTANT, RUNNING_ON, tile_header};
use crate::codec::divided::divided_weights;
use crate::{EncodedTile, Result, TileEncoder};
use lsb_format::entropy::LANES;
use lsb_format::{DType, Tile};

/// Searches per tile: the first with the rates of a guess, the others with those of the levels found before.
const PASSES: usize = 2;

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
        let (model, map, levels) = self.quantize(size, &samples);
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

type Quantized = (Model, Vec<[u8; LANES]>, Vec<[i32; LANES]>);

impl Encoder {
    /// Levels for samples in units of the step, and the model that suits them.
    fn quantize(&self, size: Size, samples: &[[f32; LANES]]) -> Quantized {
        let deviations = Deviations::of(size, samples);
        let mut levels = vec![[0; LANES]; samples.len()];
        let mut search = Search::new(self.machine);
        let guess = deviations.classes(true, true);
        let mut shapes: Vec<Shape> =
            (0..guess.count()).map(|class| Shape::gaussian(guess.deviation(class))).collect();
        let mut map = class_map(size, &guess);
        let mut model = None;
        for _ in 0..PASSES {
            // Columns that are missing in the last group need rates too.
            shapes.push(Shape::default());
            let rates: Vec<RateTable> = shapes.iter().map(|s| s.rates(self.lambda)).collect();
            search.lanes(samples, &map, &rates, &mut levels);
            // Once levels are known, classes are kept where they pay.
            let next = match model.take() {
                None => best_model(size, &deviations, &levels),
                Some((Model { classes, .. }, _)) => fit(size, classes, &levels),
            };
            shapes.clone_from(&next.0.shapes);
            map = next.1.clone();
            model = Some(next);
        }
        match model {
            Some((model, map)) => (model, map, levels),
            None => unreachable!("there is at least one pass"),
        }
    }
}

/// The model of least size: classes by rows, by columns, by both or none.
pub(super) fn best_model(
    size: Size,
    deviations: &Deviations,
    levels: &[[i32; LANES]],
) -> (Model, Vec<[u8; LANES]>) {
    let mut best = (f64::INFINITY, None);
    for (by_rows, by_cols) in [(false, false), (false, true), (true, false), (true, true)] {
        let classes = deviations.classes(by_rows, by_cols);
        if (by_rows || by_cols) && classes.count() == 1 {
            continue;
        }
        let map = class_map(size, &classes);
        let counts = count(&map, classes.count(), levels);
        let shapes: Vec<Shape> = counts.iter().map(|c| Shape::of_counts(c)).collect();
        let coded: f64 = shapes.iter().zip(&counts).map(|(s, c)| s.cost(c)).sum();
        let model = Model { classes, shapes };
        let bits = coded + model.bits() as f64;
        if bits < best.0 {
            best = (bits, Some((model, map)));
        }
    }
    best.1.unwrap_or_else(|| fit(size, Classes::one(size.rows, size.cols), levels))
}

/// The shapes that suit the levels.
fn fit(size: Size, classes: Classes, levels: &[[i32; LANES]]) -> (Model, Vec<[u8; LANES]>) {
    let map = class_map(size, &classes);
    let counts = count(&map, classes.count(), levels);
    let shapes = counts.iter().map(|c| Shape::of_counts(c)).collect();
    (Model { classes, shapes }, map)
}

/// How often each magnitude occurs in each class.
pub(super) fn count(map: &[[u8; LANES]], classes: usize, levels: &[[i32; LANES]]) -> Vec<Vec<f64>> {
    /// Magnitudes at least this large are all escapes.
    const LAST: usize = super::shape::MAX_MAGNITUDES;
    let mut counts = vec![[0u32; LAST + 1]; classes + 1];
    for (classes, levels) in map.iter().zip(levels) {
        for (&class, &level) in classes.iter().zip(levels) {
            counts[usize::from(class)][(level.unsigned_abs() as usize).min(LAST)] += 1;
        }
    }
    counts.truncate(classes);
    counts.iter().map(|c| c.iter().map(|&n| f64::from(n)).collect()).collect()
}

/// Standard deviations of rows and columns, in steps.
pub(super) struct Deviations {
    cols: Vec<f64>,
    rows: Vec<f64>,
    /// Of rows whose columns were divided by theirs.
    rows_in_cols: Vec<f64>,
}

impl Deviations {
    fn of(size: Size, samples: &[[f32; LANES]]) -> Deviations {
        Self::from_fn(size, |r, c| f64::from(samples[c / LANES * size.rows + r][c % LANES]))
    }

    /// Of the samples `value(row, col)`.
    pub(super) fn from_fn(size: Size, value: impl Fn(usize, usize) -> f64) -> Deviations {
        let mut cols = vec![0.0f64; size.groups() * LANES];
        for (row, first, width) in size.each_step() {
            for (c, sum) in (first..first + width).zip(&mut cols[first..]) {
                let x = value(row, c);
                *sum += x * x;
            }
        }
        // A column far below the step says nothing about rows.
        let inverse: Vec<f64> = cols.iter().map(|&s| 1.0 / (s / size.rows as f64).max(0.01)).collect();
        let (mut rows, mut rows_in_cols) = (vec![0.0; size.rows], vec![0.0; size.rows]);
        for (row, first, width) in size.each_step() {
            for (c, inverse) in (first..first + width).zip(&inverse[first..]) {
                let x = value(row, c);
                rows[row] += x * x;
                rows_in_cols[row] += x * x * inverse;
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

    /// Deviations of rows whose columns are divided by `cols`, those of the columns.
    pub(super) fn rows_within(size: Size, cols: Vec<f64>, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        // A column far below the step says nothing about rows.
        let inverse: Vec<f64> = cols.iter().map(|&d| 1.0 / (d * d).max(0.01)).collect();
        let square = |r: usize, c: usize| value(r, c) * value(r, c) * inverse[c];
        let row = |r: usize| ((0..size.cols).map(|c| square(r, c)).sum::<f64>() / size.cols as f64).sqrt();
        (0..size.rows).map(row).collect()
    }

    /// Classes by rows, by columns, by both or none.
    pub(super) fn classes(&self, by_rows: bool, by_cols: bool) -> Classes {
        let rows = if by_cols { &self.rows_in_cols } else { &self.rows };
        Classes::of_deviations(rows, &self.cols, by_rows, by_cols)
    }
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
