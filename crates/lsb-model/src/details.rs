//! Fields of `config.json` that only a forward pass needs.

use crate::fields::Fields;
use lsb_format::{Error, Result};

/// What a forward pass reads from `config.json` beyond sizes and rotary embeddings. A field that is missing
/// there is `None`, empty or false here; what that means is the architecture's matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Name of the activation of the feed-forward block.
    pub activation: Option<String>,
    /// Attention scores `s` become `cap * tanh(s / cap)`.
    pub attention_soft_cap: Option<f64>,
    /// The same for logits.
    pub final_soft_cap: Option<f64>,
    /// Scores are divided by the root of this instead of the head's width.
    pub query_pre_attention_scalar: Option<f64>,
    /// For each layer its kind, such as `sliding_attention`; empty where the list is missing.
    pub layer_types: Vec<String>,
    /// Every how many layers one has no sliding window.
    pub sliding_pattern: Option<u64>,
    /// False where sliding windows are switched off.
    pub use_sliding_window: Option<bool>,
    /// Layers below this one have no sliding window.
    pub max_window_layers: Option<u64>,
    /// Whether the weights of the chosen experts are made to sum to one.
    pub normalize_experts: Option<bool>,
    /// Every how many layers one has experts.
    pub sparse_step: Option<u64>,
    /// Layers without experts, whatever the step says.
    pub dense_layers: Vec<u64>,
    /// Whether attention and feed-forward block read the same input.
    pub parallel_residual: Option<bool>,
    /// Whether scores are also divided by the number of the layer, counted from one.
    pub scale_by_layer: bool,
    /// False where scores are not divided by the root of the head's width.
    pub scale_attention: Option<bool>,
}

impl Details {
    pub(crate) fn read(fields: Fields<'_>) -> Result<Details> {
        let number = |names: &[&'static str]| -> Result<Option<f64>> {
            match fields.number(names)? {
                Some((name, value)) if value <= 0.0 => {
                    Err(Error::corruption("B81", format!("{name} is {value}: must be above 0")))
                }
                found => Ok(found.map(|(_, value)| value)),
            }
        };
        let flag = |name: &'static str| Ok::<_, Error>(fields.flag(&[name])?.map(|(_, value)| value));
        let count = |names: &[&'static str]| -> Result<Option<u64>> {
            match fields.unsigned(names)? {
                Some((name, 0)) => Err(Error::corruption("B77", format!("{name} is 0"))),
                found => Ok(found.map(|(_, value)| value)),
            }
        };
        let activation = fields.text(&["hidden_activation", "hidden_act", "activation_function"])?;
        Ok(Details {
            activation: activation.map(|(_, name)| name.to_owned()),
            attention_soft_cap: number(&["attn_logit_softcapping"])?,
            final_soft_cap: number(&["final_logit_softcapping"])?,
            query_pre_attention_scalar: number(&["query_pre_attn_scalar"])?,
            layer_types: fields.texts(&["layer_types"])?.into_iter().map(str::to_owned).collect(),
            sliding_pattern: count(&["sliding_window_pattern", "_sliding_window_pattern"])?,
            use_sliding_window: flag("use_sliding_window")?,
            max_window_layers: fields.unsigned(&["max_window_layers"])?.map(|(_, n)| n),
            normalize_experts: flag("norm_topk_prob")?,
            sparse_step: count(&["decoder_sparse_step"])?,
            dense_layers: fields.indices(&["mlp_only_layers"])?,
            parallel_residual: flag("use_parallel_residual")?,
            scale_by_layer: flag("scale_attn_by_inverse_layer_idx")?.unwrap_or(false),
            scale_attention: flag("scale_attn_weights")?,
        })
    }
}
