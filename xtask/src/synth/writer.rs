//! Shards, index and JSON files of a Hugging Face checkpoint, streamed in little memory.

use super::arguments::Args;
use super::shape::TensorSpec;
use super::weights::{BLOCK, Distribution, Generator};
use crate::checkpoint;
use anyhow::{Context, Result};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

/// Bytes generated at a time; two such buffers exist.
const BUFFER: usize = 8 << 20;
/// Bytes one task generates; a multiple of `BLOCK` elements of any type.
const PIECE: usize = BLOCK * 4 * 64;

pub(super) struct Written {
    pub(super) shards: usize,
    pub(super) bytes: u64,
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes all tensors, split into shards as transformers does: in order, a new file where the next tensor would not
/// fit; inside a file, sorted by name.
pub(super) fn write_weights(out: &Path, tensors: &[TensorSpec], args: &Args) -> Result<Written> {
    let size = |t: &TensorSpec| t.elements() * args.dtype.size() as u64;
    let shards = split(tensors, args.shards, size);
    let distribution = Distribution::student_t5();
    let mut map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = file_name(i, shards.len());
        for tensor in shard {
            map.insert(tensor.name.clone(), json!(name));
        }
        write_shard(&out.join(&name), shard, args, &distribution)?;
    }
    let bytes = tensors.iter().map(size).sum();
    if shards.len() > 1 {
        let index = json!({ "metadata": { "total_size": bytes }, "weight_map": map });
        write_json(&out.join("model.safetensors.index.json"), &index)?;
    }
    Ok(Written { shards: shards.len(), bytes })
}

fn file_name(i: usize, n: usize) -> String {
    if n == 1 { "model.safetensors".to_owned() } else { format!("model-{:05}-of-{n:05}.safetensors", i + 1) }
}

pub(super) fn split(
    tensors: &[TensorSpec],
    limit: u64,
    size: impl Fn(&TensorSpec) -> u64,
) -> Vec<Vec<&TensorSpec>> {
    let mut shards: Vec<Vec<&TensorSpec>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        if filled > 0 && filled + size(tensor) > limit {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size(tensor);
        if let Some(last) = shards.last_mut() {
            last.push(tensor);
        }
    }
    for shard in &mut shards {
        shard.sort_by(|a, b| a.name.cmp(&b.name));
    }
    shards
}

fn write_shard(path: &Path, tensors: &[&TensorSpec], args: &Args, distribution: &Distribution) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut file = File::create(path).with_context(failed)?;
    let dtype = args.dtype.dtype();
    let header = checkpoint::header(tensors.iter().map(|t| (t.name.as_str(), dtype, t.shape.as_slice())))?;
    file.write_all(&header).with_context(failed)?;
    // One thread writes while the others fill the next buffer; buffers go round.
    thread::scope(|scope| {
        let (full, to_write) = mpsc::sync_channel::<Vec<u8>>(1);
        let (empty, to_fill) = mpsc::channel::<Vec<u8>>();
        for _ in 0..2 {
            empty.send(Vec::new())?;
        }
        let writer = scope.spawn(move || -> std::io::Result<()> {
            for buffer in to_write {
                file.write_all(&buffer)?;
                // Nobody takes the buffer once all is generated.
                let _ = empty.send(buffer);
            }
            Ok(())
        });
        for tensor in tensors {
            let generator = Generator::new(distribution, args.seed, &tensor.name, &tensor.shape, tensor.fill);
            let total = tensor.elements() * args.dtype.size() as u64;
            let mut at = 0;
            while at < total {
                // Either end of a channel closes only when writing failed; the writer says why.
                let Ok(mut buffer) = to_fill.recv() else { break };
                buffer.resize((total - at).min(BUFFER as u64) as usize, 0);
                buffer.par_chunks_mut(PIECE).enumerate().for_each(|(i, piece)| {
                    let byte = at + (i * PIECE) as u64;
                    generator.write(byte / args.dtype.size() as u64, args.dtype, piece);
                });
                at += buffer.len() as u64;
                if full.send(buffer).is_err() {
                    break;
                }
            }
        }
        drop(full);
        match writer.join() {
            Ok(result) => result.with_context(failed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
