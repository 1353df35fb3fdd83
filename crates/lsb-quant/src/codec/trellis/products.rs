//! Levels times activations, as they come out of the entropy decoder.

use super::tile::Sink;
use crate::lanes::{self, Lanes, Work, dispatch, halves};
use lsb_format::entropy::LANES;

/// Sums kept for each row, so that whole vectors are added.
const SUMS: usize = lanes::LANES;

/// Products of the tiles of a pair with the inputs of a few tokens. Steps of columns go into the inputs, factors of rows
/// into the sums.
#[derive(Debug, Default)]
pub(super) struct Products {
    tokens: usize,
    rows: usize,
    /// For each tile, inputs times steps: of token after token, whole groups; zero where columns are missing.
    inputs: [Vec<f32>; 2],
    /// Tiles added.
    tiles: usize,
    /// Of token after token, sums of each row.
    sums: Vec<[f32; SUMS]>,
}

impl Products {
    /// Starts anew.
    pub(super) fn begin(&mut self, tokens: usize, rows: usize) {
        (self.tokens, self.rows, self.tiles) = (tokens, rows, 0);
        self.sums.clear();
        self.sums.resize(tokens * rows, [0.0; SUMS]);
    }

    /// Adds what a tile of equal weights gives.
    pub(super) fn add_constant<'x>(&self, value: f32, inputs: impl Fn(usize) -> &'x [f32], y: &mut [f32]) {
        for (token, y) in y.chunks_mut(self.rows.max(1)).enumerate().take(self.tokens) {
            let sum: f32 = inputs(token).iter().sum();
            y.iter_mut().for_each(|y| *y += value * sum);
        }
    }

    /// The next tile that levels will be shown of.
    pub(super) fn add_tile<'x>(
        &mut self,
        steps: &[f32],
        [a, b]: [f32; 2],
        inputs: impl Fn(usize) -> &'x [f32],
    ) {
        let Some(out) = self.inputs.get_mut(self.tiles) else { return };
        let padded = steps.len().next_multiple_of(LANES);
        out.clear();
        out.resize(self.tokens * padded, 0.0);
        for (token, out) in out.chunks_mut(padded.max(1)).enumerate() {
            for ((out, x), step) in out.iter_mut().zip(inputs(token)).zip(steps) {
                *out = x * step * a * b;
            }
        }
        self.tiles += 1;
    }

    /// Adds all products of levels, times the factors of rows (1 where there are none), to `y`.
    pub(super) fn end(&self, factors: &[f32], y: &mut [f32]) {
        for (y, sums) in y.chunks_mut(self.rows.max(1)).zip(self.sums.chunks(self.rows.max(1))) {
            for (row, (y, sums)) in y.iter_mut().zip(sums).enumerate() {
                *y += factors.get(row).copied().unwrap_or(1.0) * sums.iter().sum::<f32>();
            }
        }
    }
}

/// Adds a group of 32 columns, by rows, times the inputs of one token to sums of rows.
struct Add<'a> {
    levels: &'a [[i16; LANES]],
    inputs: &'a [f32; LANES],
    sums: &'a mut [[f32; SUMS]],
}

impl Work for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let [low, high] = halves(self.inputs).map(|inputs| lanes.load(inputs));
        for (levels, sums) in self.levels.iter().zip(self.sums) {
            let levels = halves(levels).map(|levels| lanes.integers(levels));
            let products = lanes.add(lanes.mul(levels[0], low), lanes.mul(levels[1], high));
            *sums = lanes.store(lanes.add(lanes.load(sums), products));
        }
    }
}

impl Sink for Products {
    fn group(&mut self, tile: usize, first: usize, levels: &[[i16; LANES]]) {
        let Some(padded) = self.inputs[tile].len().checked_div(self.tokens) else { return };
        let inputs = self.inputs[tile].chunks(padded.max(1));
        for (inputs, sums) in inputs.zip(self.sums.chunks_mut(self.rows.max(1))) {
            let Some(inputs) = inputs[first..].first_chunk() else { continue };
            dispatch(Add { levels, inputs, sums });
        }
    }

    fn escape(&mut self, tile: usize, row: usize, col: usize, level: i32) {
        let Some(padded) = self.inputs[tile].len().checked_div(self.tokens) else { return };
        for token in 0..self.tokens {
            self.sums[token * self.rows + row][0] += level as f32 * self.inputs[tile][token * padded + col];
        }
    }
}
