//! The architectures that are known by name.

use lsb_format::escape;
use std::fmt;

/// A family of models that share tensor names and configuration fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama 1 to 3 and the many models built like it.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Qwen 2 and 2.5: Llama with biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: norms on each query and key head.
    Qwen3,
    /// Gemma 2: norms on both sides, soft caps.
    Gemma2,
    /// The text part of Gemma 3.
    Gemma3,
    /// Phi 3 and 4: fused projections.
    Phi3,
    /// Mixtral: Mistral with sparse experts.
    Mixtral,
    /// Qwen 3 with sparse experts.
    Qwen3Moe,
    /// GPT-NeoX and Pythia.
    GptNeox,
    /// GPT-2, whose linear maps are stored transposed.
    Gpt2,
    /// BERT and encoders built like it.
    Bert,
    /// Another one, by the name it gives itself.
    Unknown(String),
}

/// `model_type`, class prefix, architecture.
const KNOWN: &[(&str, &str, Architecture)] = &[
    ("llama", "Llama", Architecture::Llama),
    ("mistral", "Mistral", Architecture::Mistral),
    ("qwen2", "Qwen2", Architecture::Qwen2),
    ("qwen3", "Qwen3", Architecture::Qwen3),
    ("gemma2", "Gemma2", Architecture::Gemma2),
    ("gemma3_text", "Gemma3", Architecture::Gemma3),
    ("phi3", "Phi3", Architecture::Phi3),
    ("mixtral", "Mixtral", Architecture::Mixtral),
    ("qwen3_moe", "Qwen3Moe", Architecture::Qwen3Moe),
    ("gpt_neox", "GPTNeoX", Architecture::GptNeox),
    ("gpt2", "GPT2", Architecture::Gpt2),
    ("bert", "Bert", Architecture::Bert),
];

impl Architecture {
    /// The architecture from `model_type`, or, where that is missing, from the first class in `architectures`.
    pub fn of(model_type: Option<&str>, class: Option<&str>) -> Architecture {
        let found = match (model_type, class) {
            (Some(name), _) => KNOWN.iter().find(|(known, ..)| *known == name),
            (None, Some(class)) => KNOWN.iter().find(|(_, prefix, _)| {
                // "Qwen3ForCausalLM" is not a "Qwen3Moe", nor the other way round.
                class.strip_prefix(prefix).is_some_and(|rest| {
                    ["", "Model", "LMHeadModel", "TextModel"].contains(&rest) || rest.starts_with("For")
                })
            }),
            (None, None) => None,
        };
        found.map_or_else(
            || Architecture::Unknown(model_type.or(class).unwrap_or_default().to_owned()),
            |(.., architecture)| architecture.clone(),
        )
    }

    /// The `model_type` it is published under.
    pub fn name(&self) -> &str {
        match self {
            Architecture::Unknown(name) => name,
            known => KNOWN.iter().find(|(.., a)| a == known).map_or("", |(name, ..)| name),
        }
    }

    /// The names of the known architectures.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|(name, ..)| *name)
    }

    /// True where linear maps are stored as [inputs, outputs] and not as [outputs, inputs].
    pub fn stores_inputs_first(&self) -> bool {
        *self == Architecture::Gpt2
    }

    /// What `tie_word_embeddings` means where it is missing.
    pub(crate) fn ties_by_default(&self) -> bool {
        use Architecture::{Bert, Gemma2, Gemma3, Gpt2, Unknown};
        matches!(self, Gemma2 | Gemma3 | Gpt2 | Bert | Unknown(_))
    }

    /// What `head_dim` means where it is missing; otherwise it is hidden size / heads.
    pub(crate) fn default_head_dim(&self) -> Option<u64> {
        match self {
            Architecture::Gemma2 | Architecture::Gemma3 => Some(256),
            Architecture::Qwen3 => Some(128),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(self.name()))
    }
}
