//! Decoding one tile. This is the specification of the format.

use super::machine::Machine;
use super::tile::{self, Size};
use super::{CODED, CONSTANT};
use crate::codec::payload::Payload;
use crate::codec::raw::only_part;
use crate::scale::TileExponent;
use crate::{Result, TensorDecoder};
use lsb_format::{Error, Tile};

#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) machine: Machine,
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let mut payload = Payload::new(only_part(parts)?);
        match payload.array("kind")? {
            [CONSTANT] => {
                let value = finite("value", payload.array("value")?)?;
                payload.finish()?;
                out.fill(value);
                Ok(())
            }
            [CODED] => {
                let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
                let step = finite("step", payload.array("step")?)?;
                let size = Size { rows: tile.rows as usize, cols: tile.cols as usize };
                let levels = tile::decode(payload, size, self.machine)?;
                for ((row, first, width), levels) in size.each_step().zip(&levels) {
                    let weights = &mut out[row * size.cols + first..][..width];
                    for (w, &level) in weights.iter_mut().zip(levels) {
                        *w = level as f32 * step;
                    }
                }
                exponent.multiply_all(out);
                Ok(())
            }
            [kind] => Err(Error::corruption("P30", format!("a tile of kind {kind}: 0 and 1 exist")).into()),
        }
    }
}

fn finite(what: &str, bytes: [u8; 4]) -> Result<f32> {
    let x = f32::from_le_bytes(bytes);
    if x.is_finite() {
        return Ok(x);
    }
    Err(Error::corruption("P32", format!("a {what} of {x}")).into())
}
