//! Reads the headers of the weight files and decides which file gives which tensor.

use super::file::{Identity, open_regular, read_exact_at};
use super::identify::{MARK_LEN, begins_like_safetensors, not_safetensors};
use super::layout::Layout;
use super::warning::{Warning, Warnings};
use super::{OpenOptions, SourceTensor, WeightFile};
use crate::error::Result;
use lsb_format::safetensors::{Header, PREFIX_LEN, header_len};
use lsb_format::shard_index::{ShardIndex, TotalSize};
use lsb_format::{Error, ErrorKind, escape};
use std::collections::HashMap;
use std::path::Path;

/// Opens every weight file, checks its header, and lists the tensors in the order of their data.
pub(super) fn read(
    layout: &Layout,
    options: &OpenOptions,
    warnings: &mut Warnings,
) -> Result<(Vec<WeightFile>, Vec<SourceTensor>)> {
    let mut files: Vec<WeightFile> = Vec::with_capacity(layout.files.len());
    let mut headers: Vec<Header> = Vec::with_capacity(layout.files.len());
    for (name, path) in &layout.files {
        let (file, header) = read_header(name, path, options.max_header_bytes)?;
        if let Some(same) = files.iter().find(|f| (f.device, f.inode) == (file.device, file.inode)) {
            let message = format!("this is the same file as {}", escape(&same.name));
            return Err(Error::corruption("B17", message)
                .in_file(name)
                .advise("every shard must be a file of its own; download them again")
                .into());
        }
        for note in header.notes() {
            let warning = Warning::new(note.rule, format!("at byte {}: {}", note.offset, note.message));
            let warning = warning.in_file(name);
            warnings.add(match &note.tensor {
                Some(tensor) => warning.in_tensor(tensor),
                None => warning,
            })?;
        }
        files.push(file);
        headers.push(header);
    }
    let tensors = match &layout.index {
        Some((index, index_name)) => by_index(&files, &headers, index, index_name, warnings)?,
        None => every(&files, &headers)?,
    };
    Ok((files, tensors))
}

fn read_header(name: &str, path: &Path, limit: u64) -> Result<(WeightFile, Header)> {
    let (file, identity) = open_regular(path, name)?;
    let Identity { bytes, modified_ns, device, inode } = identity;
    if bytes == 0 {
        return Err(Error::new(ErrorKind::Truncated, "B1", "the file is empty")
            .in_file(name)
            .at(0)
            .advise("download it again")
            .into());
    }
    if bytes < PREFIX_LEN {
        let message =
            format!("the file has {bytes} bytes; a safetensors file begins with {PREFIX_LEN} of length");
        return Err(Error::new(ErrorKind::Truncated, "B2", message)
            .in_file(name)
            .at(bytes)
            .advise("download it again")
            .into());
    }
    let mut start = vec![0; bytes.min(MARK_LEN as u64) as usize];
    read_exact_at(&file, 0, &mut start, path, name)?;
    let wrong = if begins_like_safetensors(&start) { None } else { not_safetensors(&start, bytes) };
    if let Some(error) = wrong {
        return Err(error.in_file(name).into());
    }
    let mut first8 = [0; PREFIX_LEN as usize];
    read_exact_at(&file, 0, &mut first8, path, name)?;
    let len = header_len(first8, bytes, limit).map_err(|e| e.in_file(name))?;
    let mut json = Vec::new();
    let no_room = |_| Error::argument(format!("no memory for a header of {len} bytes")).in_file(name);
    json.try_reserve_exact(len as usize).map_err(no_room)?;
    json.resize(len as usize, 0);
    read_exact_at(&file, PREFIX_LEN, &mut json, path, name)?;
    let header = Header::parse(&json, bytes - PREFIX_LEN - len).map_err(|e| e.in_file(name))?;
    let header_blake3 = *blake3::Hasher::new().update(&first8).update(&json).finalize().as_bytes();
    let weights = WeightFile {
        name: name.to_owned(),
        path: path.to_owned(),
        bytes,
        header_blake3,
        modified_ns,
        device,
        inode,
    };
    Ok((weights, header))
}

/// All tensors of all files; a name may occur once.
fn every(files: &[WeightFile], headers: &[Header]) -> Result<Vec<SourceTensor>> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut tensors = Vec::with_capacity(headers.iter().map(Header::len).sum());
    for (file, header) in headers.iter().enumerate() {
        for entry in header.entries_by_offset() {
            // A single header has no name twice.
            if headers.len() > 1
                && let Some(other) = first.insert(entry.name, file)
            {
                let message = format!("the tensor is also in {}", escape(&files[other].name));
                return Err(Error::corruption("B69", message)
                    .in_file(&files[file].name)
                    .in_tensor(entry.name)
                    .at(entry.header_offset)
                    .advise("remove the shard that does not belong to this model")
                    .into());
            }
            tensors.push(SourceTensor::new(file, header.data_start(), &entry));
        }
    }
    Ok(tensors)
}

/// The tensors that an index names, each from the shard it names.
fn by_index(
    files: &[WeightFile],
    headers: &[Header],
    index: &ShardIndex,
    index_name: &str,
    warnings: &mut Warnings,
) -> Result<Vec<SourceTensor>> {
    for (tensor, shard) in index.iter() {
        if headers[shard].find(tensor).is_some() {
            continue;
        }
        let elsewhere = headers.iter().position(|h| h.find(tensor).is_some());
        let elsewhere = elsewhere
            .map_or("no shard has it".to_owned(), |other| format!("it is in {}", escape(&files[other].name)));
        let shard = &files[shard].name;
        let message =
            format!("the index puts the tensor into {}, which lacks it; {elsewhere}", escape(shard));
        return Err(Error::corruption("B68", message)
            .in_file(index_name)
            .in_tensor(tensor)
            .advise("the index and the shards are from different versions; download all of them again")
            .into());
    }
    let mut tensors = Vec::with_capacity(index.len());
    for (file, header) in headers.iter().enumerate() {
        let name = &files[file].name;
        for entry in header.entries_by_offset() {
            let warning = match index.shard_of(entry.name) {
                Some(shard) if shard == file => {
                    tensors.push(SourceTensor::new(file, header.data_start(), &entry));
                    continue;
                }
                Some(shard) => {
                    let used = escape(&files[shard].name);
                    Warning::new(
                        "B69",
                        format!("the tensor is also in {used}, which the index names and is used"),
                    )
                }
                None => Warning::new("B70", "the index does not name the tensor; it is left out"),
            };
            warnings.add(warning.in_file(name).in_tensor(entry.name))?;
        }
    }
    let total: u64 = tensors.iter().map(|t: &SourceTensor| t.bytes).sum();
    let message = match *index.total_size() {
        TotalSize::Bytes(size) if size == total => return Ok(tensors),
        TotalSize::Bytes(size) => format!("total_size is {size} and the tensors take {total} bytes"),
        TotalSize::Malformed(at) => format!("total_size, at byte {at}, is not a number of bytes"),
        TotalSize::Missing => "total_size is missing".to_owned(),
    };
    warnings.add(Warning::new("B72", message).in_file(index_name))?;
    Ok(tensors)
}
