//! `residual-binary`: one to eight planes of one bit per weight, each refining those before.
//!
//! A weight is `sum of ±alpha_p` over the planes `p`, with one alpha per group and plane. The first planes alone
//! are a coarser tensor: every plane is a part of its own, so a reader may stop after any of them.
//!
//! Planes start as looped passes over the residual and are then refined together: signs by the nearest of the
//! `2^k` levels, alphas by least squares, in turn (the alternating minimisation of arXiv 1802.00150).
//! Alphas refined together are not those a reader of fewer planes would choose; each part therefore carries a
//! factor by which the sum of the planes so far is multiplied when reading stops there.
//!
//! Tile, little-endian (`n` weights, `g` groups row by row, alphas multiplied by `2^exponent`), part by part:
//!
//! ```text
//! i16 exponent (first part only)   f16 factor   f16 alpha [g]   sign plane, ceil(n / 8) bytes
//! ```

mod encode;
mod fit;

use super::payload::Payload;
use super::raw::no_side;
use super::signs;
use crate::scale::{TileExponent, read_halves};
use crate::{
    CodecEntry, Estimate, Group, MatrixInfo, ParameterHelp, Parameters, PerTile, Quantizer, Result,
    Statistics, TensorDecoder, TensorEncoder,
};
use lsb_format::{Error, Tile, Tiling, bits};
use std::sync::Arc;

const ID: &str = "residual-binary";

/// Looped one-bit passes over the residual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResidualBinary {
    /// Planes, 1 to 8.
    pub planes: u8,
    /// Which weights share their alphas.
    pub group: Group,
    /// Refine all planes together instead of leaving them as the passes made them.
    pub error_compensation: bool,
}

impl Default for ResidualBinary {
    fn default() -> Self {
        ResidualBinary { planes: 3, group: Group::Row, error_compensation: true }
    }
}

const PARAMETERS: &[ParameterHelp] = &[
    ParameterHelp { name: "planes", values: "3 (1 to 8)", summary: "bits per weight" },
    ParameterHelp {
        name: "group",
        values: "row (or 8 to 65536)",
        summary: "columns that share their scales",
    },
    ParameterHelp {
        name: "error_compensation",
        values: "true",
        summary: "refine all planes together instead of one after the other",
    },
];

const LADDER: &[&str] =
    &["planes=1", "planes=2", "planes=3", "planes=4", "planes=5", "planes=6", "planes=7", "planes=8"];

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new(ID, "planes of one bit, each refining the ones before", |p| {
        Ok(Arc::new(ResidualBinary::from_parameters(p)?))
    })
    .with_parameters(PARAMETERS)
    .with_ladder(LADDER)
}

impl ResidualBinary {
    /// The configuration with these parameters; absent ones have their defaults.
    ///
    /// # Errors
    /// If a parameter is unknown or out of range.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let d = Self::default();
        let mut r = parameters.reader(ID);
        let out = ResidualBinary {
            planes: r.integer("planes", d.planes.into(), 1, 8)? as u8,
            group: Group::read(&mut r, ID, d.group)?,
            error_compensation: r.flag("error_compensation", d.error_compensation)?,
        };
        r.finish()?;
        Ok(out)
    }
}

/// Error of unit Gaussian weights in rows of 4096 with 1 to 8 planes, in dB; measured.
const GAUSSIAN_SNR_DB: [f64; 8] = [4.40, 9.30, 14.3, 19.4, 24.0, 28.6, 33.5, 38.0];

impl Quantizer for ResidualBinary {
    fn id(&self) -> &str {
        ID
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
            .with("planes", self.planes)
            .with("group", self.group.value())
            .with("error_compensation", self.error_compensation)
    }

    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        super::float_only(ID, matrix).ok()?;
        let tiling = self.tiling(matrix).ok()?;
        let groups = self.group.in_matrix(matrix.rows, matrix.cols, tiling.tile_cols());
        let plane = matrix.weights() as f64 / 8.0 + 2.0 * groups + 3.0 * tiling.len() as f64;
        Some(Estimate {
            bytes: plane * f64::from(self.planes) + 2.0 * tiling.len() as f64,
            snr_db: GAUSSIAN_SNR_DB[usize::from(self.planes) - 1],
        })
    }

    fn tiling(&self, matrix: &MatrixInfo) -> Result<Tiling> {
        Ok(Tiling::standard(matrix.rows, matrix.cols)?.with_parts(self.planes)?)
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
        (self.planes < 8)
            .then(|| Arc::new(ResidualBinary { planes: self.planes + 1, ..*self }) as Arc<dyn Quantizer>)
    }
}

#[derive(Debug)]
struct Decoder {
    codec: ResidualBinary,
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        if parts.is_empty() || parts.len() > usize::from(self.codec.planes) {
            let message = format!("{} planes, not 1 to {}", parts.len(), self.codec.planes);
            return Err(Error::corruption("P30", message).into());
        }
        let cols = (tile.cols as usize).max(1);
        let width = self.codec.group.width(cols);
        let groups = self.codec.group.in_tile(tile);
        let mut exponent = TileExponent::of_magnitude(0);
        let mut factor = 1.0;
        out.fill(0.0);
        for (p, part) in parts.iter().enumerate() {
            let mut payload = Payload::new(part);
            if p == 0 {
                exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
            }
            factor = read_halves("factor", payload.take("factor", 2)?, false)?[0];
            let alphas = read_halves("alpha", payload.take("alphas", 2 * groups)?, false)?;
            let plane = payload.rest();
            bits::check_len(plane, 1, out.len())?;
            let mut alphas = alphas.into_iter();
            for (r, row) in out.chunks_mut(cols).enumerate() {
                for (g, values) in row.chunks_mut(width).enumerate() {
                    let Some(alpha) = alphas.next() else { break };
                    signs::add_signed(plane, r * cols + g * width, alpha, values);
                }
            }
        }
        // Sums of eight halves have at most 11 + 3 + their spread of bits; the products below round once.
        let [up, down] = exponent.multiply();
        for v in out {
            *v = (*v * factor * up * down).clamp(f32::MIN, f32::MAX);
        }
        Ok(())
    }
}
