//! A whole tensor through a codec, in memory.

use lsb_quant::{Distortion, EncodedTile, MatrixInfo, Quantizer, Result, Span, Statistics, Surveyor, to_f32};

/// A tensor after encoding.
#[derive(Debug, PartialEq)]
pub struct Encoded {
    pub tiles: Vec<EncodedTile>,
    pub side: Vec<u8>,
}

impl Encoded {
    /// Bytes of all tiles and the side information.
    pub fn len(&self) -> usize {
        self.side.len() + self.tiles.iter().map(|t| t.bytes().len()).sum::<usize>()
    }
}

fn spans<'a>(
    codec: &dyn Quantizer,
    matrix: &MatrixInfo,
    bytes: &'a [u8],
    step: u64,
) -> Result<Vec<Span<'a>>> {
    let tiling = codec.tiling(matrix)?;
    let starts = (0..tiling.len()).step_by(step as usize);
    Ok(starts
        .map(|at| {
            let tiles = at..(at + step).min(tiling.len());
            let run = tiling.elements(tiles.clone());
            let byte = |element: u64| (element * matrix.dtype.bits() / 8) as usize;
            Span::new(*matrix, tiling, tiles, &bytes[byte(run.start)..byte(run.end)])
        })
        .collect())
}

/// Gathers what the codec needs, in spans of `step` tiles.
pub fn survey(codec: &dyn Quantizer, matrix: &MatrixInfo, bytes: &[u8], step: u64) -> Result<Statistics> {
    let mut surveyor = Surveyor::new(&codec.needs(), matrix, &codec.tiling(matrix)?);
    while surveyor.wants_pass() {
        for span in spans(codec, matrix, bytes, step)? {
            surveyor.observe(&span)?;
        }
        surveyor.end_pass();
    }
    Ok(surveyor.finish())
}

/// Encodes with statistics gathered before, in spans of `step` tiles.
pub fn encode_surveyed(
    codec: &dyn Quantizer,
    matrix: &MatrixInfo,
    bytes: &[u8],
    statistics: &Statistics,
    step: u64,
) -> Result<Encoded> {
    let mut encoder = codec.encoder(matrix, statistics)?;
    let mut tiles = Vec::new();
    for span in spans(codec, matrix, bytes, step)? {
        let mut out = vec![EncodedTile::default(); span.len()];
        encoder.encode(&span, &mut out)?;
        tiles.extend(out);
    }
    Ok(Encoded { tiles, side: encoder.finish()? })
}

/// Surveys and encodes.
pub fn encode(codec: &dyn Quantizer, matrix: &MatrixInfo, bytes: &[u8], step: u64) -> Result<Encoded> {
    let statistics = survey(codec, matrix, bytes, step)?;
    encode_surveyed(codec, matrix, bytes, &statistics, step)
}

/// Decodes the first `parts` parts of every tile.
pub fn decode(
    codec: &dyn Quantizer,
    matrix: &MatrixInfo,
    encoded: &Encoded,
    parts: usize,
) -> Result<Vec<f32>> {
    let (decoder, tiling) = (codec.decoder(matrix, &encoded.side)?, codec.tiling(matrix)?);
    let mut out = vec![f32::NAN; matrix.weights() as usize];
    for (i, tile) in encoded.tiles.iter().enumerate() {
        let run = tiling.elements(i as u64..i as u64 + 1);
        let slices: Vec<&[u8]> = tile.parts().take(parts).collect();
        decoder.decode(&tiling.tile(i as u64), &slices, &mut out[run.start as usize..run.end as usize])?;
    }
    Ok(out)
}

/// Bits per weight with ten bytes of records per tile, and the distortion.
pub fn rate_and_distortion(
    codec: &dyn Quantizer,
    matrix: &MatrixInfo,
    bytes: &[u8],
) -> Result<(f64, Distortion)> {
    let encoded = encode(codec, matrix, bytes, 4)?;
    let decoded = decode(codec, matrix, &encoded, usize::MAX)?;
    let total = encoded.len() + 10 * encoded.tiles.len();
    let distortion = Distortion::measure(&to_f32(matrix.dtype, bytes), &decoded);
    Ok((8.0 * total as f64 / matrix.weights() as f64, distortion))
}
