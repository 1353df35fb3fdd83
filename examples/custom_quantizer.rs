//! A codec of your own: every weight becomes a sign and a power of two, so that multiplying is shifting.
//!
//! One registration line puts it into the same pipeline, packages and reports as the built-in codecs. The
//! package it makes is read back with the same registry.

use anyhow::{Result, ensure};
use lsb_format::{Error, Tile};
use lsb_quant::{
    CodecEntry, EncodedTile, Estimate, MatrixInfo, ParameterHelp, Parameters, PerTile, Quantizer, Registry,
    Statistics, TensorDecoder, TensorEncoder, TileEncoder, to_f32,
};
use lsb_stream::{Budget, CompressConfig, LoopCompressor, weights::open_weights};
use lsb_validate::{Compare, QualityValidator};
use std::sync::Arc;

/// Four bits a weight: the sign, and how many powers of two the magnitude lies below the largest of its row.
#[derive(Clone, Copy, Debug)]
struct Log2 {
    /// Powers of two kept below and including the row's largest, 1 to 7; what is smaller becomes zero.
    octaves: u8,
}

/// The code of zero: no power of two has it.
const ZERO: u8 = 7;

/// Measured on Gaussian rows of 1024 weights, by number of octaves.
const SNR_DB: [f64; 7] = [0.4, 3.5, 9.2, 13.1, 14.1, 14.2, 14.2];

const PARAMETERS: &[ParameterHelp] =
    &[ParameterHelp { name: "octaves", values: "7 (1 to 7)", summary: "powers of two kept in a row" }];

impl Log2 {
    fn build(parameters: &Parameters) -> lsb_quant::Result<Arc<dyn Quantizer>> {
        let mut reader = parameters.reader("log2");
        let octaves = reader.integer("octaves", 7, 1, 7)? as u8;
        reader.finish()?;
        Ok(Arc::new(Log2 { octaves }))
    }

    /// One byte of exponent per row, then two weights a byte.
    fn tile_bytes(tile: &Tile) -> usize {
        tile.rows as usize + tile.weights().div_ceil(2)
    }
}

impl Quantizer for Log2 {
    fn id(&self) -> &str {
        "log2"
    }

    fn parameters(&self) -> Parameters {
        Parameters::new().with("octaves", self.octaves)
    }

    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate> {
        let bytes = matrix.rows as f64 + matrix.weights() as f64 / 2.0;
        let snr_db = SNR_DB[usize::from(self.octaves) - 1];
        matrix.dtype.is_float().then_some(Estimate { bytes, snr_db })
    }

    fn encoder(&self, matrix: &MatrixInfo, _: &Statistics) -> lsb_quant::Result<Box<dyn TensorEncoder>> {
        Ok(Box::new(PerTile::new(Log2Encoder { codec: *self, matrix: *matrix })))
    }

    fn decoder(&self, _: &MatrixInfo, side: &[u8]) -> lsb_quant::Result<Box<dyn TensorDecoder>> {
        if !side.is_empty() {
            return Err(Error::corruption("LOG2", "side information, which this codec has none of").into());
        }
        Ok(Box::new(Log2Decoder))
    }
}

struct Log2Encoder {
    codec: Log2,
    matrix: MatrixInfo,
}

/// The biased exponent of the power of two nearest to `x`, 0 for zero and what f32 cannot hold normally.
fn exponent(x: f32) -> u8 {
    // Half a mantissa carries into the exponent from 1.5 on: rounding without a logarithm.
    (((x.abs().to_bits() + 0x0040_0000) >> 23) as u8).min(254)
}

impl TileEncoder for Log2Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> lsb_quant::Result<()> {
        let weights = to_f32(self.matrix.dtype, bytes);
        if let Some(i) = weights.iter().position(|x| !x.is_finite()) {
            return Err(lsb_quant::Error::NonFinite { index: i as u64, value: weights[i] });
        }
        let rows = weights.chunks(tile.cols as usize);
        let largest: Vec<u8> =
            rows.clone().map(|row| row.iter().map(|&x| exponent(x)).max().unwrap_or(0)).collect();
        let codes: Vec<u8> = rows
            .zip(&largest)
            .flat_map(|(row, &top)| row.iter().map(move |&x| (x, top)))
            .map(|(x, top)| match (exponent(x), top - exponent(x)) {
                (e, below) if e > 0 && below < self.codec.octaves => below | u8::from(x < 0.0) << 3,
                _ => ZERO,
            })
            .collect();
        out.buffer().extend_from_slice(&largest);
        out.buffer().extend(codes.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4));
        out.end_part();
        Ok(())
    }
}

#[derive(Debug)]
struct Log2Decoder;

impl TensorDecoder for Log2Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> lsb_quant::Result<()> {
        // The bytes come from a file: nothing in them is believed before it is checked.
        let bytes = parts.first().copied().unwrap_or_default();
        let expected = Log2::tile_bytes(tile);
        if bytes.len() != expected || out.len() != tile.weights() {
            let message = format!("a tile of {} bytes, where {expected} are needed", bytes.len());
            return Err(Error::corruption("LOG2", message).in_tile(tile.index).into());
        }
        let (largest, codes) = bytes.split_at(tile.rows as usize);
        for (row, (out, &top)) in out.chunks_mut(tile.cols as usize).zip(largest).enumerate() {
            for (col, out) in out.iter_mut().enumerate() {
                let i = row * tile.cols as usize + col;
                let code = codes[i / 2] >> (4 * (i % 2)) & 15;
                let (below, sign) = (code & 7, u32::from(code >> 3));
                *out = match top.checked_sub(below) {
                    _ if below == ZERO => 0.0,
                    Some(e @ 1..=254) => f32::from_bits(sign << 31 | u32::from(e) << 23),
                    _ => {
                        let message = format!("weight {i} has a power of two outside f32");
                        return Err(Error::corruption("LOG2", message).in_tile(tile.index).into());
                    }
                };
            }
        }
        Ok(())
    }
}

/// Compresses a tiny model with the codec, decodes the package, and measures what was lost.
pub(crate) fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let model = lsb_examples::write_tiny_model(dir.path())?;

    let mut registry = Registry::standard();
    registry.register(
        CodecEntry::new("log2", "sign and power of two, four bits a weight", Log2::build)
            .with_parameters(PARAMETERS),
    );

    let mut config = CompressConfig::default();
    config.output = Some(dir.path().join("tiny-log2"));
    config.codec = Some("log2:octaves=7".into());
    let report = LoopCompressor::new(config).with_registry(registry.clone()).compress_model(&model, None)?;
    println!("{}: {:.2} bits per weight with the manifest", report.codec, report.bpw());
    ensure!(report.tensors.iter().any(|t| t.codec == "log2"), "no tensor took the codec");

    // Whoever reads the package must know the codec.
    let e = open_weights(&report.package, &Registry::standard(), &Default::default());
    ensure!(e.is_err(), "a reader that does not know the codec must say so");

    let original = open_weights(&model, &registry, &Default::default())?;
    let decoded = open_weights(&report.package, &registry, &Default::default())?;
    let (mut quality, budget) = (QualityValidator::new(), Budget::new(64 << 20));
    let comparison = Compare::new(&*original, &*decoded, &budget).validator(&mut quality).run()?;
    ensure!(comparison.defects().count() == 0, "only weights may change");
    for tensor in quality.report().tensors {
        println!("{:40} {:8} {:6.2} dB", tensor.name, tensor.codec, tensor.error.weight_snr_db);
        // Rounding to a power of two moves no weight by more than a third of itself: 9.5 dB at worst.
        ensure!(tensor.error.weight_snr_db > 9.5, "{} lost too much", tensor.name);
    }
    Ok(())
}

fn main() -> Result<()> {
    run()
}
