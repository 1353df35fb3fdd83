//! Packages on disk: writing one so that a kill at any moment loses little, reading one with every check on,
//! and verifying one.
//!
//! `docs/format.md` describes the bytes, the staging directory and the journal.

mod begin;
mod journal;
mod layout;
mod publish;
mod reader;
mod staging;
mod tensor;
mod verify;
mod writer;

pub use begin::{Begin, WriteOptions};
pub use journal::FinishedTensor;
pub use layout::TensorPlan;
pub use publish::Published;
pub use reader::Package;
pub use tensor::PackedTensor;
pub use verify::{Damage, Depth, VerifyReport, verify, verify_in};
pub use writer::{GROUP_SOURCE_BYTES, PackageWriter};

use crate::store::StoreFile;
use crate::{Error, Result};
use std::path::Path;

/// Name of the journal inside a staging directory.
const JOURNAL_FILE: &str = "lsb.journal";

/// Bytes read or written at a time where content is only passed through.
const CHUNK_BYTES: usize = 1 << 20;

/// Fills `buffer` from a file of a package; a file that ends too early is a damaged one.
fn read_exact(file: &dyn StoreFile, path: &Path, buffer: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            let end = offset.saturating_add(buffer.len() as u64);
            let kind = lsb_format::ErrorKind::Truncated;
            let message = format!("the file ends before byte {end}");
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            lsb_format::Error::new(kind, "P12", message).in_file(name).at(offset).into()
        }
        _ => Error::io("read", path)(e),
    })
}
