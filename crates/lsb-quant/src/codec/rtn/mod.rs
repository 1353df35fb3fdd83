//! `rtn`: integers of 2 to 8 bits in groups, each weight rounded to the nearest level.
//!
//! What every other tool's integer formats are measured by. The range of each group is searched for least
//! squared error instead of taken from its largest weight. Symmetric groups have half-integer levels
//! `(q - (2^b - 1) / 2) * scale`, so that no level is spent on one side only; the others have an
//! integer zero point, `(q - zero) * scale`.
//!
//! Tile, little-endian (`n` weights, `g` groups row by row, scales multiplied by `2^exponent`):
//!
//! ```text
//! i16 exponent   f16 scale [g]   b-bit zero [g] unless symmetric, packed   b-bit q [n], packed
//! ```

mod encode;

use super::payload::Payload;
use super::raw::{no_side, only_part};
use crate::scale::{TileExponent, read_halves};
use crate::{
    CodecEntry, Estimate, Group, MatrixInfo, ParameterHelp, Parameters, PerTile, Quantizer, Result,
    Statistics, TensorDecoder, TensorEncoder,
};
use lsb_format::{Tile, bits};
use std::sync::Arc;

const ID: &str = "rtn";

/// Round to nearest, with the range of every group searched for least squared error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundToNearest {
    /// Bits per weight, 2 to 8.
    pub bits: u32,
    /// Which weights share a scale.
    pub group: Group,
    /// Levels symmetric around zero, without a zero point.
    pub symmetric: bool,
}

impl Default for RoundToNearest {
    fn default() -> Self {
        RoundToNearest { bits: 4, group: Group::Columns(128), symmetric: false }
    }
}

const PARAMETERS: &[ParameterHelp] = &[
    ParameterHelp { name: "bits", values: "4 (2 to 8)", summary: "bits per weight" },
    ParameterHelp {
        name: "group",
        values: "128 (8 to 65536, or row)",
        summary: "columns that share a scale",
    },
    ParameterHelp {
        name: "symmetric",
        values: "false",
        summary: "levels symmetric around zero, without a zero point",
    },
];

const LADDER: &[&str] = &["bits=2", "bits=3", "bits=4", "bits=5", "bits=6", "bits=7", "bits=8"];

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new(ID, "integers of 2 to 8 bits in groups, rounded to nearest", |p| {
        Ok(Arc::new(RoundToNearest::from_parameters(p)?))
    })
    .with_parameters(PARAMETERS)
    .with_ladder(LADDER)
}

impl RoundToNearest {
    /// The configuration with these parameters; absent ones have their defaults.
    ///
    /// # Errors
    /// If a parameter is unknown or out of range.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let d = Self::default();
        let mut r = parameters.reader(ID);
        let out = RoundToNearest {
            bits: r.integer("bits", d.bits.into(), 2, 8)? as u32,
            group: Group::read(&mut r, ID, d.group)?,
            symmetric: r.flag("symmetric", d.symmetric)?,
        };
        r.finish()?;
        Ok(out)
    }
}

/// Error of unit Gaussian weights in groups of 128 at 2 to 8 bits, in dB; measured.
const GAUSSIAN_SNR_DB: [f64; 7] = [9.3, 14.6, 20.2, 25.9, 31.8, 37.7, 43.7];

impl Quantizer for RoundToNearest {
    fn id(&self) -> &str {
        ID
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
            .with("bits", self.bits)
            .with("group", self.group.value())
            .with("symmetric", self.symmetric)
    }

    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        super::float_only(ID, matrix).ok()?;
        let tiling = self.tiling(matrix).ok()?;
        let groups = self.group.in_matrix(matrix.rows, matrix.cols, tiling.tile_cols());
        let per_group = 16.0 + if self.symmetric { 0.0 } else { f64::from(self.bits) };
        let bits = matrix.weights() as f64 * f64::from(self.bits) + groups * per_group;
        Some(Estimate {
            bytes: bits / 8.0 + 3.0 * tiling.len() as f64,
            snr_db: GAUSSIAN_SNR_DB[self.bits as usize - 2],
        })
    }

    fn encoder(&self, matrix: &MatrixInfo, _statistics: &Statistics) -> Result<Box<dyn TensorEncoder>> {
        super::float_only(ID, matrix)?;
        Ok(Box::new(PerTile::new(encode::Encoder { codec: *self, dtype: matrix.dtype })))
    }

    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>> {
        super::float_only(ID, matrix)?;
        no_side(side)?;
        Ok(Box::new(Decoder { codec: *self }))
    }

    fn finer(&self) -> Option<Arc<dyn Quantizer>> {
        (self.bits < 8)
            .then(|| Arc::new(RoundToNearest { bits: self.bits + 1, ..*self }) as Arc<dyn Quantizer>)
    }
}

#[derive(Debug)]
struct Decoder {
    codec: RoundToNearest,
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let (b, groups) = (self.codec.bits, self.codec.group.in_tile(tile));
        let mut payload = Payload::new(only_part(parts)?);
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let scales = read_halves("scale", payload.take("scales", 2 * groups)?, false)?;
        let middle = ((1u32 << b) - 1) as f32 / 2.0;
        let zeros = if self.codec.symmetric {
            vec![middle; groups]
        } else {
            let mut zeros = vec![0u8; groups];
            bits::unpack_bytes(payload.take("zero points", bits::packed_len(b, groups))?, b, &mut zeros)?;
            zeros.into_iter().map(f32::from).collect()
        };
        let mut codes = vec![0u8; out.len()];
        bits::unpack_bytes(payload.rest(), b, &mut codes)?;

        let [up, down] = exponent.multiply();
        let cols = tile.cols as usize;
        let width = self.codec.group.width(cols);
        let mut levels = scales.iter().zip(&zeros);
        for (row, codes) in out.chunks_mut(cols.max(1)).zip(codes.chunks(cols.max(1))) {
            for (values, codes) in row.chunks_mut(width).zip(codes.chunks(width)) {
                let Some((&scale, &zero)) = levels.next() else { break };
                for (v, &q) in values.iter_mut().zip(codes) {
                    // At most 9 by 11 significant bits: exact in f32.
                    *v = ((f32::from(q) - zero) * scale * up * down).clamp(f32::MIN, f32::MAX);
                }
            }
        }
        Ok(())
    }
}
