//! The tile table: where the tiles of one stored tensor lie, and their checksums.
//!
//! ```text
//! u8   version = 1         u8  parts per tile     u16 flags = 0
//! u32  tile rows           u32 tile columns
//! [16] first half of the BLAKE3 of the tensor's source bytes
//!      per tile, per part: u32 length, u32 CRC32C
//!      side information of the codec
//! u32  CRC32C of the key, the table's length and all of the above
//! ```
//!
//! All numbers are little-endian. The number of tiles follows from the tensor's shape, the length of the side
//! information from the table's own, which stands in the 4 bytes behind it.

use super::{ShortDigest, TensorKey};
use crate::{Error, ErrorKind, Result, Tile, Tiling};
use std::ops::Range;

const VERSION: u8 = 1;
const FIXED: usize = 28;
const CRC: usize = 4;
const ENTRY: usize = 8;

/// Bytes of the length field behind a table.
const LENGTH: u64 = 4;

/// Largest side information of one tensor in bytes.
pub const MAX_SIDE_BYTES: usize = 16 << 20;

/// Most parts of all tiles of one tensor together, so that a table is bounded before it is read.
const MAX_ENTRIES: u64 = 1 << 23;

/// Most bytes that the parts of a tile of so many weights may hold together.
pub fn max_tile_bytes(weights: u64) -> u64 {
    weights * 16 + (1 << 16)
}

/// The tile table of one stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileTable {
    tiling: Tiling,
    source: ShortDigest,
    entries: Vec<(u32, u32)>,
    side: Vec<u8>,
    // Where each tile ends, counted from the start of the stored tensor.
    ends: Vec<u64>,
}

impl TileTable {
    /// A table of `entries`, each the length and the CRC32C of one part, tile by tile.
    ///
    /// `source` is the hash of the tensor's source bytes, `side` the codec's side information.
    ///
    /// # Errors
    /// P20 if there is not one entry for each part of each tile, or P25 if something exceeds its cap.
    pub fn new(tiling: Tiling, source: ShortDigest, entries: Vec<(u32, u32)>, side: Vec<u8>) -> Result<Self> {
        let expected = entry_count(&tiling)?;
        if entries.len() as u64 != expected {
            return Err(Error::corruption(
                "P20",
                format!("{} parts of tiles where the shape asks for {expected}", entries.len()),
            ));
        }
        if side.len() > MAX_SIDE_BYTES {
            return Err(too_much_side(side.len() as u64));
        }
        let ends = tile_ends(&tiling, &entries)?;
        Ok(TileTable { tiling, source, entries, side, ends })
    }

    /// The table and the length field behind it, as they stand after the tiles.
    pub fn render(&self, key: &TensorKey) -> Vec<u8> {
        let length = FIXED + ENTRY * self.entries.len() + self.side.len() + CRC;
        let mut out = Vec::with_capacity(length + LENGTH as usize);
        out.extend([VERSION, self.tiling.parts(), 0, 0]);
        // Tiles hold at most 2^20 weights, so both sides fit.
        out.extend((self.tiling.tile_rows() as u32).to_le_bytes());
        out.extend((self.tiling.tile_cols() as u32).to_le_bytes());
        out.extend(self.source.as_bytes());
        for (bytes, crc) in &self.entries {
            out.extend(bytes.to_le_bytes());
            out.extend(crc.to_le_bytes());
        }
        out.extend(&self.side);
        // At most 2^23 entries and 2^24 bytes of side information: far below 2^32.
        let length = length as u32;
        out.extend(key.table_crc(&out, length).to_le_bytes());
        out.extend(length.to_le_bytes());
        out
    }

    /// Where the table of a stored tensor of `stored` bytes lies in it, given its last 4 bytes.
    ///
    /// # Errors
    /// P17 if there is no room for such a table, P25 if it is larger than any tensor needs.
    pub fn locate(stored: u64, last: [u8; 4]) -> Result<Range<u64>> {
        let length = u64::from(u32::from_le_bytes(last));
        let least = (FIXED + CRC) as u64;
        let Some(start) = stored.checked_sub(LENGTH + length).filter(|_| length >= least) else {
            return Err(Error::corruption(
                "P17",
                format!("a tile table of {length} bytes in {stored} bytes of stored tensor"),
            ));
        };
        let most = least + MAX_ENTRIES * ENTRY as u64 + MAX_SIDE_BYTES as u64;
        if length > most {
            return Err(Error::corruption("P25", format!("a tile table of {length} bytes: at most {most}")));
        }
        Ok(start..start + length)
    }

    /// Reads the table `bytes` of a `rows` x `cols` tensor whose tiles fill `data` bytes in front of it.
    ///
    /// # Errors
    /// P18 if the checksum is wrong, P19 if the version is unknown, P10 if the tiling is impossible, P20 if the
    /// lengths do not meet `data`, P25 if something exceeds its cap.
    pub fn parse(key: &TensorKey, rows: u64, cols: u64, data: u64, bytes: &[u8]) -> Result<Self> {
        let short =
            || Error::corruption("P17", format!("a tile table of {} bytes is too short", bytes.len()));
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>().ok_or_else(short)?;
        let (rest, crc) = rest.split_last_chunk::<CRC>().ok_or_else(short)?;
        let covered = bytes.get(..bytes.len() - CRC).unwrap_or_default();
        let (found, stored) =
            (key.table_crc(covered, u32::try_from(bytes.len()).unwrap_or(0)), u32::from_le_bytes(*crc));
        if found != stored {
            return Err(Error::corruption(
                "P18",
                format!("the tile table's checksum is {found:08x} and should be {stored:08x}"),
            )
            .advise("the package is damaged here: fetch or build this file again"));
        }
        let [version, parts, f0, f1, r0, r1, r2, r3, c0, c1, c2, c3] =
            fixed.first_chunk::<12>().copied().unwrap_or_default();
        if version != VERSION || [f0, f1] != [0, 0] {
            return Err(Error::new(
                ErrorKind::Compatibility,
                "P19",
                format!(
                    "a tile table of version {version} with flags {f0:02x}{f1:02x}: only version 1 is known"
                ),
            ));
        }
        let tile_rows = u64::from(u32::from_le_bytes([r0, r1, r2, r3]));
        let tile_cols = u64::from(u32::from_le_bytes([c0, c1, c2, c3]));
        let tiling = Tiling::new(rows, cols, tile_rows, tile_cols, parts)?;
        let source = fixed.last_chunk::<16>().copied().unwrap_or_default();

        let table = entry_count(&tiling)? * ENTRY as u64;
        let Some((entries, side)) = usize::try_from(table).ok().and_then(|n| rest.split_at_checked(n)) else {
            return Err(Error::corruption(
                "P20",
                format!(
                    "{} tiles of {parts} parts do not fit into {} bytes of table",
                    tiling.len(),
                    rest.len()
                ),
            ));
        };
        let entries: Vec<(u32, u32)> = entries
            .as_chunks::<ENTRY>()
            .0
            .iter()
            .map(|&[a, b, c, d, e, f, g, h]| {
                (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
            })
            .collect();
        let table = Self::new(tiling, ShortDigest::from_bytes(source), entries, side.to_vec())?;
        if table.data_bytes() != data {
            return Err(Error::corruption(
                "P20",
                format!("the tiles fill {} bytes and the tensor holds {data}", table.data_bytes()),
            ));
        }
        Ok(table)
    }

    /// The partition.
    pub fn tiling(&self) -> &Tiling {
        &self.tiling
    }

    /// Hash of the tensor's source bytes.
    pub fn source_digest(&self) -> ShortDigest {
        self.source
    }

    /// Side information of the codec.
    pub fn side(&self) -> &[u8] {
        &self.side
    }

    /// Bytes of all tiles.
    pub fn data_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Bytes of a stored tensor with this table: tiles, table and length field.
    pub fn stored_bytes(&self) -> u64 {
        self.data_bytes() + (FIXED + ENTRY * self.entries.len() + self.side.len() + CRC) as u64 + LENGTH
    }

    /// Bytes that tile table and length field add to the tiles of a stored tensor.
    pub fn overhead(tiling: &Tiling, side_bytes: usize) -> u64 {
        let entries = tiling.len() * u64::from(tiling.parts());
        (FIXED + CRC + side_bytes) as u64 + ENTRY as u64 * entries + LENGTH
    }

    /// Where tile `index` lies, counted from the start of the stored tensor; `None` past the last tile.
    pub fn range(&self, index: u64) -> Option<Range<u64>> {
        let index = usize::try_from(index).ok()?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        Some(start..*self.ends.get(index)?)
    }

    /// Lengths of the parts of tile `index`; empty past the last tile.
    pub fn part_bytes(&self, index: u64) -> impl Iterator<Item = u32> + '_ {
        self.tile_entries(index).iter().map(|e| e.0)
    }

    /// Checks part `part` of `tile` against its checksum.
    ///
    /// # Errors
    /// P21 if it is damaged.
    pub fn check_part(&self, key: &TensorKey, tile: &Tile, part: u8, payload: &[u8]) -> Result<()> {
        let stored = self.tile_entries(tile.index).get(usize::from(part)).map_or(0, |e| e.1);
        let found = key.tile_crc(tile, part, payload);
        if found == stored {
            return Ok(());
        }
        Err(Error::corruption(
            "P21",
            format!("the checksum of part {part} is {found:08x} and should be {stored:08x}"),
        )
        .in_tile(tile.index)
        .advise("the package is damaged here: fetch or build this file again"))
    }

    fn tile_entries(&self, index: u64) -> &[(u32, u32)] {
        let parts = usize::from(self.tiling.parts());
        usize::try_from(index)
            .ok()
            .and_then(|i| i.checked_mul(parts))
            .and_then(|start| self.entries.get(start..start.checked_add(parts)?))
            .unwrap_or(&[])
    }
}

fn entry_count(tiling: &Tiling) -> Result<u64> {
    // A Tiling has at most 2^32 tiles of 16 parts.
    let count = tiling.len() * u64::from(tiling.parts());
    if count > MAX_ENTRIES {
        return Err(Error::corruption("P25", format!("{count} parts of tiles: at most {MAX_ENTRIES}")));
    }
    Ok(count)
}

fn too_much_side(bytes: u64) -> Error {
    Error::corruption("P25", format!("{bytes} bytes of side information: at most {MAX_SIDE_BYTES}"))
}

fn tile_ends(tiling: &Tiling, entries: &[(u32, u32)]) -> Result<Vec<u64>> {
    let mut ends = Vec::with_capacity(tiling.len() as usize);
    let mut end = 0u64;
    for (index, parts) in entries.chunks(usize::from(tiling.parts())).enumerate() {
        let tile = tiling.tile(index as u64);
        let bytes: u64 = parts.iter().map(|p| u64::from(p.0)).sum();
        let most = max_tile_bytes(tile.rows * tile.cols);
        if bytes > most {
            return Err(Error::corruption(
                "P25",
                format!("{bytes} bytes for {} weights: at most {most}", tile.weights()),
            )
            .in_tile(tile.index));
        }
        // At most 2^23 entries of 2^32 bytes.
        end += bytes;
        ends.push(end);
    }
    Ok(ends)
}

#[cfg(test)]
mod tests;
