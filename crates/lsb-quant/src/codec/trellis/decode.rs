//! Decoding one tile. This is the specification of the format.

use super::machine::Machine;
use super::scales::Side;
use super::tile::{self, Scratch, Size};
use super::{CONSTANT, RESTARTING, RUNNING_ON};
use crate::codec::payload::Payload;
use crate::codec::raw::only_part;
use crate::scale::TileExponent;
use crate::{MatrixInfo, Result, TensorDecoder};
use lsb_format::entropy::LANES;
use lsb_format::{Error, Tile};
use pulp::Arch;
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
        let mut payload = Payload::new(only_part(parts)?);
        let [kind] = payload.array("kind")?;
        match kind {
            CONSTANT => {
                let value = finite("value", payload.array("value")?)?;
                payload.finish()?;
                out.fill(value);
                return Ok(());
            }
            RUNNING_ON | RESTARTING => {}
            _ => {
                let message = format!("a tile of kind {kind}, where {RESTARTING} is the last");
                return Err(Error::corruption("P30", message).into());
            }
        }
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let step = finite("step", payload.array("step")?)?;
        let size = Size { rows: tile.rows as usize, cols: tile.cols as usize };
        let steps: Vec<f32> =
            (0..size.cols).map(|c| column_step(step, &self.cols, tile.col as usize + c)).collect();
        let rows = self.rows.get(tile.row as usize..).unwrap_or_default();
        SCRATCH.with_borrow_mut(|scratch| {
            let levels = tile::decode(payload, size, self.machine, kind == RESTARTING, scratch)?;
            let powers = exponent.multiply();
            Arch::new().dispatch(|| to_weights(levels, size, &steps, rows, powers, out));
            Ok(())
        })
    }
}

thread_local! {
    /// About 2 MB for each thread that decodes.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Turns levels in the order of the lanes into weights in rows. A compiler that may use wider vectors makes the same of it.
#[inline(always)]
fn to_weights(
    levels: &[[i32; LANES]],
    size: Size,
    steps: &[f32],
    rows: &[f32],
    powers: [f32; 2],
    out: &mut [f32],
) {
    let [a, b] = powers;
    let scaled =
        |level: i32, step: f32, factor: f32| (weight(level, step, factor) * a * b).clamp(f32::MIN, f32::MAX);
    for ((row, first, width), levels) in size.each_step().zip(levels) {
        let factor = rows.get(row).copied().unwrap_or(1.0);
        let (out, steps) = (&mut out[row * size.cols + first..][..width], &steps[first..][..width]);
        match (out.first_chunk_mut::<LANES>(), steps.first_chunk::<LANES>()) {
            (Some(out), Some(steps)) => {
                for lane in 0..LANES {
                    out[lane] = scaled(levels[lane], steps[lane], factor);
                }
            }
            _ => {
                for ((w, &level), &step) in out.iter_mut().zip(levels).zip(steps) {
                    *w = scaled(level, step, factor);
                }
            }
        }
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
