//! A tensor on its way through a codec, with all memory kept from one run to the next.

use crate::Outcome;
use crate::harness;
use crate::measure::Contestant;
use candle_core::{CpuStorage, DType as Element, Device, InplaceOp1, Layout, Tensor};
use lsb_format::{DType, Tile, Tiling};
use lsb_quant::{
    Activations, EncodedTile, MatrixInfo, Packing, Quantizer, Registry, Span, Statistics, TensorDecoder,
    UnpackedTile,
};
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

/// Rows of tiles that are encoded together.
const STEP: u64 = 8;

/// A matrix, the codec it is to go through, and what that must know of it.
pub(crate) struct Subject {
    pub(crate) codec: Arc<dyn Quantizer>,
    pub(crate) matrix: MatrixInfo,
    pub(crate) bytes: Vec<u8>,
    pub(crate) statistics: Statistics,
}

/// Weights of which rows and columns differ in size, as those of models do.
pub(crate) fn weights(rows: usize, cols: usize) -> Vec<f32> {
    let mut weights = lsb_benches::normal_weights(7, rows * cols, 0.02);
    let (of_rows, of_cols) =
        (lsb_benches::normal_weights(8, rows, 0.4), lsb_benches::normal_weights(9, cols, 0.4));
    for (row, r) in weights.chunks_mut(cols).zip(&of_rows) {
        row.iter_mut().zip(&of_cols).for_each(|(w, c)| *w *= (r + c).exp());
    }
    weights
}

impl Subject {
    /// Weights in bf16, surveyed.
    pub(crate) fn new(codec: &str, rows: usize, cols: usize) -> Outcome<Self> {
        let codec = Registry::standard().parse(codec)?;
        let matrix = MatrixInfo { rows: rows as u64, cols: cols as u64, dtype: DType::BF16 };
        let bytes = lsb_benches::bf16_bytes(&weights(rows, cols));
        let statistics = harness::survey(&*codec, &matrix, &bytes, STEP)?;
        Ok(Subject { codec, matrix, bytes, statistics })
    }

    pub(crate) fn n_weights(&self) -> f64 {
        self.matrix.weights() as f64
    }

    /// Gathers statistics as before.
    pub(crate) fn survey(&self) -> bool {
        harness::survey(&*self.codec, &self.matrix, &self.bytes, STEP).is_ok()
    }

    /// A contestant that encodes on `pool` into the same memory again and again; making the encoder, and so the plan for a
    /// calibrated map, is not counted.
    pub(crate) fn encoding<'a>(&'a self, pool: &'a rayon::ThreadPool) -> Contestant<'a> {
        let mut tiles: Vec<EncodedTile> = Vec::new();
        Box::new(move || {
            let refused = |e| -> ! { unreachable!("the codec took this matrix before: {e}") };
            pool.install(|| {
                let encoder = self.codec.encoder(&self.matrix, &self.statistics);
                let mut encoder = encoder.unwrap_or_else(|e| refused(e));
                let start = Instant::now();
                for span in self.spans() {
                    tiles.iter_mut().for_each(EncodedTile::clear);
                    tiles.resize_with(span.len(), EncodedTile::default);
                    encoder.encode(&span, &mut tiles).unwrap_or_else(|e| refused(e));
                }
                encoder.finish().unwrap_or_else(|e| refused(e));
                start.elapsed()
            })
        })
    }

    fn spans(&self) -> impl Iterator<Item = Span<'_>> {
        let tiling = self.codec.tiling(&self.matrix).unwrap_or_else(|e| unreachable!("tiled before: {e}"));
        let step = (STEP * tiling.span_unit()).max(1);
        (0..tiling.len()).step_by(step as usize).map(move |at| {
            let tiles = at..(at + step).min(tiling.len());
            let run = tiling.elements(tiles.clone());
            Span::new(self.matrix, tiling, tiles, &self.bytes[2 * run.start as usize..2 * run.end as usize])
        })
    }

    pub(crate) fn encoded(&self) -> Outcome<Coded> {
        let encoded =
            harness::encode_surveyed(&*self.codec, &self.matrix, &self.bytes, &self.statistics, STEP)?;
        let decoder = self.codec.decoder(&self.matrix, &encoded.side)?;
        let tiling = self.codec.tiling(&self.matrix)?;
        Ok(Coded { encoded, decoder, tiling, matrix: self.matrix })
    }
}

/// A tensor after encoding.
pub(crate) struct Coded {
    encoded: harness::Encoded,
    pub(crate) decoder: Box<dyn TensorDecoder>,
    tiling: Tiling,
    matrix: MatrixInfo,
}

impl Coded {
    pub(crate) fn bytes(&self) -> f64 {
        self.encoded.len() as f64
    }

    /// Bits per weight.
    pub(crate) fn bpw(&self) -> f64 {
        8.0 * self.bytes() / self.matrix.weights() as f64
    }

    /// Decodes every tile into a buffer that its thread keeps; false where one is refused.
    pub(crate) fn decode(&self, pool: &rayon::ThreadPool) -> bool {
        self.each(pool, |tile, parts| {
            VALUES.with_borrow_mut(|out| {
                out.resize(tile.weights(), 0.0);
                self.decoder.decode(tile, parts, out).is_ok()
            })
        })
    }

    /// The same bit for bit, for codecs that lose nothing.
    pub(crate) fn decode_exact(&self, pool: &rayon::ThreadPool) -> bool {
        self.each(pool, |tile, parts| {
            EXACT.with_borrow_mut(|out| {
                out.resize(2 * tile.weights(), 0);
                self.decoder.decode_exact(tile, parts, out).is_ok()
            })
        })
    }

    /// Multiplies with one token `x` into `y`, a row of tiles at a time; false where a tile is refused.
    pub(crate) fn multiply(&self, pool: &rayon::ThreadPool, x: &[f32], y: &mut [f32]) -> bool {
        y.fill(0.0);
        let rows = y.par_chunks_mut(self.tiling.tile_rows() as usize);
        let x = Activations::new(x, 1);
        pool.install(|| {
            self.bands().zip(rows).all(|((band, tiles), y)| self.add_products(band, tiles, &x, y))
        })
    }

    /// Decodes every tile to levels, of which nothing becomes: products with no tokens. False where a tile is refused.
    pub(crate) fn decode_levels(&self, pool: &rayon::ThreadPool) -> bool {
        let none = Activations::new(&[], 0);
        pool.install(|| self.bands().all(|(band, tiles)| self.add_products(band, tiles, &none, &mut [])))
    }

    /// Rows of tiles.
    fn bands(&self) -> impl IndexedParallelIterator<Item = (usize, &[EncodedTile])> {
        self.encoded.tiles.par_chunks(self.tiling.across() as usize).enumerate()
    }

    fn add_products(&self, band: usize, tiles: &[EncodedTile], x: &Activations<'_>, y: &mut [f32]) -> bool {
        let Some(products) = self.decoder.products() else { return false };
        let parts: Vec<Vec<&[u8]>> = tiles.iter().map(|tile| tile.parts().collect()).collect();
        let first = band * self.tiling.across() as usize;
        let tile = |i: usize| self.tiling.tile((first + i) as u64);
        let tiles: Vec<_> = parts.iter().enumerate().map(|(i, parts)| (tile(i), &**parts)).collect();
        products.add_products(&tiles, x, y).is_ok()
    }

    /// Whether tiles are unpacked for a product with so many tokens.
    pub(crate) fn unpacks_tiles(&self, tokens: usize) -> bool {
        self.decoder.products().is_some_and(|products| products.multiplies(tokens))
    }

    /// All tiles unpacked, and how they lie; none if there is one that cannot be.
    pub(crate) fn unpack(&self) -> (Tiling, Vec<UnpackedTile>) {
        let parts: Vec<Vec<&[u8]>> = self.encoded.tiles.iter().map(|tile| tile.parts().collect()).collect();
        let with_parts = |i: u64| (self.tiling.tile(i), &*parts[i as usize]);
        let unpacked = || {
            let products = self.decoder.products()?;
            let Some(cuts) = products.unpacked_tiling(&self.tiling, Packing::Narrow) else {
                let one = |i| products.unpack(&[with_parts(i)], Packing::Narrow).ok()?.pop();
                return Some((self.tiling, (0..self.tiling.len()).map(one).collect::<Option<_>>()?));
            };
            let cut = |i| {
                let rows = cuts.tile(i).row..cuts.tile(i).row + cuts.tile(i).rows;
                let height = self.tiling.tile_rows();
                let tiles: Vec<_> =
                    (rows.start / height..rows.end.div_ceil(height)).map(with_parts).collect();
                products.unpack_rows(&tiles, rows, Packing::Narrow).ok()
            };
            Some((cuts, (0..cuts.len()).map(cut).collect::<Option<_>>()?))
        };
        unpacked().unwrap_or((self.tiling, Vec::new()))
    }

    /// Multiplies with tokens `x` into `y`, of shape `[rows of tiles, tokens, rows of a tile]`, two tiles unpacked at a time, or some
    /// rows; false where a tile is refused.
    pub(crate) fn multiply_many(
        &self,
        pool: &rayon::ThreadPool,
        x: &[f32],
        tokens: usize,
        y: &mut [f32],
    ) -> bool {
        let Some(products) = self.decoder.products() else { return false };
        let (x, across) = (Activations::new(x, tokens), self.tiling.across() as usize);
        y.fill(0.0);
        let of_rows = products.unpacked_tiling(&self.tiling, Packing::Bytes);
        let units = of_rows.unwrap_or(self.tiling);
        let height = units.tile_rows() as usize / self.tiling.tile_rows() as usize;
        let rows = y.par_chunks_mut(tokens * units.tile_rows() as usize);
        let unit = |(index, encoded): (usize, &[EncodedTile]), y: &mut [f32]| {
            let first = index * height * across;
            (first..).step_by(2.max(height)).zip(encoded.chunks(2.max(height))).all(|(first, some)| {
                let parts: Vec<Vec<&[u8]>> = some.iter().map(|tile| tile.parts().collect()).collect();
                let tiles = parts.iter().enumerate();
                let tiles: Vec<_> =
                    tiles.map(|(i, parts)| (self.tiling.tile((first + i) as u64), &**parts)).collect();
                if of_rows.is_some() {
                    let tile = units.tile(index as u64);
                    let rows = tile.row..tile.row + tile.rows;
                    let unpacked = products.unpack_rows(&tiles, rows, Packing::Bytes);
                    return unpacked.map(|unpacked| unpacked.add_products(&x, 0, y)).is_ok();
                }
                let Ok(unpacked) = products.unpack(&tiles, Packing::Bytes) else { return false };
                for (unpacked, (tile, _)) in unpacked.iter().zip(&tiles) {
                    unpacked.add_products(&x, tile.col as usize, y);
                }
                true
            })
        };
        let encoded = self.encoded.tiles.par_chunks(height * across).enumerate();
        pool.install(|| encoded.zip(rows).all(|(encoded, y)| unit(encoded, y)))
    }

    /// Multiplies unpacked tiles with tokens `x` into `y`, of shape `[rows of tiles, tokens, rows of a tile]`.
    pub(crate) fn multiply_unpacked(
        &self,
        pool: &rayon::ThreadPool,
        (tiling, unpacked): &(Tiling, Vec<UnpackedTile>),
        x: &[f32],
        tokens: usize,
        y: &mut [f32],
    ) {
        let (x, across) = (Activations::new(x, tokens), tiling.across());
        y.fill(0.0);
        let rows = y.par_chunks_mut(tokens * tiling.tile_rows() as usize);
        pool.install(|| {
            unpacked.par_chunks(across as usize).zip(rows).enumerate().for_each(|(band, (tiles, y))| {
                for (i, unpacked) in (band as u64 * across..).zip(tiles) {
                    unpacked.add_products(&x, tiling.tile(i).col as usize, y);
                }
            });
        });
    }

    /// Multiplies with many tokens `x`, of shape `[tokens, columns]`: every row of tiles is decoded once, into a buffer that its
    /// thread keeps, and multiplied by the library that forward passes use. False where a tile is refused.
    pub(crate) fn multiply_decoded(&self, pool: &rayon::ThreadPool, x: &Tensor) -> bool {
        let (bands, cols) = (self.tiling.len() / self.tiling.across(), self.matrix.cols as usize);
        pool.install(|| {
            (0..bands).into_par_iter().all(|band| {
                let rows = self.tiling.tile(band * self.tiling.across()).rows as usize;
                let kept = BAND.take().filter(|weights| weights.dims() == [rows, cols]);
                let weights =
                    kept.map_or_else(|| Tensor::zeros((rows, cols), Element::F32, &Device::Cpu), Ok);
                let multiplied = weights.and_then(|weights| {
                    weights.inplace_op1(&Band { coded: self, band })?;
                    let y = x.matmul(&weights.t()?)?;
                    BAND.set(Some(weights));
                    Ok(y)
                });
                std::hint::black_box(multiplied).is_ok()
            })
        })
    }

    fn each(&self, pool: &rayon::ThreadPool, work: impl Fn(&Tile, &[&[u8]]) -> bool + Sync + Send) -> bool {
        pool.install(|| {
            self.encoded.tiles.par_iter().enumerate().all(|(i, tile)| {
                let parts: Vec<&[u8]> = tile.parts().collect();
                work(&self.tiling.tile(i as u64), &parts)
            })
        })
    }
}

/// A row of tiles, to be decoded into a dense matrix that is used again and again.
struct Band<'a> {
    coded: &'a Coded,
    band: u64,
}

impl InplaceOp1 for Band<'_> {
    fn name(&self) -> &'static str {
        "decode"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(dense) = storage else { candle_core::bail!("weights are decoded to f32") };
        let (tiling, cols) = (&self.coded.tiling, self.coded.matrix.cols as usize);
        for i in self.band * tiling.across()..(self.band + 1) * tiling.across() {
            let tile = tiling.tile(i);
            let parts: Vec<&[u8]> = self.coded.encoded.tiles[i as usize].parts().collect();
            VALUES.with_borrow_mut(|values| {
                values.resize(tile.weights(), 0.0);
                self.coded.decoder.decode(&tile, &parts, values).map_err(candle_core::Error::wrap)?;
                for (row, values) in dense.chunks_mut(cols).zip(values.chunks(tile.cols as usize)) {
                    row[tile.col as usize..][..values.len()].copy_from_slice(values);
                }
                Ok::<(), candle_core::Error>(())
            })?;
        }
        Ok(())
    }
}

thread_local! {
    static VALUES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// Weights of a row of tiles.
    static BAND: RefCell<Option<Tensor>> = const { RefCell::new(None) };
    static EXACT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
