//! What is compressed, and how.

use anyhow::Result;
use half::bf16;
use lsb_format::DType;
use lsb_format::safetensors::{NewEntry, write_header};
use lsb_stream::{CompressConfig, CompressReport, LoopCompressor, TensorReport};
use lsb_validate::WeightError;
use std::fs;
use std::path::{Path, PathBuf};

/// Where models are found and packages made.
pub(super) struct Inputs {
    /// The trained model.
    pub reflm: PathBuf,
    /// Text that it was not trained on.
    pub eval: PathBuf,
    /// A folder for everything that is not kept.
    pub work: PathBuf,
}

impl Inputs {
    pub(super) fn new(work: PathBuf) -> Inputs {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
        Inputs { reflm: fixtures.join("reflm"), eval: fixtures.join("text/eval.txt"), work }
    }

    /// Compresses a model with a codec and without calibration.
    pub(super) fn compress(&self, model: &Path, codec: &str) -> Result<CompressReport> {
        eprintln!("{codec} on {}", model.file_name().unwrap_or_default().to_string_lossy());
        let mut config = CompressConfig::default();
        config.output = Some(self.work.join("out"));
        config.codec = Some(codec.to_owned());
        config.overwrite = true;
        Ok(LoopCompressor::new(config).compress_model(model, None)?)
    }

    /// A model of one tensor of unit Gaussian weights, bf16 or f32, by the polar method from a fixed seed.
    pub(super) fn gaussian(&self, name: &str, shape: [u64; 2], dtype: DType) -> Result<PathBuf> {
        let n = shape[0] * shape[1];
        let end = n * if dtype == DType::F32 { 4 } else { 2 };
        let entry = NewEntry { name: "weight", dtype, shape: &shape, begin: 0, end };
        let mut bytes = write_header(&[entry], &[], 8)?;
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut uniform = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        for _ in 0..n / 2 {
            let (x, y, s) = loop {
                let (x, y) = (uniform(), uniform());
                let s: f64 = x * x + y * y;
                if s < 1.0 && s > 0.0 {
                    break (x, y, s);
                }
            };
            let scale = (-2.0 * s.ln() / s).sqrt();
            for v in [x * scale, y * scale] {
                match dtype {
                    DType::F32 => bytes.extend_from_slice(&(v as f32).to_le_bytes()),
                    _ => bytes.extend_from_slice(&bf16::from_f64(v).to_le_bytes()),
                }
            }
        }
        let path = self.work.join(format!("{name}.safetensors"));
        fs::write(&path, bytes)?;
        Ok(path)
    }
}

/// Bits per weight of some tensors, every byte of theirs counted.
pub(super) fn bits(tensors: &[&TensorReport]) -> f64 {
    let (bytes, weights) = tensors.iter().fold((0, 0), |(b, w), t| (b + t.bytes, w + t.weights));
    8.0 * bytes as f64 / weights.max(1) as f64
}

/// Error of some tensors.
pub(super) fn error(tensors: &[&TensorReport]) -> WeightError {
    WeightError::over(tensors.iter().filter_map(|t| t.distortion.as_ref()))
}

/// Signal-to-noise ratio as text.
pub(super) fn decibel(e: &WeightError) -> String {
    if e.exact { "exact".into() } else { format!("{:.2}", e.weight_snr_db) }
}
