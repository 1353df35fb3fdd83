//! Products for codecs whose groups have a scale: what [`TileProducts`](crate::TileProducts) asks for.

use crate::lanes::{LANES, Lanes, WORD, Work, dispatch, halves, total};
use crate::unpacked::{Activations, Grouped, Packing, TOKENS_TO_DECODE, TileLevels};
use crate::{Result, TileProducts, UnpackedTile};
use lsb_format::{Error, MAX_TILE_WEIGHTS, Tile, Tiling};
use std::ops::Range;

/// A decoder that can tell the levels of its tiles, all of whose products follow from that.
pub(super) trait Groups: Send + Sync {
    /// No rows yet, of tiles of so many columns.
    fn no_rows(&self, cols: usize) -> Grouped;

    /// The levels of a tile.
    ///
    /// # Errors
    /// If the parts are not of a tile of that size.
    fn levels(&self, tile: &Tile, parts: &[&[u8]]) -> Result<TileLevels>;

    /// See [`TileProducts::unpacked_bits`].
    fn bits(&self, stored: f64) -> Option<f64>;

    /// See [`TileProducts::add_products`].
    fn multiply(&self, tiles: &[(Tile, &[&[u8]])], x: &Activations<'_>, y: &mut [f32]) -> Result<()> {
        for (tile, parts) in tiles {
            let (rows, cols) = (tile.rows as usize, tile.cols as usize);
            let levels = self.levels(tile, parts)?;
            let no_rows = self.no_rows(cols);
            for (token, y) in y.chunks_mut(rows.max(1)).enumerate() {
                let x = &x.token(token)[tile.col as usize..][..cols];
                let (group, center) = (no_rows.group(), no_rows.center());
                dispatch(AddTile { levels: &levels, group, center, x, y });
            }
        }
        Ok(())
    }
}

impl<G: Groups> TileProducts for G {
    fn add_products(&self, tiles: &[(Tile, &[&[u8]])], x: &Activations<'_>, y: &mut [f32]) -> Result<()> {
        self.multiply(tiles, x, y)
    }

    fn multiplies(&self, tokens: usize) -> bool {
        self.unpacks() && tokens < TOKENS_TO_DECODE
    }

    fn activation_bytes(&self) -> usize {
        Activations::MOST_BYTES
    }

    fn unpacked_bits(&self, stored: f64) -> Option<f64> {
        self.bits(stored)
    }

    fn unpack(&self, tiles: &[(Tile, &[&[u8]])], packing: Packing) -> Result<Vec<UnpackedTile>> {
        check_unpacks(self)?;
        let one = |(tile, parts): &(Tile, &[&[u8]])| {
            let mut grouped = self.no_rows(tile.cols as usize);
            grouped.push(&self.levels(tile, parts)?, 0..tile.rows as usize);
            Ok(UnpackedTile::of_groups(&grouped, packing))
        };
        tiles.iter().map(one).collect()
    }

    fn unpacked_tiling(&self, tiling: &Tiling, packing: Packing) -> Option<Tiling> {
        let rows = match packing {
            Packing::Narrow => rows_to_keep(tiling),
            Packing::Bytes => rows_of_whole_tiles(tiling),
        };
        (self.unpacks() && tiling.across() == 1)
            .then(|| Tiling::new(tiling.rows(), tiling.cols(), rows, tiling.tile_cols(), 1).ok())?
    }

    fn unpack_rows(
        &self,
        tiles: &[(Tile, &[&[u8]])],
        rows: Range<u64>,
        packing: Packing,
    ) -> Result<UnpackedTile> {
        check_unpacks(self)?;
        let cols = tiles.first().map_or(0, |(tile, _)| tile.cols);
        let mut grouped = self.no_rows(cols as usize);
        for (tile, parts) in tiles {
            let here = rows.start.max(tile.row)..rows.end.min(tile.row + tile.rows);
            if !here.is_empty() {
                let here = (here.start - tile.row) as usize..(here.end - tile.row) as usize;
                grouped.push(&self.levels(tile, parts)?, here);
            }
        }
        let unpacked = UnpackedTile::of_groups(&grouped, packing);
        assert_eq!(unpacked.rows() as u64, rows.end - rows.start);
        Ok(unpacked)
    }
}

fn check_unpacks(products: &impl TileProducts) -> Result<()> {
    if products.unpacks() {
        return Ok(());
    }
    Err(Error::argument("groups of this size, or rows as wide as these, are not unpacked").into())
}

/// Rows of an unpacked tile are a multiple of this.
const PANEL_ROWS: u64 = 16;

/// Unpacked tiles of a matrix at least, where it has the rows for them, so that all threads have some.
const TILES: u64 = 16;

/// Rows that are unpacked as one, to stay.
fn rows_to_keep(tiling: &Tiling) -> u64 {
    let most = (MAX_TILE_WEIGHTS / tiling.cols().max(1)).max(PANEL_ROWS);
    let rows = tiling.rows().div_ceil(TILES).clamp(1, most);
    // Down to whole panels, but one of them at least.
    (rows / PANEL_ROWS).max(1) * PANEL_ROWS
}

/// Tiles that are unpacked as one at most, for one product.
const MOST_TILES: u64 = 8;

/// Rows of as few tiles as make up whole panels, or nearly so.
fn rows_of_whole_tiles(tiling: &Tiling) -> u64 {
    let rows = tiling.tile_rows().min(tiling.rows()).max(1);
    let missing = |tiles: u64| (tiles * rows).next_multiple_of(PANEL_ROWS) - tiles * rows;
    let few_missing = |tiles: &u64| 8 * missing(*tiles) <= tiles * rows;
    rows * (1..=MOST_TILES).find(few_missing).unwrap_or(MOST_TILES)
}

/// Adds to sums of rows the products of a tile with the inputs of one token.
struct AddTile<'a> {
    levels: &'a TileLevels,
    /// Columns of a group.
    group: usize,
    /// What is taken off a stored level.
    center: u8,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Work for AddTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let AddTile { levels: tile, group, center, x, y } = self;
        let ([a, b], center) = (tile.exponent.multiply(), f32::from(center));
        let mut sums_of_inputs = Vec::with_capacity(x.len().div_ceil(group));
        for x in x.chunks(group) {
            let mut sums = [0.0; LANES];
            for x in x.chunks(LANES) {
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            }
            sums_of_inputs.push(total(sums));
        }
        let groups = sums_of_inputs.len().max(1);
        let scales = tile.scales.chunks(groups).zip(tile.middles.chunks(groups));
        let rows = y.iter_mut().zip(tile.stored.chunks(x.len().max(1)));
        for ((y, stored), (scales, middles)) in rows.zip(scales) {
            let mut sum = 0.0;
            let groups = stored.chunks(group).zip(x.chunks(group)).zip(scales.iter().zip(middles));
            for (((stored, x), (scale, middle)), sum_of_inputs) in groups.zip(&sums_of_inputs) {
                let (stored, stored_rest) = stored.as_chunks::<WORD>();
                let (x, x_rest) = x.as_chunks::<WORD>();
                let mut sums = [lanes.splat(0.0); 2];
                for (stored, x) in stored.iter().zip(x) {
                    let x = halves(x).map(|x| lanes.load(x));
                    for (i, stored) in halves(stored).into_iter().enumerate() {
                        let mut levels = [0.0; LANES];
                        for (level, stored) in levels.iter_mut().zip(stored) {
                            *level = f32::from(*stored) - center;
                        }
                        sums[i] = lanes.add(sums[i], lanes.mul(lanes.load(&levels), x[i]));
                    }
                }
                let mut rest = 0.0;
                for (stored, x) in stored_rest.iter().zip(x_rest) {
                    rest += (f32::from(*stored) - center) * x;
                }
                let levels = total(lanes.store(lanes.add(sums[0], sums[1]))) + rest;
                sum += scale * (levels - middle * sum_of_inputs);
            }
            *y += sum * a * b;
        }
    }
}
