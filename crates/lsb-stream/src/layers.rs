//! Which layer a tensor belongs to, from its name, and the order in which layers are worked on.

use std::fmt;

/// A part of a model, in the order in which data flows through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerId {
    /// Embeddings and everything else that is needed before the first layer, or has no known place.
    Before,
    /// A layer, counted from 0.
    Layer(u32),
    /// The final norm, the head, and what else follows the last layer.
    After,
}

/// `before layers`, `layer 3`, `after layers`.
impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayerId::Before => f.write_str("before layers"),
            LayerId::Layer(n) => write!(f, "layer {n}"),
            LayerId::After => f.write_str("after layers"),
        }
    }
}

/// Knows the layer of a tensor.
pub trait LayerNaming: Send + Sync {
    /// The layer of the tensor called `name`.
    fn layer_of(&self, name: &str) -> LayerId;
}

/// The naming that published models share: a word for "layers" and a number, whatever stands before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommonNaming;

impl LayerNaming for CommonNaming {
    fn layer_of(&self, name: &str) -> LayerId {
        layer_of(name)
    }
}

/// Words that a layer's number follows.
const STACKS: &[&str] = &["layers", "layer", "h", "blocks", "block"];

/// Words that mark what comes before the layers, even where a word of [`ENDS`] follows.
const BEGINNINGS: &[&str] =
    &["embeddings", "embed_tokens", "embed_in", "word_embeddings", "wte", "wpe", "rotary_emb"];

/// Words that mark what comes after the layers.
const ENDS: &[&str] = &[
    "lm_head",
    "embed_out",
    "output",
    "score",
    "classifier",
    "qa_outputs",
    "cls",
    "pooler",
    "head",
    "norm",
    "final_norm",
    "ln_f",
    "final_layer_norm",
    "final_layernorm",
];

/// Parts of a model beside its main stack of layers, such as the image encoder of a language model.
const SIDE_TOWERS: &[&str] =
    &["vision_tower", "vision_model", "visual", "audio_tower", "multi_modal_projector"];

/// The layer of the tensor called `name`, by [`CommonNaming`].
///
/// ```
/// use lsb_stream::layers::{LayerId, layer_of};
/// assert_eq!(layer_of("model.layers.7.mlp.up_proj.weight"), LayerId::Layer(7));
/// assert_eq!(layer_of("lm_head.weight"), LayerId::After);
/// ```
pub fn layer_of(name: &str) -> LayerId {
    let has = |words: &[&str]| name.split('.').any(|part| words.contains(&part));
    if has(SIDE_TOWERS) {
        return LayerId::Before;
    }
    let parts = name.split('.');
    for (stack, number) in parts.clone().zip(parts.skip(1)) {
        if STACKS.contains(&stack)
            && number.bytes().all(|b| b.is_ascii_digit())
            && let Ok(number) = number.parse()
        {
            return LayerId::Layer(number);
        }
    }
    if !has(BEGINNINGS) && has(ENDS) { LayerId::After } else { LayerId::Before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_under_any_prefix() {
        for name in [
            "model.layers.12.self_attn.q_proj.weight",
            "language_model.model.layers.12.mlp.experts.3.w1.weight",
            "model.language_model.layers.12.input_layernorm.weight",
            "transformer.h.12.attn.c_attn.bias",
            "h.12.ln_1.weight",
            "gpt_neox.layers.12.attention.dense.weight",
            "bert.encoder.layer.12.output.LayerNorm.weight",
            "encoder.layer.12.attention.self.query.weight",
            "transformer.blocks.12.norm_1.weight",
            "layers.12.attention.wq.weight",
        ] {
            assert_eq!(layer_of(name), LayerId::Layer(12), "{name}");
        }
    }

    #[test]
    fn what_has_no_layer_comes_before_or_after() {
        for name in [
            "model.embed_tokens.weight",
            "transformer.wte.weight",
            "wpe.weight",
            "gpt_neox.embed_in.weight",
            "embeddings.LayerNorm.weight",
            "bert.embeddings.word_embeddings.weight",
            "something.else",
            "vision_tower.encoder.layers.3.fc1.weight",
            "layers.x.weight",
            "layers.99999999999.weight",
            "",
            "layers.",
        ] {
            assert_eq!(layer_of(name), LayerId::Before, "{name}");
        }
        for name in [
            "lm_head.weight",
            "model.norm.weight",
            "transformer.ln_f.bias",
            "ln_f.weight",
            "embed_out.weight",
            "gpt_neox.final_layer_norm.weight",
            "pooler.dense.weight",
            "language_model.lm_head.weight",
            "norm.weight",
        ] {
            assert_eq!(layer_of(name), LayerId::After, "{name}");
        }
    }

    #[test]
    fn the_order_is_the_order_of_work() {
        let mut ids = [LayerId::After, LayerId::Layer(10), LayerId::Layer(2), LayerId::Before];
        ids.sort();
        assert_eq!(ids, [LayerId::Before, LayerId::Layer(2), LayerId::Layer(10), LayerId::After]);
    }
}
