//! Signs times activations, as they lie in the plane.
//!
//! A group has two levels, `low` and `high`: its product is `low` times the sum of its inputs, plus the difference of the levels
//! times the sum of the inputs whose bit is set. That sum is all that is done for every weight. Outliers are put right after it.

use super::decode::{Decoder, Opened};
use crate::Result;
use crate::codec::grouped::Groups;
use crate::lanes::{LANES, Lanes, WORD, Work, dispatch, halves, total};
use crate::unpacked::{Grouped, Rule, TileLevels, bits_of_groups};
use lsb_format::Tile;
use lsb_format::bits::{self, window};
use std::cell::RefCell;

/// Sums kept for each row, so that whole vectors are added.
type Sums = [f32; LANES];

/// What products of tiles need besides them, to be used for the next ones.
#[derive(Debug, Default)]
struct Workspace {
    /// Of token after token, the inputs of each group, with zeros up to whole words.
    inputs: Vec<[f32; WORD]>,
    /// Of token after token, sums of the inputs of each group.
    totals: Vec<Sums>,
    /// Lower and upper levels, row by row.
    levels: Vec<[f32; 2]>,
    /// Of token after token, sums of each row.
    sums: Vec<Sums>,
    /// Outliers.
    positions: Vec<u32>,
    values: Vec<f32>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl Groups for Decoder {
    fn no_rows(&self, cols: usize) -> Grouped {
        Grouped::new(Rule::Signs, 1, 1, cols, self.group.width(cols))
    }

    fn levels(&self, tile: &Tile, parts: &[&[u8]]) -> Result<TileLevels> {
        let opened = Opened::new(self.group, tile, parts)?;
        let mut stored = vec![0; tile.weights()];
        bits::unpack_bytes(opened.plane, 1, &mut stored)?;
        let (mut positions, mut outliers) = (Vec::new(), Vec::new());
        opened.outliers(&mut positions, &mut outliers)?;
        let Opened { exponent, scales, means: middles, .. } = opened;
        Ok(TileLevels { exponent, stored, scales, middles, positions, outliers })
    }

    fn bits(&self, stored: f64) -> Option<f64> {
        let group = self.group.width(usize::MAX);
        // With each group it is told where its outliers end.
        let levels = bits_of_groups(1, group) + 32.0 / group as f64;
        self.unpacks.then(|| levels + UNPACKED_OVER_STORED * (stored - 1.0).max(0.0))
    }

    fn multiply(&self, tiles: &[(Tile, &[&[u8]])], x: &[f32], tokens: usize, y: &mut [f32]) -> Result<()> {
        let width = x.len() / tokens.max(1);
        let Some(rows) = tiles.first().map(|(tile, _)| tile.rows as usize) else { return Ok(()) };
        WORKSPACE.with_borrow_mut(|work| {
            work.sums.clear();
            work.sums.resize(tokens * rows, [0.0; LANES]);
            for (tile, parts) in tiles {
                let opened = Opened::new(self.group, tile, parts)?;
                let group = self.group.width(tile.cols as usize);
                let inputs = |token: usize| &x[token * width + tile.col as usize..][..tile.cols as usize];
                work.add(tile, &opened, group, tokens, inputs)?;
            }
            for (y, sums) in y.iter_mut().zip(&work.sums) {
                *y += total(*sums);
            }
            Ok(())
        })
    }
}

/// An outlier takes 32 bits unpacked, and some 14 where its position and magnitude are coded.
const UNPACKED_OVER_STORED: f64 = 2.4;

impl Workspace {
    fn add<'x>(
        &mut self,
        tile: &Tile,
        opened: &Opened<'_>,
        group: usize,
        tokens: usize,
        inputs: impl Fn(usize) -> &'x [f32],
    ) -> Result<()> {
        let (rows, cols) = (tile.rows as usize, tile.cols as usize);
        let (words, groups) = (group.div_ceil(WORD), cols.div_ceil(group));
        self.levels.clear();
        let means_and_scales = opened.scales.iter().zip(&opened.means);
        self.levels.extend(means_and_scales.map(|(&scale, &mean)| opened.exponent.levels(scale, mean)));
        self.inputs.clear();
        self.totals.clear();
        for token in 0..tokens {
            for inputs in inputs(token).chunks(group) {
                let first = self.inputs.len();
                self.inputs.resize(first + words, [0.0; WORD]);
                self.inputs[first..].as_flattened_mut()[..inputs.len()].copy_from_slice(inputs);
                let mut sums = [0.0; LANES];
                for inputs in self.inputs[first..].as_flattened().chunks(LANES) {
                    sums.iter_mut().zip(inputs).for_each(|(sum, x)| *sum += x);
                }
                self.totals.push(sums);
            }
        }
        for token in 0..tokens {
            dispatch(AddTile {
                plane: opened.plane,
                cols,
                group,
                words,
                levels: &self.levels,
                inputs: &self.inputs[token * groups * words..][..groups * words],
                totals: &self.totals[token * groups..][..groups],
                sums: &mut self.sums[token * rows..][..rows],
            });
        }
        let Workspace { levels, sums, positions, values, .. } = self;
        opened.outliers(positions, values)?;
        let mut rest = (&positions[..], &values[..]);
        for (row, levels) in levels.chunks(groups.max(1)).enumerate().take(rows) {
            let (first, end) = (row * cols, (row + 1) * cols);
            let (here, behind) =
                rest.0.split_at(rest.0.partition_point(|&position| (position as usize) < end));
            let (values, values_behind) = rest.1.split_at(here.len());
            rest = (behind, values_behind);
            for token in 0..tokens {
                let outliers = OfRow { first, positions: here, values, inputs: inputs(token) };
                // Where a row is one group, no column has to be divided.
                let moved = match levels {
                    [level] => outliers.moved(|_| level),
                    _ => outliers.moved(|col| &levels[col / group]),
                };
                sums[token * rows + row].iter_mut().zip(moved).for_each(|(sum, moved)| *sum += moved);
            }
        }
        Ok(())
    }
}

/// The outliers of a row.
struct OfRow<'a> {
    /// Position of its first column.
    first: usize,
    positions: &'a [u32],
    values: &'a [f32],
    inputs: &'a [f32],
}

/// Sums of outliers, so that none waits for the one before.
const TOGETHER: usize = 4;

impl OfRow<'_> {
    /// What products with the values are more than those with the levels that stand in the plane in their place.
    #[inline(always)]
    fn moved<'l>(&self, levels: impl Fn(usize) -> &'l [f32; 2]) -> [f32; TOGETHER] {
        let mut sums = [0.0; TOGETHER];
        let product = |position: u32, value: f32| {
            let col = position as usize - self.first;
            // Its bit is that of its sign.
            let level = levels(col)[usize::from(value.is_sign_positive())];
            let x = self.inputs[col];
            value * x - level * x
        };
        let (positions, last_positions) = self.positions.as_chunks::<TOGETHER>();
        let (values, last_values) = self.values.as_chunks::<TOGETHER>();
        for (positions, values) in positions.iter().zip(values) {
            for ((sum, &position), &value) in sums.iter_mut().zip(positions).zip(values) {
                *sum += product(position, value);
            }
        }
        for ((sum, &position), &value) in sums.iter_mut().zip(last_positions).zip(last_values) {
            *sum += product(position, value);
        }
        sums
    }
}

/// Adds the products of all levels with the inputs of one token to sums of rows.
struct AddTile<'a> {
    plane: &'a [u8],
    cols: usize,
    group: usize,
    /// Of a group.
    words: usize,
    levels: &'a [[f32; 2]],
    inputs: &'a [[f32; WORD]],
    totals: &'a [Sums],
    sums: &'a mut [Sums],
}

impl Work for AddTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let AddTile { plane, cols, group, words, levels, inputs, totals, sums } = self;
        let mut levels = levels.iter();
        for (row, sums) in sums.iter_mut().enumerate() {
            let mut sum = lanes.load(sums);
            for (g, (inputs, total)) in inputs.chunks(words).zip(totals).enumerate() {
                let Some(&[low, high]) = levels.next() else { return };
                let mut ones = [lanes.splat(0.0); 2];
                let mut at = row * cols + g * group;
                for inputs in inputs {
                    // What lies behind the group meets zeros.
                    let bits = window(plane, at) as u32;
                    let [a, b] = halves(inputs).map(|inputs| lanes.load(inputs));
                    ones = [lanes.add_where(ones[0], bits, a), lanes.add_where(ones[1], bits >> LANES, b)];
                    at += WORD;
                }
                // Half the difference, and twice the sum: the difference may be larger than the largest number.
                let ones = lanes.add(ones[0], ones[1]);
                let above = lanes.mul(lanes.splat(0.5 * high - 0.5 * low), lanes.add(ones, ones));
                sum = lanes.add(sum, lanes.add(above, lanes.mul(lanes.splat(low), lanes.load(total))));
            }
            *sums = lanes.store(sum);
        }
    }
}
