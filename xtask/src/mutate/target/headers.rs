//! Headers of safetensors files and shard indices.

use super::{Seeds, Target, class, magnitude, nothing};
use crate::checkpoint;
use anyhow::Result;
use lsb_format::DType;
use lsb_format::safetensors::{DEFAULT_HEADER_LIMIT, Header, NewEntry, header_len, write_header};
use lsb_format::shard_index::ShardIndex;

/// A whole file, from its first byte; the data is what follows the header.
pub(super) const SAFETENSORS_HEADER: Target = Target {
    name: "safetensors_header",
    run: safetensors_header,
    seeds: header_seeds,
    repair: repair_length,
};

fn safetensors_header(data: &[u8]) -> String {
    let Some((first, rest)) = data.split_first_chunk::<8>() else { return "short".to_owned() };
    let len = match header_len(*first, data.len() as u64, DEFAULT_HEADER_LIMIT) {
        Ok(len) => len as usize,
        Err(e) => return class(&e),
    };
    let header = match Header::parse(&rest[..len], (rest.len() - len) as u64) {
        Ok(header) => header,
        Err(e) => {
            assert!(e.offset().is_none_or(|o| o <= data.len() as u64), "an offset outside the file: {e}");
            return class(&e);
        }
    };
    // What the reader promises to its callers.
    let mut next = 0;
    for entry in header.entries_by_offset() {
        assert!(entry.begin == next && entry.end >= entry.begin, "a hole or an overlap");
        assert_eq!(entry.dtype.byte_len(entry.elements()), Some(entry.bytes()));
        assert_eq!(header.find(entry.name), Some(entry));
        next = entry.end;
    }
    assert_eq!(next, (rest.len() - len) as u64, "data that no tensor owns");
    let entries: Vec<_> = header
        .entries()
        .map(|e| NewEntry { name: e.name, dtype: e.dtype, shape: e.shape, begin: e.begin, end: e.end })
        .collect();
    let rewritten = write_header(&entries, &[], 8);
    assert!(rewritten.is_ok(), "a header that was read cannot be written: {rewritten:?}");
    format!("ok {} {}", magnitude(header.len()), header.notes().len().min(4))
}

fn header_seeds() -> Result<Seeds> {
    let with_data = |tensors: &[(&str, DType, &[u64])]| -> Result<Vec<u8>> {
        let mut out = checkpoint::header(tensors.iter().copied())?;
        let bytes = |(_, dtype, shape): &(&str, DType, &[u64])| dtype.byte_len(shape.iter().product());
        let data: u64 = tensors.iter().filter_map(bytes).sum();
        out.resize(out.len() + data as usize, 0);
        Ok(out)
    };
    let plain = |json: &str, data: usize| {
        let mut out = (json.len() as u64).to_le_bytes().to_vec();
        out.extend_from_slice(json.as_bytes());
        out.resize(out.len() + data, 0);
        out
    };
    Ok(vec![
        ("empty".to_owned(), plain("{}", 0)),
        ("one".to_owned(), with_data(&[("a", DType::BF16, &[2, 3])])?),
        (
            "mixed".to_owned(),
            with_data(&[
                ("model.layers.0.w", DType::F16, &[3, 5]),
                ("model.norm", DType::F32, &[5]),
                ("none", DType::BF16, &[0, 7]),
                ("scalar", DType::F64, &[]),
                ("ids", DType::I64, &[1, 2]),
                ("four", DType::F4, &[2, 2]),
            ])?,
        ),
        (
            "spaced".to_owned(),
            plain(
                "{ \"__metadata__\" : { \"a\" : \"\\u00e9\\ud83d\\ude00\" } ,\n \"b\\n\" : { \"shape\" : [ 1 , 1 ] , \"data_offsets\" : [ 0 , 1 ] , \"dtype\" : \"U8\" } }  ",
                1,
            ),
        ),
        (
            "overflow".to_owned(),
            plain("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0),
        ),
        ("deep".to_owned(), plain(&format!("{{\"a\":{}", "[".repeat(200)), 0)),
    ])
}

/// Makes the length field fit the end of the JSON text, so that changes inside it are read.
fn repair_length(data: &mut [u8]) {
    if data.len() < 8 {
        return;
    }
    // The text ends at the last brace; padding behind it belongs to the header.
    if let Some(end) = data[8..].iter().rposition(|&b| b == b'}') {
        let mut len = end + 1;
        while data.get(8 + len) == Some(&b' ') {
            len += 1;
        }
        data[..8].copy_from_slice(&(len as u64).to_le_bytes());
    }
}

/// The text of `model.safetensors.index.json`.
pub(super) const SHARD_INDEX: Target =
    Target { name: "shard_index", run: shard_index, seeds: index_seeds, repair: nothing };

fn shard_index(data: &[u8]) -> String {
    let mut outcome = String::new();
    for subfolders in [false, true] {
        match ShardIndex::parse(data, subfolders) {
            Ok(index) => {
                for name in index.shards() {
                    let name = name.as_str();
                    assert!(
                        !name.starts_with('/')
                            && name.split('/').all(|part| part != ".." && !part.is_empty())
                    );
                    assert!(subfolders || !name.contains('/'));
                }
                outcome += "ok ";
            }
            Err(e) => outcome += &class(&e),
        }
    }
    outcome
}

fn index_seeds() -> Result<Seeds> {
    let seed = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    Ok(vec![
        seed("empty", "{\"weight_map\":{}}"),
        seed(
            "two",
            "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00002-of-00002.safetensors\"}}",
        ),
        seed("nested", "{\"weight_map\":{\"a\":\"unet/model.safetensors\"}}"),
        seed("escape", "{\"weight_map\":{\"a\":\"../../etc/passwd\"}}"),
        seed("encoded", "{\"weight_map\":{\"a\":\"%2e%2e%2fx\"}}"),
        seed("float", "{\"metadata\":{\"total_size\":1.2e1},\"weight_map\":{\"\\u0061\":\"x\"}}"),
    ])
}
