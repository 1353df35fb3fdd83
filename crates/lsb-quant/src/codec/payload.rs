//! Reading the bytes of one tile front to back, believing none of them.

use lsb_format::{Error, Result};

/// What is left of a tile's payload.
#[derive(Debug)]
pub(crate) struct Payload<'a> {
    left: &'a [u8],
    length: usize,
}

impl<'a> Payload<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Payload { left: bytes, length: bytes.len() }
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, what: &str, n: usize) -> Result<&'a [u8]> {
        match self.left.split_at_checked(n) {
            Some((taken, left)) => {
                self.left = left;
                Ok(taken)
            }
            None => {
                let (at, length) = (self.length - self.left.len(), self.length);
                let message = format!("a tile of {length} bytes needs {n} bytes for its {what} at byte {at}");
                Err(Error::corruption("P30", message))
            }
        }
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let taken = self.take(what, N)?;
        Ok(std::array::from_fn(|i| taken[i]))
    }

    /// The next four bytes as an integer.
    pub(crate) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// All bytes not yet taken.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.left
    }

    /// Ends reading.
    ///
    /// # Errors
    /// If bytes are left over.
    pub(crate) fn finish(self) -> Result<()> {
        if self.left.is_empty() {
            return Ok(());
        }
        let message = format!("{} bytes too many in a tile of {} bytes", self.left.len(), self.length);
        Err(Error::corruption("P30", message))
    }
}
