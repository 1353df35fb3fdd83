//! Weights from either side: the tensors of a source model and of a package behind one small trait.
//!
//! A [`WeightSource`] lists its tensors and opens them one at a time; a [`TensorWeights`] reads any run of
//! elements as f32, from any thread, decoding no more than the tiles that cover it. Who needs whole layers,
//! row blocks or the whole tensor reads runs; nobody above this module asks where the weights come from.
//!
//! An open tensor reads its file whenever a run is asked for; a held one has all its stored bytes in memory.
//! [`WeightStream`] holds the tensors that a forward pass asks for next.

mod bytes;
mod cover;
mod held;
mod memory;
mod model;
mod package;
mod reserved;
pub mod stream;
mod unpacked;

pub use memory::MemoryWeights;
pub use model::ModelWeights;
pub use package::PackageWeights;
pub(crate) use package::written;
pub use reserved::ReservedWeights;
pub use stream::{StreamFigures, StreamOptions, WeightStream};
pub use unpacked::UnpackedWeights;

use crate::Result;
use crate::package::Package;
use crate::source::{Model, OpenOptions};
use lsb_format::package::MANIFEST_FILE;
use lsb_format::{DType, Tiling};
use lsb_quant::{Activations, MatrixInfo, Parameters, Registry};
use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;

/// What is known about a tensor without reading a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorFacts {
    /// Name in the model.
    pub name: String,
    /// Layer it belongs to, such as `layer 3`, `before layers` or `after layers`; empty where nobody said.
    pub layer: String,
    /// Element type in the model (for a package: in the source it was made from).
    pub dtype: DType,
    /// Shape in the model.
    pub shape: Vec<u64>,
    /// Bytes it takes in its file or package; 0 where it is stored with another tensor.
    pub stored_bytes: u64,
    /// Codec and its parameters; `None` where the weights lie in their own type, as in a source model.
    pub codec: Option<(String, Parameters)>,
    /// The tensor of the same source this one is identical to and stored with.
    pub same_as: Option<String>,
}

impl TensorFacts {
    /// The tensor as a matrix.
    pub fn matrix(&self) -> MatrixInfo {
        MatrixInfo::of_shape(&self.shape, self.dtype)
    }

    /// Number of elements.
    pub fn weights(&self) -> u64 {
        self.matrix().weights()
    }

    /// Id of the codec, or `none` for a tensor of a source model.
    pub fn codec_id(&self) -> &str {
        self.codec.as_ref().map_or("none", |(id, _)| id)
    }
}

/// Tensors that can be read a run at a time: a source model, a package, or weights in memory.
pub trait WeightSource: Debug + Send + Sync {
    /// Every tensor, in the order of the files; names are unique.
    fn tensors(&self) -> &[TensorFacts];

    /// Opens tensor number `tensor` of [`WeightSource::tensors`] for reading. What this holds in memory
    /// (tile table, side information) is freed on drop, so open tensors when they are needed.
    ///
    /// # Errors
    /// If the number does not exist, or the tensor's records are damaged.
    fn open(&self, tensor: usize) -> Result<Box<dyn TensorWeights>>;

    /// As [`WeightSource::open`], with all stored bytes read into memory now, in order and in large pieces,
    /// and their checksums checked: what is returned never reads a file.
    ///
    /// # Errors
    /// As [`WeightSource::open`]; if the file cannot be read, what is stored is damaged, or memory runs out.
    fn hold(&self, tensor: usize) -> Result<Box<dyn TensorWeights>>;

    /// Bytes of memory that [`WeightSource::hold`] takes: the stored bytes, tile table included, of a tensor
    /// stored with another one that one's. 0 for a number that does not exist.
    fn held_bytes(&self, tensor: usize) -> u64;

    /// Stored bytes read from files so far by whatever was opened or held here; always 0 where nothing lies
    /// in files.
    fn bytes_read(&self) -> u64 {
        0
    }

    /// The number of the tensor of that name.
    fn find(&self, name: &str) -> Option<usize> {
        self.tensors().iter().position(|t| t.name == name)
    }
}

/// Opens what is at `path`: a package where a manifest lies in it, a model everywhere else (a folder, a file,
/// or an id in the Hub's local cache). A package is decoded with the codecs of `registry`; `options` are for
/// models.
///
/// # Errors
/// As [`Model::open`], or as [`Package::open`] and [`PackageWeights::new`].
pub fn open_weights(
    path: &Path,
    registry: &Registry,
    options: &OpenOptions,
) -> Result<Box<dyn WeightSource>> {
    if path.join(MANIFEST_FILE).is_file() {
        return Ok(Box::new(PackageWeights::new(Package::open(path)?, registry)?));
    }
    Ok(Box::new(ModelWeights::new(Model::open(path, options)?)))
}

/// One open or held tensor. Elements are counted row-major over the whole tensor. Any number of threads may
/// read runs at once, each with a [`Scratch`] of its own.
pub trait TensorWeights: Send + Sync {
    /// What is known about it.
    fn facts(&self) -> &TensorFacts;

    /// The natural partition: runs that end where its tiles end decode nothing twice.
    fn tiling(&self) -> &Tiling;

    /// True where [`TensorWeights::read_exact`] gives the bytes of the original model.
    fn is_exact(&self) -> bool;

    /// Bytes a [`Scratch`] grows to while runs of this tensor are read: at most one tile, encoded (where it is
    /// not held) and decoded.
    fn scratch_bytes(&self) -> u64;

    /// Reads `elements` as f32 into `out`, which is as long as the run.
    ///
    /// # Errors
    /// If the run is out of bounds or `out` has another length, if the element type is not a float, if the
    /// file cannot be read, or if what is stored is damaged. What is in `out` then is unspecified.
    fn read_f32(&self, elements: Range<u64>, out: &mut [f32], scratch: &mut Scratch) -> Result<()>;

    /// Reads `elements` as little-endian bytes of the tensor's own type, bit for bit, into `out`, which is
    /// as long as the run.
    ///
    /// # Errors
    /// As [`TensorWeights::read_f32`], and where [`TensorWeights::is_exact`] is false. Runs of elements
    /// narrower than a byte must start and end at whole bytes.
    fn read_exact(&self, elements: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> Result<()>;

    /// True where [`TensorWeights::add_products`] multiplies tiles with so many tokens.
    fn has_products(&self, tokens: usize) -> bool {
        let _ = tokens;
        false
    }

    /// Bytes that [`Activations`] come to take for each number, besides the number itself, in products with more than [`FEW_TOKENS`]
    /// tokens; [`Activations::MOST_BYTES`] at most.
    fn activation_bytes(&self) -> usize {
        0
    }

    /// The tiling whose tiles [`TensorWeights::add_products`] takes for so many tokens.
    fn products_tiling(&self, tokens: usize) -> Tiling {
        let _ = tokens;
        *self.tiling()
    }

    /// Adds to `y`, of shape `[tokens, rows of the tiles]`, the products of `tiles` of [`TensorWeights::products_tiling`],
    /// neighbours in one row of tiles, with the inputs `x` of the matrix. The weights are never written out as f32; results are
    /// as near to those of decoded weights as [`lsb_quant::TileProducts`] says, and with more than [`FEW_TOKENS`] tokens as
    /// [`UnpackedTile::add_products`](lsb_quant::UnpackedTile::add_products) says. Two tiles at once are faster than one by
    /// one.
    ///
    /// # Errors
    /// As [`TensorWeights::read_f32`], and where [`TensorWeights::has_products`] is false. What is in `y` then is
    /// unspecified.
    ///
    /// # Panics
    /// If `tiles` are not of one row of tiles, or a length does not fit them.
    fn add_products(
        &self,
        tiles: Range<u64>,
        x: &Activations<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let _ = (tiles, x, y, scratch);
        Err(no_products(self.facts()))
    }

    /// About how many bytes of memory [`TensorWeights::unpack`] takes; `None` where the codec unpacks nothing.
    fn unpacked_bytes(&self) -> Option<u64> {
        None
    }

    /// The same weights unpacked into memory, to be multiplied many times as fast as memory gives them; `None` where they take
    /// more than `room` bytes, or their codec unpacks nothing.
    ///
    /// # Errors
    /// As [`TensorWeights::read_f32`].
    fn unpack(&self, room: u64) -> Result<Option<UnpackedWeights>> {
        let _ = room;
        Ok(None)
    }
}

/// Up to so many tokens, levels are multiplied as they are decoded; with more, a tile is decoded to integers first.
pub const FEW_TOKENS: usize = 8;

impl Debug for dyn TensorWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.facts().fmt(f)
    }
}

/// Buffers for reading, reused from run to run. One per thread.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Bytes as they are stored.
    pub(crate) stored: Vec<u8>,
    /// Those of a second tile, where two are multiplied at once.
    pub(crate) second: Vec<u8>,
    /// Those of all tiles that are unpacked as one.
    pub(crate) several: Vec<Vec<u8>>,
    /// One decoded tile that a run covers in part.
    pub(crate) values: Vec<f32>,
    /// The same, in the tensor's own type.
    pub(crate) exact: Vec<u8>,
}

impl Scratch {
    /// Bytes the buffers have grown to.
    pub fn held_bytes(&self) -> u64 {
        let values = self.values.capacity() * size_of::<f32>();
        let several: usize = self.several.iter().map(Vec::capacity).sum();
        (self.stored.capacity() + self.second.capacity() + several + values + self.exact.capacity()) as u64
    }
}

/// The facts of tensor number `tensor`, or that there is no such number.
fn facts_of(facts: &[TensorFacts], tensor: usize) -> Result<&TensorFacts> {
    let missing = || lsb_format::Error::argument(format!("tensor {tensor} of {}", facts.len()));
    Ok(facts.get(tensor).ok_or_else(missing)?)
}

/// Checks a run against the tensor and the buffer that is to take it, at `bits` bits per element.
fn check_run(facts: &TensorFacts, elements: &Range<u64>, out_bytes: usize, bits: u64) -> Result<()> {
    let weights = facts.weights();
    let inside = elements.start <= elements.end && elements.end <= weights;
    // Inside the tensor, the products cannot overflow: its bytes were counted when it was opened.
    let whole_bytes = inside && (elements.start * bits).is_multiple_of(8);
    if !whole_bytes || (elements.end - elements.start) * bits != out_bytes as u64 * 8 {
        return Err(lsb_format::Error::argument(format!(
            "elements {}..{} of {weights} do not fit a buffer of {out_bytes} bytes",
            elements.start, elements.end
        ))
        .in_tensor(&facts.name)
        .into());
    }
    Ok(())
}

/// The error of weights that are not bit for bit those of the source.
fn not_exact(facts: &TensorFacts) -> crate::Error {
    let message = format!("{} does not keep the bits of the source", facts.codec_id());
    lsb_format::Error::argument(message).in_tensor(&facts.name).into()
}

/// The error of weights that cannot be multiplied as they are decoded.
fn no_products(facts: &TensorFacts) -> crate::Error {
    let message = format!("{} has no products of its own", facts.codec_id());
    lsb_format::Error::argument(message).in_tensor(&facts.name).into()
}

/// Refuses to read elements that are not real numbers as f32.
fn check_float(facts: &TensorFacts) -> Result<()> {
    if facts.dtype.is_float() {
        return Ok(());
    }
    Err(lsb_format::Error::argument(format!("elements of type {} are not real numbers", facts.dtype))
        .in_tensor(&facts.name)
        .into())
}

#[cfg(test)]
mod tests;
