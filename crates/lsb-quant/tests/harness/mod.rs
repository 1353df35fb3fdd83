//! A whole tensor through a codec, in memory.

use lsb_format::DType;
use lsb_quant::{Distortion, EncodedTile, MatrixInfo, Quantizer, Result, Span, Statistics, Surveyor, to_f32};

/// A tensor after encoding.
#[derive(Debug, PartialEq)]
pub(crate) struct Encoded {
    pub(crate) tiles: Vec<EncodedTile>,
    pub(crate) side: Vec<u8>,
}

impl Encoded {
    /// Bytes of all tiles and the side information.
    pub(crate) fn len(&self) -> usize {
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
    // Whole rows of tiles at a time.
    let step = step * tiling.span_unit();
    let starts = (0..tiling.len()).step_by(step.max(1) as usize);
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
pub(crate) fn survey(
    codec: &dyn Quantizer,
    matrix: &MatrixInfo,
    bytes: &[u8],
    step: u64,
) -> Result<Statistics> {
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
pub(crate) fn encode_surveyed(
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
pub(crate) fn encode(codec: &dyn Quantizer, matrix: &MatrixInfo, bytes: &[u8], step: u64) -> Result<Encoded> {
    let statistics = survey(codec, matrix, bytes, step)?;
    encode_surveyed(codec, matrix, bytes, &statistics, step)
}

/// Decodes the first `parts` parts of every tile.
pub(crate) fn decode(
    codec: &dyn Quantizer,
    matrix: &MatrixInfo,
    encoded: &Encoded,
    parts: usize,
) -> Result<Vec<f32>> {
    let (decoder, tiling) = (codec.decoder(matrix, &encoded.side)?, codec.tiling(matrix)?);
    let mut out = vec![f32::NAN; matrix.weights() as usize];
    for (i, tile) in encoded.tiles.iter().enumerate() {
        let at = tiling.tile(i as u64);
        let slices: Vec<&[u8]> = tile.parts().take(parts).collect();
        let mut weights = vec![f32::NAN; at.weights()];
        decoder.decode(&at, &slices, &mut weights)?;
        for (row, weights) in (at.row..).zip(weights.chunks(at.cols as usize)) {
            out[(row * matrix.cols + at.col) as usize..][..weights.len()].copy_from_slice(weights);
        }
    }
    Ok(out)
}

/// Bits per weight with ten bytes of records per tile, and the distortion.
pub(crate) fn rate_and_distortion(
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

/// Seeded Gaussian weights of mean 0 and variance 1.
pub(crate) fn gaussian(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    // SplitMix64; the top 53 bits as a number in (0, 1).
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1.0 / (1u64 << 54) as f64
    };
    let mut out = Vec::with_capacity(count + 1);
    while out.len() < count {
        // Box and Muller.
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        out.push((radius * angle.cos()) as f32);
        out.push((radius * angle.sin()) as f32);
    }
    out.truncate(count);
    out
}

/// Little-endian bytes of weights in an element type.
///
/// # Panics
/// If the type has no encoder here.
pub(crate) fn bytes_of(dtype: DType, weights: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F64 => weights.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        DType::F32 => weights.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => weights.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
        DType::BF16 => weights.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        other => panic!("no weights in {other}"),
    }
}
