//! Records of a package: manifest, shard headers, tile tables.

use super::{Seeds, Target, class, magnitude};
use anyhow::Result;
use lsb_format::package::{
    CodecRecord, Content, Digest, Features, FileRecord, FileRole, Hash, Manifest, ShardEntry, ShardHeader,
    ShardRecord, Source, SourceFile, StoredTensor, TensorKey, TensorRecord, TileTable, shard_file_name,
};
use lsb_format::{DType, Tiling};
use serde_json::json;

/// The bytes of `lsb.json`.
pub(super) const MANIFEST: Target =
    Target { name: "manifest", run: manifest, seeds: manifest_seeds, repair: repair_hash };

fn manifest(data: &[u8]) -> String {
    match Manifest::parse(data) {
        Err(e) => class(&e),
        Ok(manifest) => {
            let again = manifest.render();
            assert!(again.as_deref() == Ok(data), "what was read is not what is written: {again:?}");
            for tensor in &manifest.tensors {
                assert!(manifest.tensor(&tensor.name).is_some());
            }
            let stored: usize = (0..manifest.shards.len()).map(|i| manifest.stored_in(i).count()).sum();
            format!("ok {} {}", magnitude(stored), manifest.codecs.len())
        }
    }
}

fn manifest_seeds() -> Result<Seeds> {
    let shard =
        |i: usize| ShardRecord { file: shard_file_name(i), bytes: 4096, header_blake3: Hash::of(&[i as u8]) };
    let stored = |name: &str, shape: &[u64], codec, shard| TensorRecord {
        name: name.to_owned(),
        content: Content::Stored(StoredTensor {
            dtype: DType::BF16,
            shape: shape.to_vec(),
            codec,
            shard,
            blake3: Hash::of(name.as_bytes()),
        }),
    };
    let codec = |id: &str, parameters: serde_json::Value| CodecRecord {
        id: id.to_owned(),
        parameters: serde_json::from_value(parameters).unwrap_or_default(),
    };
    let mut full = Manifest {
        features: Features::default(),
        tool: "lsb 0.1.0".to_owned(),
        fingerprint: Hash::of(b"fingerprint"),
        source: Source {
            weight_bytes: 2 * (64 * 172 + 64),
            files: vec![SourceFile {
                file: "model.safetensors".to_owned(),
                bytes: 30_000,
                header_blake3: Hash::of(b"header"),
            }],
        },
        weights: 64 * 172 + 64,
        codecs: vec![codec("rtn", json!({ "bits": 4, "group": "row" })), codec("raw", json!({}))],
        shards: vec![shard(0), shard(1)],
        tensors: vec![
            stored("model.layers.0.mlp.down_proj.weight", &[64, 172], 0, 0),
            stored("model.norm.weight", &[64], 1, 1),
            TensorRecord {
                name: "lm_head.weight".to_owned(),
                content: Content::SameAs("model.norm.weight".to_owned()),
            },
        ],
        files: vec![FileRecord {
            file: "config.json".to_owned(),
            bytes: 3,
            blake3: Hash::of(b"{}\n"),
            role: FileRole::Copied,
        }],
        extra: Default::default(),
    };
    let mut seeds = vec![("full".to_owned(), full.render()?)];
    full.features.optional.push("notes".to_owned());
    full.extra.insert("notes".to_owned(), json!({ "a": [1, null] }));
    seeds.push(("extra".to_owned(), full.render()?));
    let text = |seeds: &Seeds, old: &str, new: &str| -> Vec<u8> {
        let mut bytes = String::from_utf8_lossy(&seeds[0].1).replace(old, new).into_bytes();
        repair_hash(&mut bytes);
        bytes
    };
    let reordered = text(&seeds, "[64,172]", "[64, 172]");
    let newer = text(&seeds, "\"version\":1", "\"version\":2");
    let wide = text(&seeds, "[64,172]", "[4294967296,4294967296]");
    seeds.extend([
        ("spaced".to_owned(), reordered),
        ("newer".to_owned(), newer),
        ("overflow".to_owned(), wide),
    ]);
    Ok(seeds)
}

/// The hash field at the end of a manifest: `,"blake3":"<64 digits>"}` and a line feed.
fn repair_hash(data: &mut [u8]) {
    const TAIL: usize = 11 + 64 + 3;
    let Some(at) = data.len().checked_sub(TAIL) else { return };
    let (body, tail) = data.split_at_mut(at);
    if tail.starts_with(b",\"blake3\":\"") && tail.ends_with(b"\"}\n") {
        let hash: Digest = Hash::of(body);
        tail[11..11 + 64].copy_from_slice(hash.to_string().as_bytes());
    }
}

/// The beginning of a shard; the data behind it has as many bytes as the last 4 bytes say.
pub(super) const SHARD_HEADER: Target =
    Target { name: "shard_header", run: shard_header, seeds: shard_seeds, repair: repair_padding };

fn shard_header(data: &[u8]) -> String {
    let Some((header, data_bytes)) = data.split_last_chunk::<4>() else { return "short".to_owned() };
    let data_bytes = u64::from(u32::from_le_bytes(*data_bytes));
    let Some(first) = header.first_chunk::<8>() else { return "short".to_owned() };
    let total = header.len() as u64 + data_bytes;
    match ShardHeader::locate(total, *first) {
        Err(e) => return class(&e),
        Ok(n) if n != header.len() as u64 => return "other length".to_owned(),
        Ok(_) => {}
    }
    match ShardHeader::parse(header, data_bytes) {
        Err(e) => class(&e),
        Ok(shard) => {
            assert!(shard.render(header.len() as u64).as_deref() == Ok(header));
            assert_eq!(shard.tensors.iter().map(|t| t.bytes).sum::<u64>(), data_bytes);
            format!("ok {}", magnitude(shard.tensors.len()))
        }
    }
}

fn shard_seeds() -> Result<Seeds> {
    let entry = |name: &str, bytes| ShardEntry { name: name.to_owned(), bytes };
    let mut seeds = Seeds::new();
    for (name, tensors) in
        [("none", vec![]), ("two", vec![entry("model.norm.weight", 152), entry("a \"quoted\" name\n", 1)])]
    {
        let data: u64 = tensors.iter().map(|t: &ShardEntry| t.bytes).sum();
        let header = ShardHeader { package: "0123456789abcdef".to_owned(), shard: 1, of: 2, tensors };
        let mut bytes = header.render(header.reserve(data))?;
        bytes.extend((data as u32).to_le_bytes());
        seeds.push((name.to_owned(), bytes));
    }
    Ok(seeds)
}

/// Makes the length field say what is there.
fn repair_padding(data: &mut [u8]) {
    if data.len() >= 12 {
        let length = (data.len() - 12) as u64;
        data[..8].copy_from_slice(&length.to_le_bytes());
    }
}

/// The table behind the tiles of a stored tensor: 2 bytes rows, 4 bytes columns, 4 bytes of tiles' data, then the
/// table and its length field.
pub(super) const TILE_TABLE: Target =
    Target { name: "tile_table", run: tile_table, seeds: table_seeds, repair: repair_crc };

const PACKAGE: &str = "0123456789abcdef";
const NAME: &str = "w";
const PLACE: usize = 10;

fn tile_table(data: &[u8]) -> String {
    let Some((&[r0, r1, c0, c1, c2, c3, d0, d1, d2, d3], rest)) = data.split_first_chunk::<PLACE>() else {
        return "short".to_owned();
    };
    let (rows, cols) = (u64::from(u16::from_le_bytes([r0, r1])), u32::from_le_bytes([c0, c1, c2, c3]).into());
    let tiles: u64 = u32::from_le_bytes([d0, d1, d2, d3]).into();
    let Some((table, last)) = rest.split_last_chunk::<4>() else { return "short".to_owned() };
    match TileTable::locate(tiles + rest.len() as u64, *last) {
        Err(e) => return class(&e),
        Ok(range) if range.start != tiles => return "other place".to_owned(),
        Ok(_) => {}
    }
    let key = TensorKey::new(PACKAGE, NAME);
    match TileTable::parse(&key, rows, cols, tiles, table) {
        Err(e) => class(&e),
        Ok(parsed) => {
            assert!(parsed.render(&key) == rest, "what was read is not what is written");
            let mut next = 0;
            for i in 0..parsed.tiling().len() {
                let range = parsed.range(i).unwrap_or_default();
                assert!(range.start == next && range.end >= next, "tile {i} is out of order");
                assert_eq!(parsed.part_bytes(i).map(u64::from).sum::<u64>(), range.end - range.start);
                next = range.end;
            }
            assert_eq!(next, tiles);
            assert_eq!(parsed.range(parsed.tiling().len()), None);
            format!("ok {} {}", magnitude(parsed.tiling().len() as usize), parsed.side().len().min(1))
        }
    }
}

fn table_seeds() -> Result<Seeds> {
    let mut seeds = Seeds::new();
    let key = TensorKey::new(PACKAGE, NAME);
    let shapes =
        [("one", 3, 5, 1, 0), ("parts", 300, 4096, 3, 7), ("wide", 2, 300_000, 1, 3), ("empty", 0, 9, 1, 0)];
    for (name, rows, cols, parts, side) in shapes {
        let tiling = Tiling::standard(rows, cols)?.with_parts(parts)?;
        let entries: Vec<(u32, u32)> =
            (0..tiling.len() as u32 * u32::from(parts)).map(|i| (100 + i, i.wrapping_mul(77_777))).collect();
        let table = TileTable::new(tiling, Hash::of(name.as_bytes()), entries, vec![9; side])?;
        let mut bytes = (rows as u16).to_le_bytes().to_vec();
        bytes.extend((cols as u32).to_le_bytes());
        bytes.extend((table.data_bytes() as u32).to_le_bytes());
        bytes.extend(table.render(&key));
        seeds.push((name.to_owned(), bytes));
    }
    Ok(seeds)
}

/// Length field and checksum of a tile table, from the description in `docs/format.md`.
fn repair_crc(data: &mut [u8]) {
    let Some(end) = data.len().checked_sub(8).filter(|&end| end >= PLACE) else { return };
    let length = (end + 4 - PLACE) as u32;
    let key = blake3::hash(format!("{PACKAGE}{NAME}").as_bytes());
    let crc = crc32c::crc32c(&key.as_bytes()[..16]);
    let crc = crc32c::crc32c_append(crc, &length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &data[PLACE..end]);
    data[end..end + 4].copy_from_slice(&crc.to_le_bytes());
    data[end + 4..].copy_from_slice(&length.to_le_bytes());
}
