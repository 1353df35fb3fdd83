//! Reads `config.json`, in the older and the newer style of the transformers library.

use crate::architecture::Architecture;
use crate::details::Details;
use crate::fields::{Fields, required};
use lsb_format::json::{Rules, check_document};
use lsb_format::{Error, Result};
use lsb_stream::source::Warning;
use serde_json::Value;

const FILE: &str = "config.json";

const RULES: Rules = Rules {
    encoding: "B80",
    syntax: "B80",
    kind: "B80",
    depth: "B80",
    surrogate: "B80",
    number: "B80",
    duplicate: "B81",
};

/// What `config.json` says about a model. Sizes in it are claims: allocate from tensors, not from these.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// `model_type`, where it is there.
    pub model_type: Option<String>,
    /// The classes in `architectures`.
    pub classes: Vec<String>,
    /// The sizes; `None` where an unknown architecture does not have all of them in the usual fields.
    pub sizes: Option<Sizes>,
    /// True where the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Added to the variance in norms.
    pub norm_eps: Option<f64>,
    /// Rotary position embedding; `None` for architectures without.
    pub rope: Option<Rope>,
    /// Tokens that a layer with a sliding window sees.
    pub sliding_window: Option<u64>,
    /// Element type that the weights are said to have.
    pub dtype: Option<String>,
    /// What only a forward pass needs.
    pub details: Details,
    warnings: Vec<Warning>,
}

/// Sizes of a transformer, all above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens in the vocabulary.
    pub vocab: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width inside the feed-forward block.
    pub intermediate: u64,
    /// Layers.
    pub layers: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u64,
    /// Width of one head.
    pub head_dim: u64,
    /// Longest context in tokens, where it is said.
    pub context: Option<u64>,
    /// Sparse experts, where there are any.
    pub experts: Option<Experts>,
}

/// Sparse experts of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Experts in a layer.
    pub count: u64,
    /// Experts that see one token.
    pub per_token: u64,
    /// Width inside one expert.
    pub intermediate: u64,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Base in layers with a sliding window, where it differs.
    pub local_theta: Option<f64>,
    /// Part of each head that is rotated, above 0 and at most 1.
    pub partial: f64,
    /// Stretching beyond the trained context.
    pub scaling: Option<RopeScaling>,
}

/// Stretching of rotary embeddings, with the fields of all kinds.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeScaling {
    /// `rope_type`: `linear`, `llama3`, `yarn`, ...
    pub kind: String,
    /// How many times longer the context becomes.
    pub factor: Option<f64>,
    /// Below this many turns in the original context a frequency is stretched in full.
    pub low_freq_factor: Option<f64>,
    /// Above this many turns a frequency is kept.
    pub high_freq_factor: Option<f64>,
    /// The context the model was first trained with.
    pub original_context: Option<u64>,
    /// `yarn`: turns in the original context above which a frequency is kept (32 where it is missing).
    pub beta_fast: Option<f64>,
    /// `yarn`: turns below which it is stretched in full (1 where it is missing).
    pub beta_slow: Option<f64>,
    /// What `yarn` and `longrope` multiply cosines and sines by, where it is said.
    pub attention_factor: Option<f64>,
    /// `yarn`: weights of the logarithm of the factor in the attention factor.
    pub mscale: [Option<f64>; 2],
    /// `yarn`: whether the range of frequencies is rounded to whole ones (true where it is missing).
    pub truncate: Option<bool>,
    /// `longrope`: what each frequency is divided by inside the original context, and beyond it.
    pub factors: [Vec<f64>; 2],
}

impl ModelConfig {
    /// Reads the bytes of a `config.json`.
    ///
    /// # Errors
    /// `B77` to `B81`, naming the fields that disagree. An unknown architecture is accepted with a warning.
    pub fn parse(bytes: &[u8]) -> Result<ModelConfig> {
        parse(bytes).map_err(|e| e.in_file(FILE))
    }

    /// What is odd about the configuration.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

fn parse(bytes: &[u8]) -> Result<ModelConfig> {
    check_document(bytes, RULES)?;
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|e| Error::corruption("B80", format!("not readable as JSON: {e}")))?;
    let empty = serde_json::Map::new();
    let top = Fields(value.as_object().unwrap_or(&empty));
    // Models with several parts keep the language model's fields in an object of their own.
    let fields = top.object(&["text_config"])?.map_or(top, |(_, inner)| inner);
    let classes = classes(top)?;
    let model_type = fields.text(&["model_type"])?.map(|(_, name)| name.to_owned());
    let class = classes.first().map(String::as_str);
    let architecture = Architecture::of(model_type.as_deref(), class);
    let mut warnings = Vec::new();
    if let Architecture::Unknown(_) = architecture {
        let message =
            format!("the architecture \"{architecture}\" is not known; its tensors are read by name alone");
        warnings.push(Warning::new("B83", message).in_file(FILE));
    }
    if top.any(&["auto_map"]).is_some() {
        let message = "the model brings code of its own (auto_map), which is never executed";
        warnings.push(Warning::new("B83", message).in_file(FILE));
    }
    let sizes = match (sizes(fields, &architecture), &architecture) {
        (Ok(sizes), _) => Some(sizes),
        (Err(e), Architecture::Unknown(_)) if e.rule() == "B78" => None,
        (Err(e), _) => return Err(e),
    };
    let tied = match fields.flag(&["tie_word_embeddings"])? {
        Some(tied) => Some(tied),
        None => top.flag(&["tie_word_embeddings"])?,
    };
    Ok(ModelConfig {
        sizes,
        tie_word_embeddings: tied.map_or(architecture.ties_by_default(), |(_, tied)| tied),
        norm_eps: above_zero(fields.number(&["rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"])?)?,
        rope: rope(fields, &architecture)?,
        sliding_window: fields.unsigned(&["sliding_window"])?.map(|(_, n)| n),
        dtype: match fields.text(&["dtype", "torch_dtype"])? {
            Some((_, name)) => Some(name.to_owned()),
            None => top.text(&["dtype", "torch_dtype"])?.map(|(_, name)| name.to_owned()),
        },
        details: Details::read(fields)?,
        architecture,
        model_type,
        classes,
        warnings,
    })
}

fn classes(top: Fields<'_>) -> Result<Vec<String>> {
    let Some((name, value)) = top.any(&["architectures"]) else { return Ok(Vec::new()) };
    let read = value.as_array().map(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
    let wrong = || Error::corruption("B78", format!("{name} must be a list of texts"));
    read.flatten().ok_or_else(wrong)
}

fn sizes(fields: Fields<'_>, architecture: &Architecture) -> Result<Sizes> {
    let positive = |names: &[&'static str]| -> Result<Option<(&'static str, u64)>> {
        match fields.unsigned(names)? {
            Some((name, 0)) => Err(Error::corruption("B77", format!("{name} is 0"))),
            found => Ok(found),
        }
    };
    let hidden = required(positive(&["hidden_size", "n_embd"])?, "hidden_size")?;
    let heads = required(positive(&["num_attention_heads", "n_head"])?, "num_attention_heads")?;
    let kv_heads = positive(&["num_key_value_heads"])?.map_or(heads, |(_, n)| n);
    if kv_heads > heads || !heads.is_multiple_of(kv_heads) {
        let message = format!("num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}");
        return Err(Error::corruption("B77", message));
    }
    let default = architecture.default_head_dim().filter(|_| !fields.is_null("head_dim"));
    let head_dim = match (positive(&["head_dim"])?, default) {
        (Some((_, dim)), _) | (None, Some(dim)) => dim,
        (None, None) if hidden.is_multiple_of(heads) => hidden / heads,
        (None, None) => {
            let message = format!(
                "hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and head_dim is not given"
            );
            return Err(Error::corruption("B77", message));
        }
    };
    let intermediate = match positive(&["intermediate_size", "n_inner"])? {
        None if *architecture == Architecture::Gpt2 => hidden.saturating_mul(4),
        found => required(found, "intermediate_size")?,
    };
    Ok(Sizes {
        vocab: required(positive(&["vocab_size"])?, "vocab_size")?,
        hidden,
        intermediate,
        layers: required(positive(&["num_hidden_layers", "n_layer"])?, "num_hidden_layers")?,
        heads,
        kv_heads,
        head_dim,
        context: positive(&["max_position_embeddings", "n_positions"])?.map(|(_, n)| n),
        experts: experts(fields, architecture, intermediate)?,
    })
}

fn experts(fields: Fields<'_>, architecture: &Architecture, intermediate: u64) -> Result<Option<Experts>> {
    if !matches!(architecture, Architecture::Mixtral | Architecture::Qwen3Moe | Architecture::Unknown(_)) {
        return Ok(None);
    }
    let Some((name, count)) = fields.unsigned(&["num_local_experts", "num_experts"])? else {
        return match architecture {
            Architecture::Unknown(_) => Ok(None),
            _ => Err(Error::corruption("B78", "num_local_experts is missing")),
        };
    };
    let per_token = required(fields.unsigned(&["num_experts_per_tok"])?, "num_experts_per_tok")?;
    if per_token == 0 || per_token > count {
        let message = format!("num_experts_per_tok {per_token} is not from 1 to {name} {count}");
        return Err(Error::corruption("B77", message));
    }
    let intermediate = fields.unsigned(&["moe_intermediate_size"])?.map_or(intermediate, |(_, n)| n);
    Ok(Some(Experts { count, per_token, intermediate }))
}

fn rope(fields: Fields<'_>, architecture: &Architecture) -> Result<Option<Rope>> {
    if matches!(architecture, Architecture::Gpt2 | Architecture::Bert) {
        return Ok(None);
    }
    let (_, block) = fields.object(&["rope_parameters", "rope_scaling"])?.unwrap_or(("", fields));
    // One set for all layers, or one for each kind of layer.
    let full = block.object(&["full_attention"])?.map_or(block, |(_, inner)| inner);
    let local = block.object(&["sliding_attention"])?.map(|(_, inner)| inner);
    let theta = match above_zero(full.number(&["rope_theta"])?)? {
        Some(theta) => Some(theta),
        None => above_zero(fields.number(&["rope_theta", "rotary_emb_base"])?)?,
    };
    let local_theta = match local {
        Some(local) => above_zero(local.number(&["rope_theta"])?)?,
        None => above_zero(fields.number(&["rope_local_base_freq"])?)?,
    };
    let partial = match full.number(&["partial_rotary_factor"])? {
        Some(found) => Some(found),
        None => fields.number(&["partial_rotary_factor", "rotary_pct"])?,
    };
    if let Some((name, part)) = partial
        && !(part > 0.0 && part <= 1.0)
    {
        return Err(Error::corruption("B81", format!("{name} is {part}: must be above 0 and at most 1")));
    }
    Ok(Some(Rope {
        theta: theta.unwrap_or(10_000.0),
        local_theta,
        partial: partial.map_or(1.0, |(_, part)| part),
        scaling: scaling(full, fields)?,
    }))
}

fn scaling(block: Fields<'_>, fields: Fields<'_>) -> Result<Option<RopeScaling>> {
    let Some((_, kind)) = block.text(&["rope_type", "type"])?.filter(|(_, kind)| *kind != "default") else {
        return Ok(None);
    };
    Ok(Some(RopeScaling {
        kind: kind.to_owned(),
        factor: above_zero(block.number(&["factor"])?)?,
        low_freq_factor: above_zero(block.number(&["low_freq_factor"])?)?,
        high_freq_factor: above_zero(block.number(&["high_freq_factor"])?)?,
        original_context: match block.unsigned(&["original_max_position_embeddings"])? {
            Some((_, n)) => Some(n),
            None => fields.unsigned(&["original_max_position_embeddings"])?.map(|(_, n)| n),
        },
        beta_fast: above_zero(block.number(&["beta_fast"])?)?,
        beta_slow: above_zero(block.number(&["beta_slow"])?)?,
        attention_factor: above_zero(block.number(&["attention_factor"])?)?,
        mscale: [above_zero(block.number(&["mscale"])?)?, above_zero(block.number(&["mscale_all_dim"])?)?],
        truncate: block.flag(&["truncate"])?.map(|(_, truncate)| truncate),
        factors: [block.numbers(&["short_factor"])?, block.numbers(&["long_factor"])?],
    }))
}

fn above_zero(found: Option<(&'static str, f64)>) -> Result<Option<f64>> {
    match found {
        Some((name, value)) if value <= 0.0 => {
            Err(Error::corruption("B81", format!("{name} is {value}: must be above 0")))
        }
        found => Ok(found.map(|(_, value)| value)),
    }
}
