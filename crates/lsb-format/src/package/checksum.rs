//! Hashes as they stand in records, and the checksums that bind bytes to their place.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// `N` bytes of a BLAKE3 hash, written as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash<const N: usize>([u8; N]);

/// A whole BLAKE3 hash.
pub type Digest = Hash<32>;

/// The first half of a BLAKE3 hash: enough against accidents, and half as long in a manifest.
pub type ShortDigest = Hash<16>;

impl<const N: usize> Hash<N> {
    /// The hash of `bytes`, cut to `N` bytes (at most 32).
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_blake3(&blake3::hash(bytes))
    }

    /// A BLAKE3 hash cut to `N` bytes (at most 32).
    pub fn from_blake3(hash: &blake3::Hash) -> Self {
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
        Hash(out)
    }

    /// These bytes as they are.
    pub const fn from_bytes(bytes: [u8; N]) -> Self {
        Hash(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }

    /// The hash written as `text`, or `None` unless it is exactly `2 N` lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let mut out = [0; N];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != N || !rest.is_empty() {
            return None;
        }
        for (to, &[high, low]) in out.iter_mut().zip(pairs) {
            *to = digit(high)? << 4 | digit(low)?;
        }
        Some(Hash(out))
    }
}

impl<const N: usize> fmt::Display for Hash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Hash<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for Hash<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hash<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| {
            de::Error::custom(format_args!("a hash must be {} lower-case hexadecimal digits", 2 * N))
        })
    }
}

/// Names one tensor of one package inside checksums, so that bytes of another place never pass for its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorKey([u8; 16]);

impl TensorKey {
    /// The key of tensor `name` in the package whose id is `package`.
    pub fn new(package: &str, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(package.as_bytes());
        hasher.update(name.as_bytes());
        TensorKey(*ShortDigest::from_blake3(&hasher.finalize()).as_bytes())
    }

    /// CRC32C of one part of one tile, bound to its tensor, number and size.
    pub fn tile_crc(&self, tile: &crate::Tile, part: u8, payload: &[u8]) -> u32 {
        // Tile numbers and sizes are below 2^32 by the rules of `Tiling`.
        let place =
            [tile.index, u64::from(part), tile.rows, tile.cols, payload.len() as u64].map(|v| v as u32);
        let mut crc = crc32c::crc32c(&self.0);
        for value in place {
            crc = crc32c::crc32c_append(crc, &value.to_le_bytes());
        }
        crc32c::crc32c_append(crc, payload)
    }

    /// CRC32C of a tile table, bound to its tensor.
    pub(super) fn table_crc(&self, table: &[u8], table_length: u32) -> u32 {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&self.0), &table_length.to_le_bytes());
        crc32c::crc32c_append(crc, table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_strict() {
        let hash = ShortDigest::of(b"lsb");
        assert_eq!(ShortDigest::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(ShortDigest::from_hex(&hash.to_string().to_uppercase()), None);
        assert_eq!(ShortDigest::from_hex(&hash.to_string()[1..]), None);
        assert_eq!(Digest::from_hex(&hash.to_string()), None);
        assert_eq!(ShortDigest::from_hex("é"), None);
    }

    // Checksums are part of the format: a change of these values breaks every package that exists.
    #[test]
    fn v1_checksum_values_are_frozen() {
        let key = TensorKey::new("0123456789abcdef", "w");
        let tile = crate::Tiling::standard(3, 5).unwrap().tile(0);
        assert_eq!(key.tile_crc(&tile, 0, b"payload"), 0xf11f_d447);
        assert_ne!(key.tile_crc(&tile, 1, b"payload"), key.tile_crc(&tile, 0, b"payload"));
        assert_eq!(key.table_crc(b"table", 9), 0x6d23_4f79);
    }
}
