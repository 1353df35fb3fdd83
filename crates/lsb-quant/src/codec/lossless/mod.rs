//! `lossless`: floats bit for bit, with the entropy of their exponents taken out.
//!
//! Weights use few of the exponents their type offers: a bf16 matrix costs about 10.6 of its 16 bits. Each
//! element is rotated left by one bit, so that the exponent leads and the sign comes last; the bytes of all
//! elements at the same place form a plane, most significant first; each plane goes through
//! [`lsb_format::entropy::encode_symbols`], which stores what does not shrink. Mantissas stay as they are,
//! and the zero bytes of values that once were narrower cost nothing.
//!
//! Tile: per plane a `u32` length and that many bytes.
//!
//! The idea of coding exponents is that of ZipNN (arXiv 2411.05239) and DFloat11 (arXiv 2504.11651).

mod planes;
#[cfg(test)]
mod tests;

use super::kernel;
use super::raw::{no_side, only_part};
use crate::{
    CodecEntry, EncodedTile, Error, Estimate, Isa, MatrixInfo, Parameters, PerTile, Quantizer, Result,
    Statistics, TensorDecoder, TensorEncoder, TileEncoder, to_f32_into,
};
use lsb_format::entropy::{decode_symbols_with, encode_symbols_saving, symbols_len_bound};
use lsb_format::{DType, Tile};
use std::sync::Arc;

/// A plane is coded where that takes off at least about this share of its bytes, in thousandths. The mantissas of
/// Gaussian bf16 weights would lose 2, and take as long to decode as their exponents, which lose 680.
const WORTH: u32 = 20;

/// Restores every float type bit for bit, NaN payloads included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lossless;

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new("lossless", "exponents entropy-coded, bit for bit the original", |p| {
        p.reader("lossless").finish()?;
        Ok(Arc::new(Lossless))
    })
}

impl Quantizer for Lossless {
    fn id(&self) -> &str {
        "lossless"
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
    }

    /// Bits measured on Gaussian weights rounded to each type.
    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        let bits = match matrix.dtype {
            DType::F64 => 56.3,
            DType::F32 => 26.6,
            DType::F16 => 13.5,
            DType::BF16 => 10.6,
            DType::F8_E4M3 => 6.45,
            DType::F8_E5M2 => 5.5,
            _ => return None,
        };
        Some(Estimate { bytes: matrix.weights() as f64 * bits / 8.0, snr_db: f64::INFINITY })
    }

    fn encoder(&self, matrix: &MatrixInfo, _statistics: &Statistics) -> Result<Box<dyn TensorEncoder>> {
        applies(matrix)?;
        Ok(Box::new(PerTile::new(Encoder { width: width(matrix.dtype) })))
    }

    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>> {
        applies(matrix)?;
        no_side(side)?;
        Ok(Box::new(Decoder { dtype: matrix.dtype }))
    }
}

fn applies(matrix: &MatrixInfo) -> Result<()> {
    if matrix.dtype.is_float() {
        return Ok(());
    }
    let message = format!("{} is not a float type; use raw", matrix.dtype);
    Err(Error::NotApplicable { codec: "lossless".into(), message })
}

/// Bytes of an element.
fn width(dtype: DType) -> usize {
    (dtype.bits() / 8) as usize
}

#[derive(Debug)]
struct Encoder {
    width: usize,
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, _tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let mut plane = vec![0; bytes.len() / self.width];
        for index in 0..self.width {
            planes::take(self.width, index, bytes, &mut plane);
            let at = out.buffer().len();
            out.buffer().extend_from_slice(&[0; 4]);
            encode_symbols_saving(&plane, WORTH, out.buffer());
            let len = (out.buffer().len() - at - 4) as u32;
            out.buffer()[at..at + 4].copy_from_slice(&len.to_le_bytes());
        }
        out.end_part();
        Ok(())
    }
}

#[derive(Debug)]
struct Decoder {
    dtype: DType,
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let mut bytes = vec![0; out.len() * width(self.dtype)];
        self.decode_exact(tile, parts, &mut bytes)?;
        to_f32_into(self.dtype, &bytes, out);
        Ok(())
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn decode_exact(&self, _tile: &Tile, parts: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let bad = |what: &str| lsb_format::Error::corruption("P31", format!("byte planes: {what}"));
        let width = width(self.dtype);
        let n = out.len() / width;
        let mut rest = only_part(parts)?;
        let mut plane = vec![0; n];
        let isa = Isa::chosen();
        for index in 0..width {
            let (len, tail) = rest.split_first_chunk::<4>().ok_or_else(|| bad("cut short"))?;
            let len = u32::from_le_bytes(*len) as usize;
            if len > symbols_len_bound(n) {
                return Err(bad("a plane longer than its symbols").into());
            }
            let (coded, tail) = tail.split_at_checked(len).ok_or_else(|| bad("cut short"))?;
            decode_symbols_with(coded, &mut plane, |run, table, out| kernel::decode(isa, run, table, out))?;
            planes::put(width, index, &plane, out);
            rest = tail;
        }
        if !rest.is_empty() {
            return Err(bad("bytes left over").into());
        }
        Ok(())
    }
}
