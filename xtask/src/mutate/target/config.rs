//! `config.json` of a model.

use super::{Seeds, Target, class, nothing};
use crate::synth::{Element, Shape, ShapeName};
use anyhow::Result;
use lsb_model::ModelConfig;

/// The text of the file.
pub(super) const CONFIG_JSON: Target =
    Target { name: "config_json", run: config_json, seeds: config_seeds, repair: nothing };

fn config_json(data: &[u8]) -> String {
    match ModelConfig::parse(data) {
        Ok(config) => format!("ok {}", config.warnings().len().min(4)),
        Err(e) => class(&e),
    }
}

fn config_seeds() -> Result<Seeds> {
    let mut seeds = Seeds::new();
    for (name, shape) in [
        ("llama", ShapeName::Llama7b),
        ("mistral", ShapeName::Mistral7b),
        ("mixtral", ShapeName::Mixtral),
        ("tiny", ShapeName::Tiny),
    ] {
        let config = Shape::new(shape, None).config(Element::Bf16);
        seeds.push((name.to_owned(), serde_json::to_vec(&config)?));
    }
    let text = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    seeds.push(text("empty", "{}"));
    seeds.push(text("unknown", "{\"model_type\":\"nobody\",\"hidden_size\":-1}"));
    seeds.push(text(
        "scaled",
        "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"intermediate_size\":172,\"vocab_size\":256,\"rms_norm_eps\":1e-5,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}}",
    ));
    Ok(seeds)
}
