//! By what statistics recognise the model they are of.

use lsb_stream::Result;
use lsb_stream::source::Model;

/// Tensors of which weights are looked at.
const SAMPLED: usize = 256;

/// Bytes of each of them.
const BYTES: u64 = 4096;

/// BLAKE3, in hexadecimal digits, of the names, types and shapes of all tensors and of some bytes from the middle of a few
/// hundred of them: a model that was trained further has the same shapes. How tensors are spread over files does not count.
///
/// # Errors
/// If weights cannot be read.
pub(super) fn fingerprint(model: &Model) -> Result<String> {
    let mut order: Vec<usize> = (0..model.tensors().len()).collect();
    order.sort_by_key(|&i| &model.tensors()[i].name);
    let mut hasher = blake3::Hasher::new();
    for &i in &order {
        let t = &model.tensors()[i];
        hasher.update(&(t.name.len() as u64).to_le_bytes());
        hasher.update(format!("{} {} {:?};", t.name, t.dtype, t.shape).as_bytes());
    }
    let mut buffer = Vec::new();
    for &i in order.iter().step_by(order.len().div_ceil(SAMPLED).max(1)) {
        let bytes = model.tensors()[i].bytes;
        let taken = bytes.min(BYTES);
        buffer.resize(taken as usize, 0);
        model.reader(i)?.read_at((bytes - taken) / 2, &mut buffer)?;
        hasher.update(&buffer);
    }
    Ok(hasher.finalize().to_hex().to_string())
}
