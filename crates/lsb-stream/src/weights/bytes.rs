//! Stored bytes in memory that goes back to the system when they are dropped, and reading them in large pieces.

use crate::Result;
use crate::manager::CHUNK_BYTES;
use lsb_format::Error;
use memmap2::MmapMut;
use std::io;
use std::ops::{Deref, DerefMut};

/// Bytes above which memory comes from the system rather than from the allocator. Tensors of many sizes come and
/// go while weights are streamed; the allocator keeps the gaps between them, which took a quarter more memory
/// than the tensors themselves.
const FROM_SYSTEM: usize = 128 << 10;

/// A fixed number of bytes.
#[derive(Debug)]
pub(super) enum Bytes {
    Allocated(Vec<u8>),
    /// Anonymous memory: no file is behind it.
    Mapped(MmapMut),
}

impl Bytes {
    fn zeroed(len: usize) -> io::Result<Self> {
        if len < FROM_SYSTEM {
            return Ok(Bytes::Allocated(vec![0; len]));
        }
        let memory = MmapMut::map_anon(len)?;
        // Touching fresh memory page by page costs as much as reading from a fast disk; in large pages it does
        // not. A kernel without them says so, and nothing is lost.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Bytes::Mapped(memory))
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Bytes::Allocated(Vec::new())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Allocated(bytes) => bytes,
            Bytes::Mapped(bytes) => bytes,
        }
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Bytes::Allocated(bytes) => bytes,
            Bytes::Mapped(bytes) => bytes,
        }
    }
}

/// Reads `len` bytes in order, [`CHUNK_BYTES`] at a time: `read` fills a piece from the byte it is told, and
/// `seen` is shown all bytes read so far after each.
pub(super) fn read_whole(
    len: u64,
    tensor: &str,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<()>,
    mut seen: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Bytes> {
    let no_memory = || {
        Error::argument(format!("no memory to hold {len} bytes"))
            .in_tensor(tensor)
            .advise("lower --target-ram-mb, so that less is held at once")
    };
    let total = usize::try_from(len).map_err(|_| no_memory())?;
    let mut bytes = Bytes::zeroed(total).map_err(|_| no_memory())?;
    let mut at = 0;
    while at < total {
        let end = total.min(at + CHUNK_BYTES as usize);
        read(at as u64, &mut bytes[at..end])?;
        seen(&bytes[..end])?;
        at = end;
    }
    Ok(bytes)
}
