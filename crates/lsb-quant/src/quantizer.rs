//! The [`Quantizer`] trait and the two objects it makes.
//!
//! A codec answers eight questions. Most answers have a default; a codec that treats every tile on its own
//! implements [`TileEncoder`] and wraps it in [`PerTile`], as `docs/adding-a-codec.md` shows.

use crate::allocate::RateControl;
use crate::calibrate::FactorReport;
use crate::{Activations, Needs, Packing, Parameters, Result, Span, Statistics, UnpackedTile};
use lsb_format::{DType, Tile, Tiling};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// What a codec may know about a tensor before it sees a weight: its shape as a matrix and its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixInfo {
    /// Rows: the product of all dimensions but the last; 1 for vectors and scalars.
    pub rows: u64,
    /// Columns: the last dimension; 1 for scalars.
    pub cols: u64,
    /// Element type of the source.
    pub dtype: DType,
}

impl MatrixInfo {
    /// The matrix of a tensor with this shape.
    pub fn of_shape(shape: &[u64], dtype: DType) -> Self {
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().rev().skip(1).product();
        MatrixInfo { rows, cols, dtype }
    }

    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.rows * self.cols
    }
}

/// What a codec expects to reach on a matrix, told without seeing a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Stored bytes, tiles and side information together.
    pub bytes: f64,
    /// Signal-to-noise ratio in dB that independent Gaussian weights would get; infinite where exact.
    pub snr_db: f64,
}

/// One configured codec.
///
/// An implementer answers: what am I called, what are my parameters, how many bytes would I need, how do I
/// cut a matrix, what must be known beforehand, how do I encode, how do I decode, and which configuration
/// of me is the next finer one?
pub trait Quantizer: Debug + Send + Sync {
    /// What users type and what the manifest stores, such as `outlier-binary`.
    fn id(&self) -> &str;

    /// Every parameter with its value, enough to build the same codec again through the registry.
    fn parameters(&self) -> Parameters;

    /// Bytes and Gaussian quality on this matrix, or `None` where the codec does not apply. Cheap.
    fn estimate(&self, matrix: &MatrixInfo) -> Option<Estimate>;

    /// The tile partition: a function of the matrix and the parameters alone.
    ///
    /// # Errors
    /// If the matrix is too large for the format.
    fn tiling(&self, matrix: &MatrixInfo) -> Result<Tiling> {
        Ok(Tiling::standard(matrix.rows, matrix.cols)?)
    }

    /// Bytes that encoding the matrix takes beside 16 bytes for each weight of a tile on every thread, where its map is
    /// calibrated.
    fn calibrated_bytes(&self, matrix: &MatrixInfo) -> u64 {
        let _ = matrix;
        0
    }

    /// Statistics of the whole tensor that must be gathered before encoding starts.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// An encoder for one tensor.
    ///
    /// # Errors
    /// If the codec does not apply to the matrix.
    fn encoder(&self, matrix: &MatrixInfo, statistics: &Statistics) -> Result<Box<dyn TensorEncoder>>;

    /// A decoder for one tensor, given the side information its encoder returned.
    ///
    /// # Errors
    /// If the side information is damaged. It is untrusted: no length in it may be believed unchecked.
    fn decoder(&self, matrix: &MatrixInfo, side: &[u8]) -> Result<Box<dyn TensorDecoder>>;

    /// Control over the rate, for codecs whose precision follows one number once maps are calibrated.
    fn rate_control(&self) -> Option<&dyn RateControl> {
        None
    }

    /// The next more precise configuration of this codec, used by `adaptive_precision`; `None` at the end.
    fn finer(&self) -> Option<Arc<dyn Quantizer>> {
        None
    }
}

/// Bytes of one encoded tile, possibly in several separately readable parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedTile {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl EncodedTile {
    /// The buffer to append the current part to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends the current part. Every tile ends exactly [`Tiling::parts`] parts.
    pub fn end_part(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Forgets the content and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// All bytes of the tile.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The parts in order.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ends.iter().enumerate().map(|(i, &end)| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.bytes[start..end]
        })
    }
}

/// What calibration came to for one tensor, beside what was expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// What it took to factor the second moments of its inputs.
    pub factor: FactorReport,
    /// Bytes of tiles and side information that a sample of its rows had told.
    pub expected_bytes: f64,
    /// Sum over rows of the mean squared error of the outputs that the sample had told, each row in units of the square of
    /// its step over the middle one's.
    pub expected_loss: f64,
    /// The same, of all rows as they were coded.
    pub loss: f64,
}

/// Encodes one tensor, fed with consecutive spans of its weights in order.
pub trait TensorEncoder: Send {
    /// Encodes the tiles of `span`, in order, into `out`, which holds one cleared [`EncodedTile`] per tile.
    /// Spans arrive in order and may be of any number of tiles; the result must not depend on how the
    /// tensor was split into spans, nor on the number of threads.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] if a lossy codec meets NaN or infinity.
    fn encode(&mut self, span: &Span<'_>, out: &mut [EncodedTile]) -> Result<()>;

    /// What [`TensorEncoder::finish`] will return, where that is known already: tiles can then be decoded and
    /// checked while the rest is still being encoded.
    fn side(&self) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    /// Side information for the whole tensor, once all spans are done; at most 16 MiB. Called once.
    ///
    /// # Errors
    /// If the codec cannot finish.
    fn finish(&mut self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    /// What calibration came to, once all spans were encoded; `None` where the encoder was not calibrated.
    fn account(&self) -> Option<Account> {
        None
    }
}

/// Decodes tiles of one tensor, in any order, from any thread.
pub trait TensorDecoder: Send + Sync {
    /// Decodes `tile` from its `parts` into `out`, row-major, `tile.weights()` values.
    ///
    /// `parts` may hold fewer parts than the tile has (at least one); the result is then a valid coarser
    /// version. The bytes are untrusted: damage must end in an error, never in a panic, an allocation larger
    /// than the tile, or a read outside `parts`. What is in `out` after an error is unspecified.
    ///
    /// # Errors
    /// If the bytes are not a tile of this tensor.
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()>;

    /// Products with activations that need no decoded weights, where the codec has them.
    fn products(&self) -> Option<&dyn TileProducts> {
        None
    }

    /// True where [`TensorDecoder::decode_exact`] restores the source bit for bit.
    fn is_exact(&self) -> bool {
        false
    }

    /// Decodes `tile` into the source's own element type, bit for bit. Only called where
    /// [`TensorDecoder::is_exact`] says so; `out` is as long as the source bytes of the tile.
    ///
    /// # Errors
    /// If the bytes are not a tile of this tensor.
    fn decode_exact(&self, tile: &Tile, parts: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let _ = (parts, out);
        Err(lsb_format::Error::argument(format!("tile {} has no exact form", tile.index)).into())
    }
}

/// Multiplies tiles with activations as they are decoded, so that their weights are never written out: for the few tokens
/// of a step of generation, where decoding and writing weights would take longer than using them. For more tokens, and for
/// weights that stay in memory, a codec may unpack tiles to integers.
pub trait TileProducts: Send + Sync {
    /// Adds to `y`, of shape `[tokens, rows of the tiles]`, the products of `tiles`, neighbours in one row of tiles with
    /// their parts, with the inputs `x`.
    ///
    /// Results are those of decoded weights but for the rounding of sums: with `n` columns, the error of an output is at
    /// most `(n + 16) 2^-23` of the sum of all `|x|` times the largest `|w|` of its row. Inputs of weights that have one bit may be
    /// rounded as [`UnpackedTile::add_products`] says. Results do not depend on the CPU. Two tiles at once are faster than
    /// one by one.
    ///
    /// # Errors
    /// As [`TensorDecoder::decode`]. What is in `y` then is unspecified.
    ///
    /// # Panics
    /// If a length does not fit the tiles.
    fn add_products(&self, tiles: &[(Tile, &[&[u8]])], x: &Activations<'_>, y: &mut [f32]) -> Result<()>;

    /// About how many bits a weight takes unpacked, as [`Packing::Narrow`] is, where it takes `stored` bits in tiles; `None` where
    /// tiles are not unpacked.
    fn unpacked_bits(&self, stored: f64) -> Option<f64> {
        let _ = stored;
        None
    }

    /// Whether tiles can be unpacked.
    fn unpacks(&self) -> bool {
        self.unpacked_bits(0.0).is_some()
    }

    /// Whether products of so many tokens with unpacked tiles, [`TileProducts::unpack`] and all, are faster than decoding and a product
    /// of matrices in f32.
    fn multiplies(&self, tokens: usize) -> bool {
        let _ = tokens;
        self.unpacks()
    }

    /// Bytes that [`Activations`] come to take for each number, besides the number itself, in products of unpacked tiles.
    fn activation_bytes(&self) -> usize {
        0
    }

    /// Unpacks tiles, neighbours in one row of tiles with their parts, to be multiplied more than once. Two tiles at once are
    /// faster than one by one.
    ///
    /// # Errors
    /// As [`TensorDecoder::decode`], and where [`TileProducts::unpacks`] is false.
    fn unpack(&self, tiles: &[(Tile, &[&[u8]])], packing: Packing) -> Result<Vec<UnpackedTile>> {
        let _ = (tiles, packing);
        Err(lsb_format::Error::argument("tiles of this codec are not unpacked").into())
    }

    /// The tiling that a matrix with this one is best unpacked to, by [`TileProducts::unpack_rows`]: no rows are missing at the end of
    /// each tile, or few. That of [`Packing::Bytes`] consists of whole tiles. `None` where tiles are unpacked as they are.
    fn unpacked_tiling(&self, tiling: &Tiling, packing: Packing) -> Option<Tiling> {
        let _ = (tiling, packing);
        None
    }

    /// Unpacks some rows of the matrix out of tiles that lie one below the other and are as wide as the matrix.
    ///
    /// # Errors
    /// As [`TensorDecoder::decode`], and where [`TileProducts::unpacked_tiling`] is `None`.
    ///
    /// # Panics
    /// If the tiles lack one of the rows.
    fn unpack_rows(
        &self,
        tiles: &[(Tile, &[&[u8]])],
        rows: Range<u64>,
        packing: Packing,
    ) -> Result<UnpackedTile> {
        let _ = (tiles, rows, packing);
        Err(lsb_format::Error::argument("rows of this codec's tiles are not unpacked").into())
    }
}

/// Encodes one tile at a time, knowing nothing of its neighbours.
pub trait TileEncoder: Send + Sync {
    /// Encodes the tile, whose source bytes are `bytes` (row-major, the matrix's own element type), into `out`.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] with an index counted inside the tile if a lossy codec meets NaN or infinity.
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()>;
}

/// Turns a [`TileEncoder`] into a [`TensorEncoder`] that works on the tiles of a span in parallel.
#[derive(Debug)]
pub struct PerTile<E> {
    encoder: E,
    side: Vec<u8>,
}

impl<E: TileEncoder> PerTile<E> {
    /// An encoder without side information.
    pub fn new(encoder: E) -> Self {
        PerTile { encoder, side: Vec::new() }
    }

    /// An encoder whose side information is known beforehand.
    pub fn with_side(encoder: E, side: Vec<u8>) -> Self {
        PerTile { encoder, side }
    }
}

impl<E: TileEncoder> TensorEncoder for PerTile<E> {
    fn encode(&mut self, span: &Span<'_>, out: &mut [EncodedTile]) -> Result<()> {
        debug_assert_eq!(out.len(), span.len());
        let encoder = &self.encoder;
        // The first error in tile order wins, whatever order the threads ran in.
        let results: Vec<Result<()>> = out
            .par_iter_mut()
            .enumerate()
            .map(|(i, out)| {
                let _phase = tracing::debug_span!("encoding").entered();
                let tile = span.tile(i);
                encoder.encode_tile(&tile, &span.tile_source(i), out).map_err(|e| match e {
                    crate::Error::NonFinite { index, value } => {
                        crate::Error::NonFinite { index: span.weight_index(i, index), value }
                    }
                    other => other,
                })
            })
            .collect();
        results.into_iter().collect()
    }

    fn side(&self) -> Option<Vec<u8>> {
        Some(self.side.clone())
    }

    fn finish(&mut self) -> Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.side))
    }
}
