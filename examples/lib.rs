//! Shared pieces of the examples: a model small enough to make on the spot.

use anyhow::Result;
use lsb_format::DType;
use std::path::{Path, PathBuf};

/// Writes a model of three tensors in bf16 to `dir/model.safetensors` and returns the path of its folder:
/// a 96 x 256 and a 256 x 96 matrix of bell-shaped weights, and a vector of ones.
///
/// # Errors
/// If the files cannot be written.
pub fn write_tiny_model(dir: &Path) -> Result<PathBuf> {
    let dir = dir.join("tiny");
    std::fs::create_dir_all(&dir)?;
    let tensors: [(&str, &[u64], Vec<f32>); 3] = [
        ("model.layers.0.mlp.down_proj.weight", &[96, 256], bell(96 * 256, 1)),
        ("model.layers.0.mlp.up_proj.weight", &[256, 96], bell(256 * 96, 2)),
        ("model.norm.weight", &[96], vec![1.0; 96]),
    ];
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for (name, shape, values) in tensors {
        let begin = data.len();
        // bf16 is the upper half of f32.
        data.extend(values.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()));
        let (dtype, end) = (DType::BF16, data.len());
        header.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", header.join(","));
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(dir.join("model.safetensors"), file)?;
    std::fs::write(dir.join("config.json"), r#"{"model_type":"tiny"}"#)?;
    Ok(dir)
}

/// Sums of twelve uniform numbers: close to Gaussian, deviation 0.02.
fn bell(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        // xorshift32
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32
    };
    (0..n).map(|_| 0.02 * ((0..12).map(|_| uniform()).sum::<f32>() - 6.0)).collect()
}
