//! Decoding one tile. This is the specification of the format.

use super::machine::Machine;
use super::products::Products;
use super::scales::Side;
use super::tile::{self, CodedTile, Scratch, Sink, Size};
use super::{CONSTANT, RESTARTING, RUNNING_ON};
use crate::codec::payload::Payload;
use crate::codec::raw::only_part;
use crate::lanes::{Lanes, Work, dispatch, halves};
use crate::scale::TileExponent;
use crate::unpacked::{Apart, Unpacking};
use crate::{Activations, MatrixInfo, Packing, Result, TensorDecoder, TileProducts, UnpackedTile};
use lsb_format::entropy::LANES;
use lsb_format::{Error, Tile};
use std::cell::RefCell;

#[derive(Debug)]
pub(super) struct Decoder {
    machine: Machine,
    /// A factor for every column and every row; empty where all are 1.
    cols: Vec<f32>,
    rows: Vec<f32>,
}

impl Decoder {
    /// A decoder with the scales in `side`.
    ///
    /// # Errors
    /// If they are damaged.
    pub(super) fn new(machine: Machine, side: &[u8], matrix: &MatrixInfo) -> Result<Self> {
        let Side { cols, rows } = Side::read(side, matrix)?;
        let factors = |scales: Option<super::scales::Scales>| scales.map_or_else(Vec::new, |s| s.factors());
        Ok(Decoder { machine, cols: factors(cols), rows: factors(rows) })
    }
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        match Opened::new(self, tile, parts)? {
            Opened::Constant(value) => {
                out.fill(value);
                Ok(())
            }
            Opened::Levels(scales, payload) => WORKSPACE.with_borrow_mut(|Workspace { scratch, .. }| {
                let mut dense = Dense { scales: &scales, out };
                tile::decode([scales.coded(payload)], self.machine, scratch, &mut dense)
            }),
        }
    }

    fn products(&self) -> Option<&dyn TileProducts> {
        Some(self)
    }
}

impl TileProducts for Decoder {
    fn add_products(&self, tiles: &[(Tile, &[&[u8]])], x: &Activations<'_>, y: &mut [f32]) -> Result<()> {
        WORKSPACE.with_borrow_mut(|Workspace { scratch, products, .. }| {
            for pair in tiles.chunks(2) {
                let Some((first, _)) = pair.first() else { continue };
                products.begin(x.tokens(), first.rows as usize);
                let mut coded = [const { None }; 2];
                let mut factors = &[][..];
                let mut slots = coded.iter_mut();
                for (tile, parts) in pair {
                    let inputs = |token: usize| &x.token(token)[tile.col as usize..][..tile.cols as usize];
                    match Opened::new(self, tile, parts)? {
                        Opened::Constant(value) => products.add_constant(value, inputs, y),
                        Opened::Levels(scales, payload) => {
                            factors = scales.rows;
                            products.add_tile(&scales.steps, scales.powers, inputs);
                            if let Some(slot) = slots.next() {
                                *slot = Some(scales.coded(payload));
                            }
                        }
                    }
                }
                tile::decode(coded.into_iter().flatten(), self.machine, scratch, products)?;
                products.end(factors, y);
            }
            Ok(())
        })
    }

    fn unpack(&self, tiles: &[(Tile, &[&[u8]])], packing: Packing) -> Result<Vec<UnpackedTile>> {
        let mut out = Vec::with_capacity(tiles.len());
        for pair in tiles.chunks(2) {
            let (mut unpacked, mut scales, mut coded) = (Vec::new(), Vec::new(), Vec::new());
            for (tile, parts) in pair {
                unpacked.push(match Opened::new(self, tile, parts)? {
                    Opened::Constant(value) => {
                        Some(UnpackedTile::constant(tile.rows as usize, tile.cols as usize, value))
                    }
                    Opened::Levels(tile_scales, payload) => {
                        coded.push(tile_scales.coded(payload));
                        scales.push(tile_scales);
                        None
                    }
                });
            }
            WORKSPACE.with_borrow_mut(|Workspace { scratch, plain, .. }| {
                plain.0.iter_mut().for_each(PlainTile::clear);
                tile::decode(coded, self.machine, scratch, plain)?;
                let mut levels =
                    scales.iter().zip(&mut plain.0).map(|(scales, plain)| plain.unpack(scales, packing));
                out.extend(unpacked.into_iter().filter_map(|tile| tile.or_else(|| levels.next())));
                Ok::<_, crate::Error>(())
            })?;
        }
        Ok(out)
    }

    fn unpacked_bits(&self, stored: f64) -> Option<f64> {
        let bits = UNPACKED_BITS.iter().find(|(most, _)| stored <= *most).map_or(8.0, |(_, bits)| *bits);
        Some(bits + BESIDE_BITS)
    }
}

/// How many bits a level takes unpacked where a weight takes so many stored: the bits of levels of a normal distribution, of
/// which all but a few fit. More than the last take eight.
const UNPACKED_BITS: [(f64, f64); 4] = [(1.2, 3.0), (2.3, 4.0), (3.2, 5.0), (4.2, 6.0)];

/// Bits per weight of steps and of levels that lie apart.
const BESIDE_BITS: f64 = 0.3;

/// Levels of two tiles as they come.
#[derive(Default)]
struct Plain([PlainTile; 2]);

#[derive(Default)]
struct PlainTile {
    /// Group by group, in each row by row.
    levels: Vec<[i16; LANES]>,
    escapes: Vec<Apart>,
}

impl PlainTile {
    fn clear(&mut self) {
        self.levels.clear();
        self.escapes.clear();
    }

    fn unpack(&mut self, scales: &TileScales<'_>, packing: Packing) -> UnpackedTile {
        let TileScales { steps, rows: factors, powers, size, .. } = scales;
        let (rows, powers, apart) = (size.rows, *powers, std::mem::take(&mut self.escapes));
        let levels = &mut self.levels;
        UnpackedTile::new(Unpacking { rows, steps, factors, powers, levels, apart, packing })
    }
}

impl Sink for Plain {
    fn group(&mut self, tile: usize, _: usize, levels: &[[i16; LANES]]) {
        self.0[tile].levels.extend_from_slice(levels);
    }

    fn escape(&mut self, tile: usize, row: usize, col: usize, level: i32) {
        self.0[tile].escapes.push(Apart { row: row as u32, col: col as u32, level });
    }
}

/// The head of a tile.
enum Opened<'d, 'p> {
    /// All weights are this.
    Constant(f32),
    /// Levels, what they are multiplied by, and what is left of the payload.
    Levels(TileScales<'d>, Payload<'p>),
}

impl<'d, 'p> Opened<'d, 'p> {
    fn new(decoder: &'d Decoder, tile: &Tile, parts: &[&'p [u8]]) -> Result<Self> {
        let mut payload = Payload::new(only_part(parts)?);
        let [kind] = payload.array("kind")?;
        match kind {
            CONSTANT => {
                let value = finite("value", payload.array("value")?)?;
                payload.finish()?;
                Ok(Opened::Constant(value))
            }
            RUNNING_ON | RESTARTING => {
                let scales = TileScales::read(&mut payload, kind, decoder, tile)?;
                Ok(Opened::Levels(scales, payload))
            }
            _ => {
                let message = format!("a tile of kind {kind}, where {RESTARTING} is the last");
                Err(Error::corruption("P30", message).into())
            }
        }
    }
}

/// What decoding needs besides a tile, to be used for the next one.
#[derive(Default)]
struct Workspace {
    scratch: [Scratch; 2],
    products: Products,
    plain: Plain,
}

thread_local! {
    /// About 1 MB for each thread that decodes.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// What levels of a tile are multiplied by.
#[derive(Debug)]
struct TileScales<'d> {
    size: Size,
    restarts: bool,
    /// The step of each column.
    steps: Vec<f32>,
    /// The factor of each row; empty where all are 1.
    rows: &'d [f32],
    /// A power of two in two factors.
    powers: [f32; 2],
}

impl<'d> TileScales<'d> {
    /// Reads the head of a tile of levels of that kind.
    fn read(payload: &mut Payload<'_>, kind: u8, decoder: &'d Decoder, tile: &Tile) -> Result<Self> {
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let step = finite("step", payload.array("step")?)?;
        let size = Size { rows: tile.rows as usize, cols: tile.cols as usize };
        let steps = (0..size.cols).map(|c| column_step(step, &decoder.cols, tile.col as usize + c)).collect();
        let rows = decoder.rows.get(tile.row as usize..).unwrap_or_default();
        Ok(TileScales { size, restarts: kind == RESTARTING, steps, rows, powers: exponent.multiply() })
    }

    fn coded<'p>(&self, payload: Payload<'p>) -> CodedTile<'p> {
        CodedTile { payload, size: self.size, restarts: self.restarts }
    }

    fn row(&self, row: usize) -> f32 {
        self.rows.get(row).copied().unwrap_or(1.0)
    }

    #[inline(always)]
    fn weight(&self, level: i32, step: f32, factor: f32) -> f32 {
        let [a, b] = self.powers;
        (weight(level, step, factor) * a * b).clamp(f32::MIN, f32::MAX)
    }
}

/// Weights in rows.
struct Dense<'a> {
    scales: &'a TileScales<'a>,
    out: &'a mut [f32],
}

/// Writes a group of 32 columns, all of them there, by rows.
struct Fill<'a> {
    levels: &'a [[i16; LANES]],
    steps: &'a [f32; LANES],
    scales: &'a TileScales<'a>,
    /// From the first column of the group on.
    out: &'a mut [f32],
}

impl Work for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let steps = halves(self.steps).map(|steps| lanes.load(steps));
        let [a, b] = self.scales.powers.map(|power| lanes.splat(power));
        let [least, most] = [f32::MIN, f32::MAX].map(|limit| lanes.splat(limit));
        let rows = self.out.chunks_mut(self.scales.size.cols).zip(self.levels);
        for (row, (out, levels)) in rows.enumerate() {
            let Some(out) = out.first_chunk_mut::<LANES>() else { return };
            let factor = lanes.splat(self.scales.row(row));
            let (out, _) = out.as_chunks_mut();
            for ((out, levels), step) in out.iter_mut().zip(halves(levels)).zip(steps) {
                let weights = lanes.mul(lanes.mul(lanes.integers(levels), step), factor);
                let weights = lanes.mul(lanes.mul(weights, a), b);
                *out = lanes.store(lanes.min(lanes.max(weights, least), most));
            }
        }
    }
}

impl Sink for Dense<'_> {
    fn group(&mut self, _: usize, first: usize, levels: &[[i16; LANES]]) {
        let Dense { scales, out } = self;
        let steps = &scales.steps[first..];
        match steps.first_chunk() {
            Some(steps) => dispatch(Fill { levels, steps, scales, out: &mut out[first..] }),
            None => {
                for (row, levels) in levels.iter().enumerate() {
                    let factor = scales.row(row);
                    let out = &mut out[row * scales.size.cols + first..];
                    for ((w, &level), &step) in out.iter_mut().zip(levels).zip(steps) {
                        *w = scales.weight(level.into(), step, factor);
                    }
                }
            }
        }
    }

    fn escape(&mut self, _: usize, row: usize, col: usize, level: i32) {
        let step = self.scales.steps[col];
        self.out[row * self.scales.size.cols + col] = self.scales.weight(level, step, self.scales.row(row));
    }
}

/// The step of a column.
pub(super) fn column_step(step: f32, factors: &[f32], col: usize) -> f32 {
    (step * factors.get(col).copied().unwrap_or(1.0)).clamp(f32::MIN, f32::MAX)
}

/// The weight a level stands for in a column with this step and a row with this factor.
#[inline(always)]
pub(super) fn weight(level: i32, step: f32, factor: f32) -> f32 {
    level as f32 * step * factor
}

fn finite(what: &str, bytes: [u8; 4]) -> Result<f32> {
    let x = f32::from_le_bytes(bytes);
    if x.is_finite() {
        return Ok(x);
    }
    Err(Error::corruption("P32", format!("a {what} of {x}")).into())
}
