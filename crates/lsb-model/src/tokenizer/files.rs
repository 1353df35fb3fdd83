//! Reads the small files beside a model: bounded, regular files only, JSON checked before it is parsed.

use crate::error::Result;
use lsb_format::json::{Rules, check_document};
use lsb_format::{Error, ErrorKind};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The longest configuration or chat template that is read, in bytes; real ones have some ten thousand.
pub(crate) const SMALL: u64 = 16 << 20;

/// Rules of JSON texts beside the model.
pub(crate) const RULES: Rules = Rules {
    encoding: "T3",
    syntax: "T3",
    kind: "T3",
    depth: "T3",
    surrogate: "T3",
    number: "T3",
    duplicate: "T3",
};

/// Reads the file `name` in `dir`, which must not be longer than `limit` bytes; `None` where there is none.
///
/// # Errors
/// `T2` for a longer file, `T1` for one that cannot be read or is no regular file.
pub(crate) fn read(dir: &Path, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let path = dir.join(name);
    let shown = path.display().to_string();
    let fault = |e: io::Error| {
        Error::new(ErrorKind::InvalidArgument, "T1", format!("cannot be read: {e}")).in_file(shown.as_str())
    };
    // A look before opening, because opening a pipe waits.
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fault(e).into()),
    };
    if !metadata.is_file() {
        return Err(Error::corruption("T1", "is not a regular file").in_file(shown.as_str()).into());
    }
    let mut bytes = Vec::new();
    if metadata.len() <= limit {
        File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(fault)?;
    }
    let length = metadata.len().max(bytes.len() as u64);
    if length > limit {
        let message = format!("the file has {length} bytes, the limit is {limit}");
        return Err(Error::corruption("T2", message).in_file(shown.as_str()).into());
    }
    Ok(Some(bytes))
}

/// Reads the JSON object in the file `name` in `dir`; `None` where there is no such file.
///
/// # Errors
/// As [`read`], and `T3` where it is not one sound JSON object.
pub(crate) fn read_json(dir: &Path, name: &str) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = read(dir, name, SMALL)? else { return Ok(None) };
    check_document(&bytes, RULES).map_err(|e| e.in_file(name))?;
    match serde_json::from_slice(&bytes) {
        Ok(object) => Ok(Some(object)),
        Err(e) => Err(Error::corruption("T3", format!("not readable as JSON: {e}")).in_file(name).into()),
    }
}
