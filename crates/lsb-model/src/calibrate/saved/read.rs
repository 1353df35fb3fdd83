//! Opens a file of statistics and checks what it claims.

use super::record::{KEY, MapRecord, Record, VERSION, triangle};
use lsb_format::safetensors::{DEFAULT_HEADER_LIMIT, Header, PREFIX_LEN, header_len};
use lsb_format::{DType, ErrorKind};
use lsb_stream::store::{OpenMode, RealStore, Store, StoreFile};
use lsb_stream::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that are read at once where all of a tensor is checked.
const PIECE: usize = 1 << 20;

/// An open file of statistics, whose names, types and shapes have been checked.
#[derive(Debug)]
pub(super) struct StatisticsFile {
    path: PathBuf,
    file: Box<dyn StoreFile>,
    pub(super) record: Record,
    /// BLAKE3 of the header, in hexadecimal digits; the header has the digests of all data.
    pub(super) digest: String,
    inputs: Vec<Input>,
    outputs: Vec<Option<Extent>>,
    by_name: HashMap<String, usize>,
}

/// An input and where its numbers lie.
#[derive(Debug)]
struct Input {
    n: usize,
    diagonal: Extent,
    moments: Extent,
    /// Whether the moments were found to be as their digest says, and finite.
    checked: AtomicBool,
}

/// Numbers in the file.
#[derive(Clone, Copy, Debug)]
struct Extent {
    at: u64,
    bytes: u64,
}

/// True where `path` is a safetensors file rather than text, by its first bytes: a header's length, and a brace.
///
/// # Errors
/// If it cannot be read.
pub(in crate::calibrate) fn is_safetensors(path: &Path) -> Result<bool> {
    let file = RealStore.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let mut start = [0; 9];
    match file.read_exact_at(&mut start, 0) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read.map_err(Error::io("read", path))?,
    }
    // The length in eight letters is beyond any limit.
    let [length @ .., brace] = start;
    Ok(u64::from_le_bytes(length) <= DEFAULT_HEADER_LIMIT && brace == b'{')
}

impl StatisticsFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, is no file of statistics, of another version, cut short, or contradicts itself.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = RealStore.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
        Self::of(path, file).map_err(|e| match e {
            Error::Input(e) => Error::Input(e.in_file(path.display().to_string())),
            other => other,
        })
    }

    fn of(path: &Path, file: Box<dyn StoreFile>) -> Result<Self> {
        let size = file.size().map_err(Error::io("read", path))?;
        let mut first = [0; PREFIX_LEN as usize];
        if size < PREFIX_LEN {
            return Err(lsb_format::Error::new(ErrorKind::Truncated, "C1", "the file has no header").into());
        }
        file.read_exact_at(&mut first, 0).map_err(Error::io("read", path))?;
        let len = header_len(first, size, DEFAULT_HEADER_LIMIT)?;
        let mut json = vec![0; len as usize];
        file.read_exact_at(&mut json, PREFIX_LEN).map_err(Error::io("read", path))?;
        let header = Header::parse(&json, size - PREFIX_LEN - len)?;
        let record = header.metadata().find(|(key, _)| *key == KEY).map(|(_, value)| value);
        let Some(record) = record else {
            return Err(lsb_format::Error::new(
                ErrorKind::Compatibility,
                "C1",
                "this safetensors file holds no calibration statistics",
            )
            .advise("--calib takes a text, or what `lsb calibrate` saved")
            .into());
        };
        let record = parse(record)?;
        let mut out = StatisticsFile {
            path: path.to_owned(),
            file,
            digest: blake3::hash(&json).to_hex().to_string(),
            inputs: Vec::with_capacity(record.inputs.len()),
            outputs: Vec::with_capacity(record.maps.len()),
            by_name: HashMap::with_capacity(record.maps.len()),
            record,
        };
        for input in &out.record.inputs {
            let (diagonal, n) = extent(&header, &input.diagonal_tensor(), DType::F32)?;
            let (moments, entries) = extent(&header, &input.moments_tensor(), DType::F32)?;
            if n == 0 || triangle(n) != Some(entries) {
                let message = format!("{entries} moments are not those of {n} inputs");
                return Err(wrong("C4", message).in_tensor(input.moments_tensor()).into());
            }
            out.inputs.push(Input { n: n as usize, diagonal, moments, checked: AtomicBool::new(false) });
        }
        for (i, map) in out.record.maps.iter().enumerate() {
            if map.input >= out.inputs.len() {
                let message = format!("the map names input {} of {}", map.input, out.inputs.len());
                return Err(wrong("C4", message).in_tensor(&map.tensor).into());
            }
            if out.by_name.insert(map.tensor.clone(), i).is_some() {
                return Err(wrong("C4", "the map is there twice").in_tensor(&map.tensor).into());
            }
            let outputs = map.outputs.as_ref().map(|_| extent(&header, &map.outputs_tensor(), DType::F64));
            out.outputs.push(outputs.transpose()?.map(|(extent, _)| extent));
        }
        Ok(out)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the map of this tensor.
    pub(super) fn find(&self, tensor: &str) -> Option<usize> {
        self.by_name.get(tensor).copied()
    }

    /// Inputs of input number `input`.
    pub(super) fn width(&self, input: usize) -> usize {
        self.inputs[input].n
    }

    /// Outputs of map number `map`, where their costs are there.
    pub(super) fn rows(&self, map: usize) -> Option<u64> {
        self.outputs[map].map(|o| o.bytes / 8)
    }

    /// What errors of the outputs of map number `map` cost.
    ///
    /// # Errors
    /// If they cannot be read, are not what was written, or no costs.
    pub(super) fn outputs(&self, map: usize) -> Result<Option<Vec<f64>>> {
        let (MapRecord { outputs: Some(digest), .. }, Some(extent)) =
            (&self.record.maps[map], self.outputs[map])
        else {
            return Ok(None);
        };
        let name = self.record.maps[map].outputs_tensor();
        let bytes = self.whole(extent, digest, &name)?;
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        match values.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
            Some(i) => Err(self.bad("C6", &name, format!("the cost of output {i} is {}", values[i]))),
            None => Ok(Some(values)),
        }
    }

    /// Mean squares of input number `input`.
    ///
    /// # Errors
    /// If they cannot be read, are not what was written, or no squares.
    pub(super) fn diagonal(&self, input: usize) -> Result<Vec<f32>> {
        let record = &self.record.inputs[input];
        let name = record.diagonal_tensor();
        let bytes = self.whole(self.inputs[input].diagonal, &record.diagonal, &name)?;
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        match values.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
            Some(i) => Err(self.bad("C6", &name, format!("the mean square of input {i} is {}", values[i]))),
            None => Ok(values),
        }
    }

    /// Moments `first..first + out.len()` of the packed triangle of input number `input`.
    ///
    /// # Errors
    /// If they cannot be read, or, at the first use of this input, where any of them is not what was written or not finite.
    pub(super) fn moments(&self, input: usize, first: u64, out: &mut [f32]) -> Result<()> {
        let place = &self.inputs[input];
        let end = first.checked_add(out.len() as u64).and_then(|n| n.checked_mul(4));
        if end.is_none_or(|end| end > place.moments.bytes) {
            let message = format!("{} moments from number {first} on are not there", out.len());
            return Err(lsb_format::Error::argument(message).into());
        }
        if !place.checked.load(Ordering::Acquire) {
            self.check_moments(input)?;
            place.checked.store(true, Ordering::Release);
        }
        let mut bytes = vec![0; out.len() * 4];
        self.read(place.moments.at + first * 4, &mut bytes)?;
        out.iter_mut().zip(bytes.as_chunks().0).for_each(|(x, b)| *x = f32::from_le_bytes(*b));
        Ok(())
    }

    fn check_moments(&self, input: usize) -> Result<()> {
        let (place, record) = (self.inputs[input].moments, &self.record.inputs[input]);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; PIECE];
        let mut finite = true;
        let mut at = 0;
        while at < place.bytes {
            let piece = &mut buffer[..PIECE.min((place.bytes - at) as usize)];
            self.read(place.at + at, piece)?;
            hasher.update(piece);
            finite &= piece.as_chunks().0.iter().all(|b| f32::from_le_bytes(*b).is_finite());
            at += piece.len() as u64;
        }
        let name = record.moments_tensor();
        self.agree(&hasher, &record.moments, &name)?;
        if finite { Ok(()) } else { Err(self.bad("C6", &name, "a moment is not finite".into())) }
    }

    /// All bytes of a small tensor.
    fn whole(&self, extent: Extent, digest: &str, name: &str) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(extent.bytes).unwrap_or(usize::MAX)];
        self.read(extent.at, &mut bytes)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        self.agree(&hasher, digest, name)?;
        Ok(bytes)
    }

    fn agree(&self, hasher: &blake3::Hasher, digest: &str, name: &str) -> Result<()> {
        if hasher.finalize().to_hex().as_str() == digest {
            return Ok(());
        }
        Err(self.bad("C5", name, "its BLAKE3 is not the one that was written with it".into()))
    }

    fn read(&self, at: u64, out: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(out, at).map_err(Error::io("read", &self.path))
    }

    fn bad(&self, rule: &'static str, tensor: &str, message: String) -> Error {
        wrong(rule, message).in_file(self.path.display().to_string()).in_tensor(tensor).into()
    }
}

fn wrong(rule: &'static str, message: impl Into<String>) -> lsb_format::Error {
    lsb_format::Error::corruption(rule, message)
        .advise("the file is damaged; save the statistics again with `lsb calibrate`")
}

fn parse(text: &str) -> Result<Record> {
    let broken = |e: serde_json::Error| wrong("C3", format!("the header's \"{KEY}\": {e}"));
    // Other versions may have other fields.
    let any: serde_json::Value = serde_json::from_str(text).map_err(broken)?;
    let version = any.get("version").and_then(serde_json::Value::as_u64);
    if let Some(version) = version.filter(|&v| v != u64::from(VERSION)) {
        let message = format!("statistics of version {version}; this build reads version {VERSION}");
        return Err(lsb_format::Error::new(ErrorKind::Compatibility, "C2", message)
            .advise("save them again with this build's `lsb calibrate`")
            .into());
    }
    Ok(serde_json::from_value(any).map_err(broken)?)
}

/// Where a row of numbers lies, and how many they are.
fn extent(header: &Header, name: &str, dtype: DType) -> Result<(Extent, u64)> {
    let Some(entry) = header.find(name) else {
        return Err(wrong("C4", "the tensor is not there").in_tensor(name).into());
    };
    match entry.shape {
        [len] if entry.dtype == dtype => {
            Ok((Extent { at: header.data_start() + entry.begin, bytes: entry.bytes() }, *len))
        }
        shape => {
            let message = format!("{} of shape {shape:?} in the place of a row of {dtype}", entry.dtype);
            Err(wrong("C4", message).in_tensor(name).into())
        }
    }
}
