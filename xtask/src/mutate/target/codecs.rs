//! Every codec of the registry: decoding anything, and encoding anything and getting it back.

use super::{Seeds, Target, class, magnitude, nothing};
use crate::synth::{Distribution, Element, Fill};
use anyhow::Result;
use lsb_format::DType;
use lsb_format::package::max_tile_bytes;
use lsb_quant::{EncodedTile, Error, MatrixInfo, Quantizer, Registry, Span, Surveyor};
use std::sync::{Arc, LazyLock};

/// The codecs tried, by the first byte of an input. New ones go to the end, so that old inputs keep their meaning;
/// a test sees to it that every codec of the registry is here.
pub(in crate::mutate) const CODECS: &[&str] = &[
    "raw",
    "lossless",
    "outlier-binary",
    "outlier-binary:0.3",
    "residual-binary:1",
    "residual-binary:3",
    "residual-binary:8",
    "ternary",
    "rtn:2",
    "rtn:3",
    "rtn:4",
    "rtn:8",
    "outlier-binary:outlier_ratio=0.05,outlier_bits=8,group=8",
    "outlier-binary:outlier_ratio=0,error_compensation=false",
    "outlier-binary:outlier_bits=bf16,scale=std,group=64",
    "residual-binary:planes=2,group=16",
    "ternary:scale=absmean,group=8",
    "rtn:bits=3,group=row,symmetric=true",
    "rtn:bits=5,group=8",
    "trellis:bpw=3,states=8",
    "trellis:tau=0.05,states=4",
    "gptq:3",
    "gptq:bits=2,group=16,symmetric=true,mse=false",
];

/// Element types by number.
const DTYPES: &[DType] =
    &[DType::BF16, DType::F16, DType::F32, DType::F64, DType::F8_E4M3, DType::F8_E5M2, DType::I32, DType::U8];

/// Weights of a case, so that it stays fast.
const MAX_WEIGHTS: u64 = 1 << 16;

/// `None` for a codec that this build does not have.
type Codec = Option<Arc<dyn Quantizer>>;

static BUILT: LazyLock<Vec<Codec>> = LazyLock::new(|| {
    let registry = Registry::standard();
    CODECS.iter().map(|text| registry.parse(text).ok()).collect()
});

/// What the first five bytes of an input say: codec, element type, rows, columns.
fn subject(data: &[u8]) -> Option<(&'static dyn Quantizer, MatrixInfo, &[u8])> {
    let (&[codec, dtype, rows, c0, c1], rest) = data.split_first_chunk::<5>()?;
    let codec = BUILT.get(usize::from(codec) % BUILT.len())?.as_deref()?;
    let dtype = DTYPES[usize::from(dtype) % DTYPES.len()];
    let cols = u64::from(u16::from_le_bytes([c0, c1]));
    let rows = u64::from(rows).min(MAX_WEIGHTS / cols.max(1));
    Some((codec, MatrixInfo { rows, cols, dtype }, rest))
}

fn name(error: &Error) -> String {
    match error {
        Error::Payload(e) => class(e),
        Error::NotApplicable { .. } => "not applicable".to_owned(),
        Error::NonFinite { .. } => "not finite".to_owned(),
        other => format!("{other:.12}"),
    }
}

/// 5 bytes subject, 1 byte tile, 2 bytes length of the side information, 1 byte number of parts, 2 bytes length of each,
/// then the side information and the parts.
pub(super) const CODEC_DECODE: Target =
    Target { name: "codec_decode", run: codec_decode, seeds: decode_seeds, repair: repair_parts };

fn codec_decode(data: &[u8]) -> String {
    let Some((codec, matrix, rest)) = subject(data) else { return "no codec".to_owned() };
    let Some((&[tile, s0, s1, n], rest)) = rest.split_first_chunk::<4>() else { return "short".to_owned() };
    let (n, side) = (usize::from(n % 17), usize::from(u16::from_le_bytes([s0, s1])));
    let Some((lengths, rest)) = rest.split_at_checked(2 * n) else { return "short".to_owned() };
    let Some((side, mut rest)) = rest.split_at_checked(side) else { return "short".to_owned() };
    let mut parts = Vec::new();
    for length in lengths.as_chunks::<2>().0 {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (part, behind) = rest.split_at(length);
        parts.push(part);
        rest = behind;
    }
    let mut outcome = || -> Result<String, Error> {
        let tiling = codec.tiling(&matrix)?;
        let decoder = codec.decoder(&matrix, side)?;
        if tiling.len() == 0 {
            return Ok("no tile".to_owned());
        }
        // The partition never has more parts than it says; a reader never hands more to a decoder, or none.
        parts.truncate(usize::from(tiling.parts()));
        if parts.is_empty() {
            return Ok("no part".to_owned());
        }
        let tile = tiling.tile(u64::from(tile) % tiling.len());
        let mut weights = vec![0.0; tile.weights()];
        let decoded = decoder.decode(&tile, &parts, &mut weights);
        if decoder.is_exact() {
            let bytes = matrix.dtype.byte_len(tile.rows * tile.cols).unwrap_or(0);
            decoder.decode_exact(&tile, &parts, &mut vec![0; bytes as usize])?;
        }
        decoded?;
        Ok(format!("ok {}", parts.len()))
    };
    let what = outcome().unwrap_or_else(|e| name(&e));
    format!("{what} {}", codec.id())
}

/// Weights to start from: what a trained tensor looks like, and extremes.
fn sample(matrix: &MatrixInfo, extreme: bool) -> Vec<u8> {
    let bytes = matrix.dtype.byte_len(matrix.weights()).unwrap_or(0) as usize;
    let element = match matrix.dtype {
        DType::BF16 => Element::Bf16,
        DType::F16 => Element::F16,
        DType::F32 => Element::F32,
        _ => return (0..bytes).map(|i| (i * 37 % 101) as u8).collect(),
    };
    let distribution = Distribution::student_t5();
    let shape = [matrix.rows, matrix.cols];
    let mut out = Fill::linear(matrix.cols.max(1)).bytes(&distribution, 5, "sample", &shape, element);
    if extreme {
        // Zeros, then the largest finite value, then the smallest denormals.
        let n = out.len() / 4;
        out[..n].fill(0);
        let largest: &[u8] = match element {
            Element::Bf16 => &[0x7f, 0x7f],
            Element::F16 => &[0xff, 0x7b],
            Element::F32 => &[0xff, 0xff, 0x7f, 0x7f],
        };
        let size = element.size();
        for (i, chunk) in out[n / size * size..].chunks_exact_mut(size).enumerate() {
            match i % 50 {
                0 => chunk.copy_from_slice(largest),
                1 => {
                    chunk.fill(0);
                    chunk[0] = 1;
                }
                _ => {}
            }
        }
    }
    out
}

/// All tiles and the side information of a matrix, encoded span by span.
fn encode(
    codec: &dyn Quantizer,
    matrix: &MatrixInfo,
    bytes: &[u8],
    tiles_per_span: u64,
) -> Result<(Vec<EncodedTile>, Vec<u8>), Error> {
    let tiling = codec.tiling(matrix)?;
    let step = tiles_per_span.next_multiple_of(tiling.span_unit().max(1)).max(1);
    let spans: Vec<_> = (0..tiling.len())
        .step_by(step as usize)
        .map(|first| {
            let tiles = first..(first + step).min(tiling.len());
            let run = tiling.elements(tiles.clone());
            let byte = |element: u64| (element * matrix.dtype.bits() / 8) as usize;
            Span::new(*matrix, tiling, tiles, &bytes[byte(run.start)..byte(run.end)])
        })
        .collect();
    let mut surveyor = Surveyor::new(&codec.needs(), matrix, &tiling);
    while surveyor.wants_pass() {
        for span in &spans {
            surveyor.observe(span)?;
        }
        surveyor.end_pass();
    }
    let mut encoder = codec.encoder(matrix, &surveyor.finish())?;
    let mut tiles = Vec::new();
    for span in &spans {
        let mut out = vec![EncodedTile::default(); span.len()];
        encoder.encode(span, &mut out)?;
        tiles.extend(out);
    }
    let side = encoder.finish()?;
    Ok((tiles, side))
}

fn decode_seeds() -> Result<Seeds> {
    let mut seeds = Seeds::new();
    for (i, (codec, text)) in BUILT.iter().zip(CODECS).enumerate() {
        let Some(codec) = codec else { continue };
        for (dtype, rows, cols) in [(0u8, 3u8, 77u16), (2, 1, 130)] {
            let matrix =
                MatrixInfo { rows: rows.into(), cols: cols.into(), dtype: DTYPES[usize::from(dtype)] };
            let (tiles, side) = encode(&**codec, &matrix, &sample(&matrix, false), 1)?;
            let Some(tile) = tiles.first() else { continue };
            let [c0, c1] = cols.to_le_bytes();
            let [s0, s1] = (side.len() as u16).to_le_bytes();
            let mut bytes = vec![i as u8, dtype, rows, c0, c1, 0, s0, s1, tile.parts().len() as u8];
            for part in tile.parts() {
                bytes.extend((part.len() as u16).to_le_bytes());
            }
            bytes.extend(&side);
            bytes.extend(tile.bytes());
            let text = text.replace([':', '=', ','], "-");
            seeds.push((format!("{text}-{rows}x{cols}"), bytes));
        }
    }
    Ok(seeds)
}

/// Lets the last part take all bytes that are left.
fn repair_parts(data: &mut [u8]) {
    let Some(&[.., s0, s1, n]) = data.first_chunk::<9>() else { return };
    let (n, side) = (usize::from(n % 17), usize::from(u16::from_le_bytes([s0, s1])));
    let Some(mut left) = data.len().checked_sub(9 + 2 * n + side) else { return };
    for i in 0..n {
        let at = 9 + 2 * i;
        let wanted = usize::from(u16::from_le_bytes([data[at], data[at + 1]]));
        let length = if i + 1 == n { left } else { wanted.min(left) };
        data[at..at + 2].copy_from_slice(&(length.min(65_535) as u16).to_le_bytes());
        left -= length;
    }
}

/// 5 bytes subject, then source bytes, repeated until the matrix is full.
pub(super) const ROUNDTRIP: Target =
    Target { name: "roundtrip", run: roundtrip, seeds: roundtrip_seeds, repair: nothing };

fn roundtrip(data: &[u8]) -> String {
    let Some((codec, mut matrix, rest)) = subject(data) else { return "no codec".to_owned() };
    // Encoding costs more than decoding.
    matrix.rows = matrix.rows.min((1 << 13) / matrix.cols.max(1));
    let length = matrix.dtype.byte_len(matrix.weights()).unwrap_or(0) as usize;
    let bytes: Vec<u8> = rest.iter().copied().cycle().take(length).collect();
    if bytes.len() != length {
        return "short".to_owned();
    }
    if codec.estimate(&matrix).is_none() {
        return format!("does not apply {}", codec.id());
    }
    // Compared as text where it failed: NaN, which the error names, is not equal to itself.
    let encoded = encode(codec, &matrix, &bytes, u64::MAX >> 8).map_err(|e| (name(&e), e.to_string()));
    let one_by_one = encode(codec, &matrix, &bytes, 1).map_err(|e| (name(&e), e.to_string()));
    assert!(encoded == one_by_one, "{}: the bytes depend on how the tensor is split", codec.id());
    let (tiles, side) = match encoded {
        Ok(encoded) => encoded,
        Err((name, text)) => {
            assert!(
                matches!(&*name, "not finite" | "not applicable"),
                "{}: encoding failed: {text}",
                codec.id()
            );
            return format!("{name} {}", codec.id());
        }
    };
    let read = || -> Result<(), Error> {
        let tiling = codec.tiling(&matrix)?;
        let decoder = codec.decoder(&matrix, &side)?;
        assert_eq!(tiling.len(), tiles.len() as u64);
        for (i, encoded) in tiles.iter().enumerate() {
            let tile = tiling.tile(i as u64);
            let parts: Vec<_> = encoded.parts().collect();
            assert_eq!(parts.len(), usize::from(tiling.parts()));
            assert!(encoded.bytes().len() as u64 <= max_tile_bytes(tile.rows * tile.cols));
            if decoder.is_exact() && tiling.is_contiguous() {
                let run = tiling.elements(tile.index..tile.index + 1);
                let byte = |element: u64| (element * matrix.dtype.bits() / 8) as usize;
                let source = &bytes[byte(run.start)..byte(run.end)];
                let mut out = vec![0; source.len()];
                decoder.decode_exact(&tile, &parts, &mut out)?;
                assert!(out == source, "{}: tile {i} is not the original", codec.id());
            }
            if matrix.dtype.is_float() {
                // A reader may stop after any part.
                for n in 1..=parts.len() {
                    let mut weights = vec![0.0f32; tile.weights()];
                    decoder.decode(&tile, &parts[..n], &mut weights)?;
                    let finite = decoder.is_exact() || weights.iter().all(|w| w.is_finite());
                    assert!(finite, "{}: finite weights became infinite", codec.id());
                }
            }
        }
        Ok(())
    };
    if let Err(e) = read() {
        panic!("{}: what was encoded does not decode: {e}", codec.id());
    }
    let bytes: usize = tiles.iter().map(|t| t.bytes().len()).sum();
    format!("ok {} {}", codec.id(), magnitude(bytes))
}

fn roundtrip_seeds() -> Result<Seeds> {
    let mut seeds = Seeds::new();
    for (i, (codec, text)) in BUILT.iter().zip(CODECS).enumerate() {
        if codec.is_none() {
            continue;
        }
        for (dtype, rows, cols) in [(0u8, 5u8, 33u16), (2, 2, 40)] {
            let matrix =
                MatrixInfo { rows: rows.into(), cols: cols.into(), dtype: DTYPES[usize::from(dtype)] };
            let [c0, c1] = cols.to_le_bytes();
            let mut bytes = vec![i as u8, dtype, rows, c0, c1];
            bytes.extend(sample(&matrix, dtype == 0));
            let text = text.replace([':', '=', ','], "-");
            seeds.push((format!("{text}-{rows}x{cols}"), bytes));
        }
    }
    // A row longer than a tile, and one weight.
    seeds.push(("raw-65535-columns".to_owned(), vec![0, 7, 1, 0xff, 0xff, 1, 2, 3]));
    seeds.push(("lossless-one-weight".to_owned(), vec![1, 0, 1, 1, 0, 0xc1, 0x7f]));
    Ok(seeds)
}
