//! Decoding one tile. This is the specification of the format.

use super::machine::Machine;
use super::scales::Side;
use super::tile::{self, Size};
use super::{CONSTANT, RESTARTING, RUNNING_ON};
use crate::codec::payload::Payload;
use crate::codec::raw::only_part;
use crate::scale::TileExponent;
use crate::{MatrixInfo, Result, TensorDecoder};
use lsb_format::{Error, Tile};

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
        let levels = tile::decode(payload, size, self.machine, kind == RESTARTING)?;
        let steps: Vec<f32> =
            (0..size.cols).map(|c| column_step(step, &self.cols, tile.col as usize + c)).collect();
        for ((row, first, width), levels) in size.each_step().zip(&levels) {
            let factor = self.rows.get(tile.row as usize + row).copied().unwrap_or(1.0);
            let weights = &mut out[row * size.cols + first..][..width];
            for ((w, &level), &step) in weights.iter_mut().zip(levels).zip(&steps[first..]) {
                *w = weight(level, step, factor);
            }
        }
        exponent.multiply_all(out);
        Ok(())
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
