//! Products with signs as they lie in the plane; outliers are put right after it.

use super::decode::{Decoder, Opened};
use crate::Result;
use crate::codec::grouped::Groups;
use crate::unpacked::{Activations, Grouped, Rule, Signs, TileLevels, bits_of_groups};
use lsb_format::{Tile, bits};
use std::cell::RefCell;

/// What products of tiles need besides them, to be used for the next ones.
#[derive(Debug, Default)]
struct Workspace {
    /// Lower and upper levels, row by row.
    levels: Vec<[f32; 2]>,
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

    fn multiply(&self, tiles: &[(Tile, &[&[u8]])], x: &Activations<'_>, y: &mut [f32]) -> Result<()> {
        WORKSPACE.with_borrow_mut(|work| {
            for (tile, parts) in tiles {
                let opened = Opened::new(self.group, tile, parts)?;
                work.add(tile, &opened, self.group.width(tile.cols as usize), x, y)?;
            }
            Ok(())
        })
    }
}

/// An outlier takes 32 bits unpacked, and some 14 where its position and magnitude are coded.
const UNPACKED_OVER_STORED: f64 = 2.4;

impl Workspace {
    fn add(
        &mut self,
        tile: &Tile,
        opened: &Opened<'_>,
        group: usize,
        x: &Activations<'_>,
        y: &mut [f32],
    ) -> Result<()> {
        let (rows, cols, first_col) = (tile.rows as usize, tile.cols as usize, tile.col as usize);
        let groups = cols.div_ceil(group);
        let signs = Signs {
            plane: opened.plane,
            rows,
            cols,
            group,
            exponent: opened.exponent,
            scales: &opened.scales,
            middles: &opened.means,
        };
        signs.add_products(x, first_col, y);
        self.levels.clear();
        let means_and_scales = opened.scales.iter().zip(&opened.means);
        self.levels.extend(means_and_scales.map(|(&scale, &mean)| opened.exponent.levels(scale, mean)));
        let Workspace { levels, positions, values } = self;
        opened.outliers(positions, values)?;
        let mut rest = (&positions[..], &values[..]);
        for (row, levels) in levels.chunks(groups.max(1)).enumerate().take(rows) {
            let (first, end) = (row * cols, (row + 1) * cols);
            let (here, behind) =
                rest.0.split_at(rest.0.partition_point(|&position| (position as usize) < end));
            let (values, values_behind) = rest.1.split_at(here.len());
            rest = (behind, values_behind);
            for token in 0..x.tokens() {
                let inputs = &x.token(token)[first_col..][..cols];
                let outliers = OfRow { first, positions: here, values, inputs };
                // Where a row is one group, no column has to be divided.
                let moved = match levels {
                    [level] => outliers.moved(|_| level),
                    _ => outliers.moved(|col| &levels[col / group]),
                };
                y[token * rows + row] += moved.iter().sum::<f32>();
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
