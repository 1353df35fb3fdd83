//! Opening a file that somebody else chose: without blocking, and only if it is a regular file.

use crate::error::{Error, Result};
use lsb_format::ErrorKind;
use rustix::fs::OFlags;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What tells a file apart from another one, or from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Length in bytes.
    pub(super) bytes: u64,
    /// Time of the last change, nanoseconds since 1970.
    pub(super) modified_ns: i128,
    /// Number of the file system.
    pub(super) device: u64,
    /// Number of the file in it.
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Identity {
            bytes: metadata.len(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// Opens the regular file at `path`, which errors call `name`.
pub(super) fn open_regular(path: &Path, name: &str) -> Result<(File, Identity)> {
    if name.ends_with(".incomplete") {
        return Err(unfinished(name, "is a download that was not finished"));
    }
    match std::fs::metadata(path) {
        Ok(metadata) => regular(&metadata, name)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_ok() => {
            return Err(unfinished(name, "is a link to a file that is not there"));
        }
        Err(e) => return Err(refused(path, e)),
    }
    // Between the look above and this call the file may have become a pipe: opening must not wait for one.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(|e| refused(path, e))?;
    let metadata = file.metadata().map_err(Error::io("examine", path))?;
    regular(&metadata, name)?;
    Ok((file, Identity::of(&metadata)))
}

/// Reads a small file whole.
pub(super) fn read_small(path: &Path, name: &str, limit: u64, rule: &'static str) -> Result<Vec<u8>> {
    let (file, identity) = open_regular(path, name)?;
    if identity.bytes > limit {
        let message = format!("the file has {} bytes, the limit is {limit}", identity.bytes);
        return Err(lsb_format::Error::corruption(rule, message).in_file(name).into());
    }
    let mut bytes = vec![0; identity.bytes as usize];
    read_exact_at(&file, 0, &mut bytes, path, name)?;
    Ok(bytes)
}

/// Fills `buffer` from `offset` on.
pub(super) fn read_exact_at(
    file: &File,
    offset: u64,
    buffer: &mut [u8],
    path: &Path,
    name: &str,
) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let _phase = tracing::debug_span!("reading").entered();
    fill(offset, buffer, |at, rest| file.read_at(rest, at)).map_err(|fault| match fault {
        Fault::Ended { at } => ended(name, at, offset, buffer.len()),
        Fault::Failed { at, source } => {
            let source = io::Error::new(source.kind(), format!("at byte {at}: {source}"));
            Error::io("read", path)(source)
        }
    })
}

/// Why a buffer could not be filled.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file ends at this offset.
    Ended { at: u64 },
    /// The operating system failed at this offset.
    Failed { at: u64, source: io::Error },
}

/// Fills `buffer` with calls of `read(offset, rest)`, through short reads and interruptions.
pub(super) fn fill(
    offset: u64,
    buffer: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> Result<(), Fault> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(done as u64);
        match read(at, rest) {
            Ok(0) => return Err(Fault::Ended { at }),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Fault::Failed { at, source }),
        }
    }
    Ok(())
}

fn ended(name: &str, at: u64, offset: u64, wanted: usize) -> Error {
    let message =
        format!("the file ends while {wanted} bytes are read from byte {offset}: it became shorter");
    lsb_format::Error::new(ErrorKind::Truncated, "F21", message)
        .in_file(name)
        .at(at)
        .advise("something else writes to the model; stop it and start again")
        .into()
}

fn regular(metadata: &Metadata, name: &str) -> Result<()> {
    let kind = metadata.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(lsb_format::Error::new(
        ErrorKind::Compatibility,
        "B15",
        format!("this is {what}, not a regular file"),
    )
    .in_file(name)
    .into())
}

fn unfinished(name: &str, what: &str) -> Error {
    lsb_format::Error::new(ErrorKind::Truncated, "B12", format!("the file {what}"))
        .in_file(name)
        .advise("finish the download")
        .into()
}

/// An error of the operating system, with the file's mode where that explains it.
fn refused(path: &Path, source: io::Error) -> Error {
    let source = match (source.kind(), path.metadata()) {
        (io::ErrorKind::PermissionDenied, Ok(m)) => {
            let mode = m.mode() & 0o7777;
            io::Error::new(source.kind(), format!("{source} (mode {mode:04o}, owned by user {})", m.uid()))
        }
        _ => source,
    };
    Error::io("open", path)(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_goes_on_after_short_reads_and_interruptions() {
        let data: Vec<u8> = (0..50).collect();
        let mut calls = 0;
        let mut buffer = [0; 20];
        fill(10, &mut buffer, |at, rest| {
            calls += 1;
            if calls % 2 == 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = rest.len().min(3);
            rest[..n].copy_from_slice(&data[at as usize..at as usize + n]);
            Ok(n)
        })
        .unwrap();
        assert_eq!(buffer[..], data[10..30]);
    }

    #[test]
    fn an_end_or_a_failure_names_its_offset() {
        let mut buffer = [0; 8];
        let end = fill(100, &mut buffer, |at, rest| Ok(if at < 103 { rest.len().min(3) } else { 0 }));
        assert!(matches!(end, Err(Fault::Ended { at: 103 })));
        let failed = fill(100, &mut buffer, |_, _| Err(io::Error::from_raw_os_error(5)));
        assert!(matches!(failed, Err(Fault::Failed { at: 100, .. })));
    }
}
