//! Finds tensors that are equal bit for bit, such as a head tied to its embedding, so that they are stored once.

use super::{Model, SourceTensor};
use crate::error::Result;
use std::ops::Range;

/// Bytes of each of the three samples that rule out most pairs.
const SAMPLE: u64 = 4096;

/// Bytes read at a time when whole tensors are compared.
const CHUNK: usize = 1 << 20;

/// Maps every tensor to an earlier one with the same type, shape and bytes, which has none itself; `None` for
/// the others. Tensors without bytes are never mapped.
///
/// Tensors of equal type and shape are compared by samples of their beginning, middle and end; only where
/// these agree is a tensor read whole, once, and compared by its BLAKE3. Holds 1 MiB.
///
/// # Errors
/// As [`Model::read_at`].
pub fn find_duplicates(model: &Model) -> Result<Vec<Option<usize>>> {
    let tensors = model.tensors();
    let mut of = vec![None; tensors.len()];
    let mut order: Vec<usize> = (0..tensors.len()).filter(|&i| tensors[i].bytes > 0).collect();
    let form = |i: usize| (tensors[i].dtype, &tensors[i].shape);
    order.sort_by(|&a, &b| form(a).cmp(&form(b)));
    let mut buffer = Vec::new();
    for same_form in order.chunk_by(|&a, &b| form(a) == form(b)).filter(|group| group.len() > 1) {
        for same_sample in grouped(same_form, |i| samples(model, &tensors[i], &mut buffer))? {
            for equal in grouped(&same_sample, |i| whole(model, &tensors[i], &mut buffer))? {
                let first = equal.iter().copied().min();
                for i in equal.into_iter().filter(|&i| Some(i) != first) {
                    of[i] = first;
                }
            }
        }
    }
    Ok(of)
}

/// The groups of two or more members with equal fingerprints.
fn grouped(
    members: &[usize],
    mut fingerprint: impl FnMut(usize) -> Result<[u8; 32]>,
) -> Result<Vec<Vec<usize>>> {
    let mut marked = members.iter().map(|&i| Ok((fingerprint(i)?, i))).collect::<Result<Vec<_>>>()?;
    marked.sort_unstable();
    let groups = marked.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
    Ok(groups.map(|group| group.iter().map(|&(_, i)| i).collect()).collect())
}

fn samples(model: &Model, tensor: &SourceTensor, buffer: &mut Vec<u8>) -> Result<[u8; 32]> {
    let middle = tensor.bytes / 2;
    let last = tensor.bytes.saturating_sub(SAMPLE);
    let mut hasher = blake3::Hasher::new();
    for start in [0, middle, last] {
        hash(model, tensor, start..tensor.bytes.min(start + SAMPLE), buffer, &mut hasher)?;
    }
    Ok(*hasher.finalize().as_bytes())
}

fn whole(model: &Model, tensor: &SourceTensor, buffer: &mut Vec<u8>) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hash(model, tensor, 0..tensor.bytes, buffer, &mut hasher)?;
    Ok(*hasher.finalize().as_bytes())
}

fn hash(
    model: &Model,
    tensor: &SourceTensor,
    range: Range<u64>,
    buffer: &mut Vec<u8>,
    hasher: &mut blake3::Hasher,
) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let n = (range.end - at).min(CHUNK as u64);
        buffer.resize(n as usize, 0);
        model.read_at(tensor.file, tensor.offset + at, buffer)?;
        hasher.update(buffer);
        at += n;
    }
    Ok(())
}
