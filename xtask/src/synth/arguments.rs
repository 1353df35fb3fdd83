//! The command line of `cargo xtask synth-model`.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use lsb_format::DType;
use std::path::PathBuf;

/// Options of `cargo xtask synth-model`.
///
/// `cargo xtask synth-model --shape llama-7b --layers 4 -o data/llama-4` writes 4 layers and the embeddings, 2.1 GB. With
/// `--tokenizer fixtures/reflm/tokenizer.json` it can be calibrated.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Whose shape.
    #[arg(long, value_enum)]
    pub shape: ShapeName,
    /// Decoder layers; the shape's own number where not given.
    #[arg(long, value_name = "N")]
    pub layers: Option<u64>,
    /// Element type of every tensor.
    #[arg(long, value_enum, default_value = "bf16")]
    pub dtype: Element,
    /// Largest file, such as 5GB or 500MB.
    #[arg(long, value_name = "BYTES", default_value = "5GB", value_parser = parse_size)]
    pub shards: u64,
    /// Which of the possible models.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Leave out the embedding, the final norm and the output head.
    #[arg(long)]
    pub no_embeddings: bool,
    /// A tokenizer.json to go with it, so that the model can read text; its ids must fit the shape's vocabulary.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Folder to write; it must not exist or be empty.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Models whose shapes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShapeName {
    /// Llama 2 7B: 32 layers of 4096, feed-forward 11008.
    #[value(name = "llama-7b")]
    Llama7b,
    /// Mistral 7B v0.1: 32 layers of 4096, 8 key/value heads, feed-forward 14336.
    #[value(name = "mistral-7b")]
    Mistral7b,
    /// Llama 2 70B: 80 layers of 8192, 8 key/value heads, feed-forward 28672.
    #[value(name = "llama-70b")]
    Llama70b,
    /// Mixtral 8x7B: as Mistral with 8 experts a layer.
    #[value(name = "mixtral")]
    Mixtral,
    /// 2 layers of 64, for tests.
    #[value(name = "tiny")]
    Tiny,
}

/// Element types that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Element {
    /// bfloat16
    Bf16,
    /// IEEE half
    F16,
    /// IEEE single
    F32,
}

impl Element {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Element::Bf16 | Element::F16 => 2,
            Element::F32 => 4,
        }
    }

    /// The type as safetensors headers name it.
    pub fn dtype(self) -> DType {
        match self {
            Element::Bf16 => DType::BF16,
            Element::F16 => DType::F16,
            Element::F32 => DType::F32,
        }
    }

    /// The name in config.json.
    pub fn config_name(self) -> &'static str {
        match self {
            Element::Bf16 => "bfloat16",
            Element::F16 => "float16",
            Element::F32 => "float32",
        }
    }
}

/// `5GB`, `500MB`, `64KB` or plain bytes; decimal, as Hugging Face counts shard sizes.
pub(super) fn parse_size(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => bail!("\"{other}\" is not a unit: use B, KB, MB or GB"),
    };
    let number: u64 = digits.parse().with_context(|| format!("\"{digits}\" is not a whole number"))?;
    match number.checked_mul(unit) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => bail!("{text} is not a size of a file"),
    }
}
