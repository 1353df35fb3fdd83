//! `raw`: the original bytes, untouched. For norms, biases, integers, and whatever a rule excludes.

use crate::{
    CodecEntry, EncodedTile, Error, Estimate, MatrixInfo, Parameters, PerTile, Quantizer, Result, Statistics,
    TensorDecoder, TensorEncoder, TileEncoder, to_f32_into,
};
use lsb_format::{DType, MAX_TILE_WEIGHTS, TILE_WEIGHTS, Tile, Tiling};
use std::sync::Arc;

/// Keeps tensors of any type as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raw;

pub(crate) fn entry() -> CodecEntry {
    CodecEntry::new("raw", "the original bytes, untouched", |p| {
        p.reader("raw").finish()?;
        Ok(Arc::new(Raw))
    })
}

impl Quantizer for Raw {
    fn id(&self) -> &str {
        "raw"
    }

    fn parameters(&self) -> Parameters {
        Parameters::new()
    }

    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        Some(Estimate { bytes: matrix.dtype.byte_len(matrix.weights())? as f64, snr_db: f64::INFINITY })
    }

    /// Elements narrower than a byte come in tiles of a multiple of four rows, so that every tile is whole bytes.
    fn tiling(&self, matrix: &MatrixInfo) -> Result<Tiling> {
        let standard = Tiling::standard(matrix.rows, matrix.cols)?;
        let row_bits = matrix.cols.saturating_mul(matrix.dtype.bits());
        if row_bits.is_multiple_of(8) || standard.len() <= 1 {
            return Ok(standard);
        }
        if matrix.cols > TILE_WEIGHTS {
            let message = format!("rows of {} {} elements do not fill bytes", matrix.cols, matrix.dtype);
            return Err(Error::NotApplicable { codec: "raw".into(), message });
        }
        let rows =
            (TILE_WEIGHTS / matrix.cols).next_multiple_of(4).min(MAX_TILE_WEIGHTS / matrix.cols / 4 * 4);
        Ok(Tiling::new(matrix.rows, matrix.cols, rows.max(4), matrix.cols, 1)?)
    }

    fn encoder(&self, _matrix: &MatrixInfo, _statistics: &Statistics) -> Result<Box<dyn TensorEncoder>> {
        Ok(Box::new(PerTile::new(*self)))
    }

    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>> {
        no_side(side)?;
        Ok(Box::new(Decoder { dtype: matrix.dtype }))
    }
}

/// Refuses side information where a codec has none.
pub(crate) fn no_side(side: &[u8]) -> Result<()> {
    if side.is_empty() {
        return Ok(());
    }
    Err(lsb_format::Error::corruption("P30", format!("{} bytes of side information, not 0", side.len()))
        .into())
}

/// The only part of a tile that has one.
pub(crate) fn only_part<'a>(parts: &[&'a [u8]]) -> Result<&'a [u8]> {
    match parts {
        [part] => Ok(part),
        _ => Err(lsb_format::Error::corruption("P30", format!("{} parts, not 1", parts.len())).into()),
    }
}

impl TileEncoder for Raw {
    fn encode_tile(&self, _tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        out.buffer().extend_from_slice(bytes);
        out.end_part();
        Ok(())
    }
}

#[derive(Debug)]
struct Decoder {
    dtype: DType,
}

impl TensorDecoder for Decoder {
    fn decode(&self, _tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        if !self.dtype.is_float() {
            let message = format!("{} values have no float form", self.dtype);
            return Err(Error::NotApplicable { codec: "raw".into(), message });
        }
        let part = only_part(parts)?;
        check_len(part, (out.len() as u64 * self.dtype.bits() / 8) as usize)?;
        to_f32_into(self.dtype, part, out);
        Ok(())
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn decode_exact(&self, _tile: &Tile, parts: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let part = only_part(parts)?;
        check_len(part, out.len())?;
        out.copy_from_slice(part);
        Ok(())
    }
}

fn check_len(part: &[u8], expected: usize) -> Result<()> {
    if part.len() == expected {
        return Ok(());
    }
    let message = format!("{} bytes where the tile has {expected}", part.len());
    Err(lsb_format::Error::corruption("P30", message).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Registry, Span};

    #[test]
    fn any_type_comes_back_and_only_floats_have_values() {
        let codec = Registry::standard().parse("raw").unwrap();
        for &dtype in DType::ALL {
            let matrix = MatrixInfo { rows: 3, cols: 8, dtype };
            let bytes: Vec<u8> = (0..dtype.byte_len(24).unwrap()).map(|i| (i * 37) as u8).collect();
            let estimate = codec.estimate(&matrix).unwrap();
            assert_eq!((estimate.bytes, estimate.snr_db), (bytes.len() as f64, f64::INFINITY));
            let tiling = codec.tiling(&matrix).unwrap();
            let mut out = [EncodedTile::default()];
            let mut encoder = codec.encoder(&matrix, &Statistics::default()).unwrap();
            encoder.encode(&Span::new(matrix, tiling, 0..1, &bytes), &mut out).unwrap();
            assert_eq!(out[0].bytes(), bytes);
            let decoder = codec.decoder(&matrix, &encoder.finish().unwrap()).unwrap();
            let (tile, mut back) = (tiling.tile(0), vec![0; bytes.len()]);
            decoder.decode_exact(&tile, &[&bytes], &mut back).unwrap();
            assert_eq!(back, bytes);
            assert!(decoder.decode_exact(&tile, &[&bytes[1..]], &mut back).is_err());
            let values = decoder.decode(&tile, &[&bytes], &mut [0.0; 24]);
            assert_eq!(values.is_ok(), dtype.is_float(), "{dtype}");
            assert!(dtype.is_float() || matches!(values, Err(Error::NotApplicable { .. })));
        }
    }

    #[test]
    fn narrow_elements_come_in_tiles_of_whole_bytes() {
        for (dtype, rows, cols) in [
            (DType::F4, 8, 200_001),
            (DType::F6_E2M3, 12, 99_999),
            (DType::F4, 300_002, 3),
            (DType::F4, 2, 3),
        ] {
            let matrix = MatrixInfo { rows, cols, dtype };
            let tiling = Raw.tiling(&matrix).unwrap();
            let bytes = vec![7; dtype.byte_len(rows * cols).unwrap() as usize];
            let span = Span::new(matrix, tiling, 0..tiling.len(), &bytes);
            let total: usize = (0..span.len()).map(|i| span.tile_bytes(i).len()).sum();
            assert_eq!(total, bytes.len(), "{dtype} {rows} x {cols}");
        }
        let long = MatrixInfo { rows: 2, cols: TILE_WEIGHTS + 1, dtype: DType::F4 };
        assert!(Raw.tiling(&long).is_err());
    }
}
