//! One tensor of an open package: reads its tiles, each checked against its checksum every time.

use super::read_exact;
use crate::store::StoreFile;
use crate::{Error, Result};
use lsb_format::package::{ShortDigest, StoredTensor, TensorKey, TileTable};
use lsb_format::{Error as FormatError, Tiling, escape};
use lsb_quant::{MatrixInfo, Parameters};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A stored tensor whose tile table has been read and checked. May be shared between threads.
#[derive(Debug)]
pub struct PackedTensor {
    file: Arc<dyn StoreFile>,
    path: PathBuf,
    key: TensorKey,
    place: Range<u64>,
    name: String,
    stored: StoredTensor,
    codec: String,
    parameters: Parameters,
    table: TileTable,
}

impl PackedTensor {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn open(
        file: Arc<dyn StoreFile>,
        path: PathBuf,
        key: TensorKey,
        place: Range<u64>,
        name: String,
        stored: StoredTensor,
        codec: String,
        parameters: Parameters,
    ) -> Result<Self> {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let table = read_table(&*file, &path, &key, &place, &stored).map_err(|e| match e {
            Error::Input(e) => Error::Input(e.in_tensor(name.as_str()).in_file(file_name)),
            e => e,
        })?;
        Ok(PackedTensor { file, path, key, place, name, stored, codec, parameters, table })
    }

    /// Its name: of a tensor that is the same as another one, that one's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Element type and shape as the manifest gives them.
    pub fn stored(&self) -> &StoredTensor {
        &self.stored
    }

    /// Shape as a matrix, and element type.
    pub fn matrix(&self) -> MatrixInfo {
        MatrixInfo::of_shape(&self.stored.shape, self.stored.dtype)
    }

    /// Id of its codec.
    pub fn codec(&self) -> &str {
        &self.codec
    }

    /// Parameters of its codec.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The partition into tiles.
    pub fn tiling(&self) -> &Tiling {
        self.table.tiling()
    }

    /// Side information for the codec's decoder.
    pub fn side(&self) -> &[u8] {
        self.table.side()
    }

    /// Hash of the source bytes it was made from.
    pub fn source_digest(&self) -> ShortDigest {
        self.table.source_digest()
    }

    /// Bytes it takes in its shard, tile table included.
    pub fn stored_bytes(&self) -> u64 {
        self.place.end - self.place.start
    }

    /// Bytes of its largest tile, all parts together.
    pub fn largest_tile_bytes(&self) -> u64 {
        let tiles = (0..self.tiling().len()).filter_map(|i| self.table.range(i));
        tiles.map(|range| range.end - range.start).max().unwrap_or(0)
    }

    /// Name of its shard.
    pub fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Reads the first `parts` parts (at most all) of tile `index` into `buffer` and returns them, checked.
    ///
    /// # Errors
    /// [`Error::Input`] naming file, tensor and tile if the bytes are damaged, [`Error::Io`] if they cannot be
    /// read.
    pub fn read_tile<'b>(&self, index: u64, parts: u8, buffer: &'b mut Vec<u8>) -> Result<Vec<&'b [u8]>> {
        let Some(range) = self.table.range(index) else { return Err(self.no_tile(index)) };
        let lengths: Vec<usize> =
            self.table.part_bytes(index).take(usize::from(parts)).map(|n| n as usize).collect();
        // The table's rules keep a tile below 17 MiB.
        buffer.clear();
        buffer.resize(lengths.iter().sum(), 0);
        let offset = self.place.start + range.start;
        read_exact(&*self.file, &self.path, buffer, offset).map_err(|e| self.locate(e, index, offset))?;
        self.split(index, &lengths, buffer, true)
    }

    /// Bytes of all tiles, which lie in order in front of the tile table.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.table.data_bytes()
    }

    /// Where tile `index` lies among the bytes of all tiles; `None` past the last tile.
    pub(crate) fn data_range(&self, index: u64) -> Option<Range<u64>> {
        self.table.range(index)
    }

    /// Fills `out` with bytes of the tiles, from byte `at` of the first one on, unchecked.
    pub(crate) fn read_data(&self, at: u64, out: &mut [u8]) -> Result<()> {
        let offset = self.place.start + at;
        read_exact(&*self.file, &self.path, out, offset).map_err(|e| match self.name_io(e) {
            Error::Input(e) => Error::Input(e.in_file(self.file_name()).in_tensor(&*self.name).at(offset)),
            e => e,
        })
    }

    /// Checks tile `index` in `data`, which begins with the first tile and holds at least this one.
    pub(crate) fn check_tile(&self, index: u64, data: &[u8]) -> Result<()> {
        self.tile_from(index, data, true).map(|_| ())
    }

    /// The parts of tile `index` in `data`, the bytes of all tiles, which were checked before.
    pub(crate) fn tile_in<'b>(&self, index: u64, data: &'b [u8]) -> Result<Vec<&'b [u8]>> {
        self.tile_from(index, data, false)
    }

    fn tile_from<'b>(&self, index: u64, data: &'b [u8], check: bool) -> Result<Vec<&'b [u8]>> {
        let range = self.table.range(index).map(|r| r.start as usize..r.end as usize);
        let Some(bytes) = range.and_then(|range| data.get(range)) else {
            return Err(self.no_tile(index));
        };
        let lengths: Vec<usize> = self.table.part_bytes(index).map(|n| n as usize).collect();
        self.split(index, &lengths, bytes, check)
    }

    /// Cuts the bytes of a tile, as many as `lengths` say together, into its parts.
    fn split<'b>(
        &self,
        index: u64,
        lengths: &[usize],
        bytes: &'b [u8],
        check: bool,
    ) -> Result<Vec<&'b [u8]>> {
        let tile = self.tiling().tile(index);
        let mut at = self.place.start + self.table.range(index).map_or(0, |range| range.start);
        let mut rest = bytes;
        let mut out = Vec::with_capacity(lengths.len());
        for (part, &length) in (0u8..).zip(lengths) {
            let (payload, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            if check {
                let result = self.table.check_part(&self.key, &tile, part, payload);
                result.map_err(|e| self.locate(e.into(), index, at))?;
            }
            out.push(payload);
            rest = behind;
            at += length as u64;
        }
        Ok(out)
    }

    fn no_tile(&self, index: u64) -> Error {
        let count = self.tiling().len();
        FormatError::argument(format!("tile {index} of {count}")).in_tensor(&*self.name).into()
    }

    /// Compares the hash of the whole tensor, once `hasher` has seen its `data` bytes of tiles.
    pub(super) fn check_hash(&self, mut hasher: blake3::Hasher, data: u64) -> Result<()> {
        let start = self.place.start + data;
        // The table and its length field: at most 80 MiB.
        let mut rest = vec![0; usize::try_from(self.place.end - start).unwrap_or(0)];
        read_exact(&*self.file, &self.path, &mut rest, start)?;
        hasher.update(&rest);
        let (found, stored) = (ShortDigest::from_blake3(&hasher.finalize()), self.stored.blake3);
        if found == stored {
            return Ok(());
        }
        let message = format!("the tensor's hash is {found} and should be {stored}");
        let error = FormatError::corruption("P22", message).in_file(self.file_name()).in_tensor(&*self.name);
        Err(error.advise("fetch or build this file again").into())
    }

    fn locate(&self, error: Error, tile: u64, offset: u64) -> Error {
        match self.name_io(error) {
            Error::Input(e) => {
                Error::Input(e.in_file(self.file_name()).in_tensor(&*self.name).in_tile(tile).at(offset))
            }
            e => e,
        }
    }

    /// Puts the tensor into an error of the operating system, which knows the file only.
    fn name_io(&self, error: Error) -> Error {
        match error {
            Error::Io { action, path, source } => {
                let message = format!("tensor \"{}\": {source}", escape(&self.name));
                Error::Io { action, path, source: std::io::Error::new(source.kind(), message) }
            }
            e => e,
        }
    }
}

fn read_table(
    file: &dyn StoreFile,
    path: &Path,
    key: &TensorKey,
    place: &Range<u64>,
    stored: &StoredTensor,
) -> Result<TileTable> {
    let total = place.end - place.start;
    let Some(length_at) = place.end.checked_sub(4).filter(|_| total >= 4) else {
        return Err(FormatError::corruption("P17", format!("{total} bytes hold no tile table")).into());
    };
    let mut last = [0; 4];
    read_exact(file, path, &mut last, length_at)?;
    let range = TileTable::locate(total, last).map_err(|e| e.at(length_at))?;
    let offset = place.start + range.start;
    // At most 80 MiB by the rules of `locate`, and it lies inside the file.
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
    read_exact(file, path, &mut bytes, offset)?;
    let matrix = MatrixInfo::of_shape(&stored.shape, stored.dtype);
    TileTable::parse(key, matrix.rows, matrix.cols, range.start, &bytes).map_err(|e| e.at(offset).into())
}
