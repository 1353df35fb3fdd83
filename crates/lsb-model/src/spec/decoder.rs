//! Decoders: everything that predicts the next token.

use super::names::Names;
use super::{
    Activation, AttentionSpec, BlockSpec, BranchSpec, EmbeddingSpec, ExpertsSpec, FeedForwardSpec, HeadSpec,
    InnerSpec, MapSpec, ModelSpec, PartSpec, QkvSpec, RotarySpec,
};
use crate::{Architecture, Error, ModelConfig, Result, Sizes};
use lsb_format::{Error as InputError, escape};

/// What is the same in every layer.
struct Family<'a> {
    config: &'a ModelConfig,
    sizes: Sizes,
    names: &'a Names<'a>,
    /// In front of every tensor of the body.
    prefix: String,
    hidden: usize,
    head_dim: usize,
    eps: f32,
    activation: Activation,
}

pub(super) fn spec(config: &ModelConfig, names: &Names<'_>) -> Result<ModelSpec> {
    let family = Family::new(config, names)?;
    let blocks = (0..size(family.sizes.layers)?)
        .map(|layer| family.layer(layer))
        .collect::<Result<Vec<Vec<BlockSpec>>>>()?
        .concat();
    let (embedding, vocab) = family.embedding()?;
    Ok(ModelSpec {
        hidden: family.hidden,
        vocab,
        context: family.sizes.context.map(size).transpose()?,
        layers: size(family.sizes.layers)?,
        head: Some(family.head(&embedding, vocab)?),
        embedding,
        blocks,
        norm: Some(match config.architecture {
            Architecture::GptNeox => family.norm("final_layer_norm")?,
            Architecture::Gpt2 => family.norm("ln_f")?,
            _ => family.norm("norm")?,
        }),
    })
}

/// A size of the configuration as an index. Larger ones cannot be tensors of a file.
pub(super) fn size(n: u64) -> Result<usize> {
    let limit = 1 << 32;
    let small = usize::try_from(n).ok().filter(|n| *n < limit);
    small.ok_or_else(|| {
        InputError::corruption("B77", format!("{n} is too large")).in_file("config.json").into()
    })
}

/// The activation by its name in the configuration.
pub(super) fn activation(config: &ModelConfig, default: Activation) -> Result<Activation> {
    Ok(match config.details.activation.as_deref() {
        None => default,
        Some("silu" | "swish") => Activation::Silu,
        Some("gelu") => Activation::Gelu,
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Activation::GeluTanh,
        Some("relu") => Activation::Relu,
        Some(other) => return Err(unknown("the activation", other)),
    })
}

fn unknown(what: &str, found: &str) -> Error {
    let message = format!("{what} \"{}\" is not known to the forward pass", escape(found));
    InputError::corruption("B78", message).in_file("config.json").into()
}

impl<'a> Family<'a> {
    fn new(config: &'a ModelConfig, names: &'a Names<'a>) -> Result<Self> {
        use Architecture::{Gemma2, Gemma3, Gpt2, GptNeox};
        let sizes = config.sizes.ok_or_else(|| {
            InputError::corruption("B78", "the sizes of the model are missing").in_file("config.json")
        })?;
        let (prefixes, first): (&[&str], _) = match config.architecture {
            GptNeox => (&["gpt_neox.", ""], "embed_in.weight"),
            Gpt2 => (&["transformer.", ""], "wte.weight"),
            _ => (&["model.", "language_model.model.", "model.language_model.", ""], "embed_tokens.weight"),
        };
        let default = match config.architecture {
            Gemma2 | Gemma3 | Gpt2 => Activation::GeluTanh,
            GptNeox => Activation::Gelu,
            _ => Activation::Silu,
        };
        let eps = match config.architecture {
            Gpt2 | GptNeox => 1e-5,
            _ => 1e-6,
        };
        Ok(Family {
            prefix: names.prefix(prefixes, first)?,
            hidden: size(sizes.hidden)?,
            head_dim: size(sizes.head_dim)?,
            eps: config.norm_eps.unwrap_or(eps) as f32,
            activation: activation(config, default)?,
            config,
            sizes,
            names,
        })
    }

    fn architecture(&self) -> &Architecture {
        &self.config.architecture
    }

    fn is_gemma(&self) -> bool {
        matches!(self.architecture(), Architecture::Gemma2 | Architecture::Gemma3)
    }

    fn norm(&self, name: &str) -> Result<super::NormSpec> {
        let stem = format!("{}{name}", self.prefix);
        match self.architecture() {
            Architecture::Gpt2 | Architecture::GptNeox => self.names.layer_norm(&stem, self.hidden, self.eps),
            _ => self.names.rms_norm(&stem, self.hidden, self.eps, self.is_gemma()),
        }
    }

    fn map(&self, name: &str, inputs: usize, outputs: usize) -> Result<MapSpec> {
        let inputs_first = self.architecture().stores_inputs_first();
        self.names.map(&format!("{}{name}", self.prefix), inputs, outputs, inputs_first)
    }

    fn embedding(&self) -> Result<(EmbeddingSpec, usize)> {
        let name = match self.architecture() {
            Architecture::GptNeox => "embed_in",
            Architecture::Gpt2 => "wte",
            _ => "embed_tokens",
        };
        let tokens = format!("{}{name}.weight", self.prefix);
        let vocab = self.names.rows(&tokens, size(self.sizes.vocab)?, self.hidden)?;
        let positions = if *self.architecture() == Architecture::Gpt2 {
            let rows = self.sizes.context.map_or(Ok(1), size)?;
            let name = format!("{}wpe.weight", self.prefix);
            self.names.rows(&name, rows, self.hidden)?;
            Some(name)
        } else {
            None
        };
        let scale = if self.is_gemma() { (self.hidden as f64).sqrt() } else { 1.0 };
        Ok((EmbeddingSpec { tokens, scale, positions, token_types: None, norm: None }, vocab))
    }

    fn head(&self, embedding: &EmbeddingSpec, vocab: usize) -> Result<HeadSpec> {
        let soft_cap = self.config.details.final_soft_cap.map(|cap| cap as f32);
        let map = if self.config.tie_word_embeddings {
            MapSpec {
                tensor: embedding.tokens.clone(),
                bias: None,
                inputs: self.hidden,
                outputs: vocab,
                inputs_first: false,
            }
        } else {
            let stem = match self.architecture() {
                Architecture::GptNeox => "embed_out",
                _ => "lm_head",
            };
            let prefix = self.names.prefix(&["", "language_model.", "model."], &format!("{stem}.weight"))?;
            let rows = self.names.rows(&format!("{prefix}{stem}.weight"), vocab, self.hidden)?;
            // Of a head with more rows than the embedding, the rest predicts tokens that do not exist.
            self.names.map(&format!("{prefix}{stem}"), self.hidden, rows, false)?
        };
        Ok(HeadSpec { map, soft_cap })
    }

    fn layer(&self, layer: usize) -> Result<Vec<BlockSpec>> {
        use Architecture::{Gemma2, Gemma3, Gpt2, GptNeox};
        let (stem, norms, attention) = match self.architecture() {
            GptNeox => ("layers", ["input_layernorm", "post_attention_layernorm"], "attention"),
            Gpt2 => ("h", ["ln_1", "ln_2"], "attn"),
            Gemma2 | Gemma3 => ("layers", ["input_layernorm", "pre_feedforward_layernorm"], "self_attn"),
            _ => ("layers", ["input_layernorm", "post_attention_layernorm"], "self_attn"),
        };
        let at = format!("{stem}.{layer}");
        let norm = |name: &str| self.norm(&format!("{at}.{name}"));
        let [after_attention, after_feed_forward] = if self.is_gemma() {
            [Some(norm("post_attention_layernorm")?), Some(norm("post_feedforward_layernorm")?)]
        } else {
            [None, None]
        };
        let first = BranchSpec {
            before: Some(norm(norms[0])?),
            part: PartSpec::Attention(Box::new(self.attention(layer, &format!("{at}.{attention}"))?)),
            after: after_attention,
        };
        let second = BranchSpec {
            before: Some(norm(norms[1])?),
            part: self.feed_forward(layer, &at)?,
            after: after_feed_forward,
        };
        let block = |branches| BlockSpec { layer, branches, after: None };
        let parallel =
            *self.architecture() == GptNeox && self.config.details.parallel_residual.unwrap_or(true);
        Ok(if parallel {
            vec![block(vec![first, second])]
        } else {
            vec![block(vec![first]), block(vec![second])]
        })
    }

    fn attention(&self, layer: usize, at: &str) -> Result<AttentionSpec> {
        let (heads, kv_heads) = (size(self.sizes.heads)?, size(self.sizes.kv_heads)?);
        let (queries, keys) = (heads * self.head_dim, kv_heads * self.head_dim);
        let map = |name: &str, outputs| self.map(&format!("{at}.{name}"), self.hidden, outputs);
        let (qkv, out) = match self.architecture() {
            Architecture::Phi3 => (QkvSpec::Blocks(map("qkv_proj", queries + 2 * keys)?), "o_proj"),
            Architecture::Gpt2 => (QkvSpec::Blocks(map("c_attn", queries + 2 * keys)?), "c_proj"),
            Architecture::GptNeox => {
                if kv_heads != heads {
                    let message = "gpt_neox has as many key heads as query heads";
                    return Err(InputError::corruption("B77", message).in_file("config.json").into());
                }
                (QkvSpec::Interleaved(map("query_key_value", queries + 2 * keys)?), "dense")
            }
            _ => {
                let maps = [map("q_proj", queries)?, map("k_proj", keys)?, map("v_proj", keys)?];
                (QkvSpec::Separate(maps), "o_proj")
            }
        };
        let head_norms = match self.architecture() {
            Architecture::Qwen3 | Architecture::Qwen3Moe | Architecture::Gemma3 => {
                let norm = |name: &str| {
                    let stem = format!("{}{at}.{name}", self.prefix);
                    self.names.rms_norm(&stem, self.head_dim, self.eps, self.is_gemma())
                };
                Some([norm("q_norm")?, norm("k_norm")?])
            }
            _ => None,
        };
        let details = &self.config.details;
        let window = self.window(layer)?;
        let rope = self.config.rope.as_ref();
        let local = window.is_some() && *self.architecture() == Architecture::Gemma3;
        let mut width = details.query_pre_attention_scalar.filter(|_| self.is_gemma());
        if *self.architecture() == Architecture::Gpt2 && details.scale_attention == Some(false) {
            width = Some(1.0);
        }
        let mut scale = 1.0 / width.unwrap_or(self.head_dim as f64).sqrt();
        if *self.architecture() == Architecture::Gpt2 && details.scale_by_layer {
            scale /= (layer + 1) as f64;
        }
        Ok(AttentionSpec {
            heads,
            kv_heads,
            head_dim: self.head_dim,
            qkv,
            out: self.map(&format!("{at}.{out}"), queries, self.hidden)?,
            head_norms,
            rotary: rope.map(|r| RotarySpec::new(self.config, r, self.head_dim, local)).transpose()?,
            scale: scale as f32,
            soft_cap: details
                .attention_soft_cap
                .filter(|_| *self.architecture() == Architecture::Gemma2)
                .map(|cap| cap as f32),
            window,
            causal: true,
        })
    }

    /// How many keys back a query of that layer sees, where it does not see all.
    fn window(&self, layer: usize) -> Result<Option<usize>> {
        use Architecture::{Gemma2, Gemma3, Mistral, Mixtral, Phi3, Qwen2, Qwen3, Qwen3Moe};
        let details = &self.config.details;
        let Some(window) = self.config.sliding_window.map(size).transpose()? else { return Ok(None) };
        if window == 0 {
            return Err(InputError::corruption("B77", "sliding_window is 0").in_file("config.json").into());
        }
        let listed = match details.layer_types.get(layer).map(String::as_str) {
            None => None,
            Some("sliding_attention") => Some(true),
            Some("full_attention") => Some(false),
            Some(other) => return Err(unknown("the kind of layer", other)),
        };
        let pattern = |every: usize| !(layer + 1).is_multiple_of(every);
        let slides = match (self.architecture(), listed) {
            (Qwen2 | Qwen3 | Qwen3Moe, _) if details.use_sliding_window != Some(true) => false,
            (Qwen2 | Qwen3 | Gemma2 | Gemma3, Some(listed)) => listed,
            (Qwen2 | Qwen3, None) => details.max_window_layers.is_none_or(|first| layer as u64 >= first),
            (Gemma2, None) => pattern(2),
            (Gemma3, None) => pattern(details.sliding_pattern.map_or(Ok(6), size)?),
            (Mistral | Mixtral | Phi3 | Qwen3Moe, _) => true,
            _ => false,
        };
        Ok(slides.then_some(window))
    }

    fn feed_forward(&self, layer: usize, at: &str) -> Result<PartSpec> {
        let inner = size(self.sizes.intermediate)?;
        let (hidden, activation) = (self.hidden, self.activation);
        let map = |name: &str, inputs, outputs| self.map(&format!("{at}.mlp.{name}"), inputs, outputs);
        let plain = |up: &str, down: &str| -> Result<PartSpec> {
            let (up, down) = (map(up, hidden, inner)?, map(down, inner, hidden)?);
            Ok(PartSpec::FeedForward(FeedForwardSpec { inner: InnerSpec::Plain(up), down, activation }))
        };
        match self.architecture() {
            Architecture::GptNeox => plain("dense_h_to_4h", "dense_4h_to_h"),
            Architecture::Gpt2 => plain("c_fc", "c_proj"),
            Architecture::Phi3 => Ok(PartSpec::FeedForward(FeedForwardSpec {
                inner: InnerSpec::Fused(map("gate_up_proj", hidden, 2 * inner)?),
                down: map("down_proj", inner, hidden)?,
                activation,
            })),
            Architecture::Mixtral => {
                self.experts(&format!("{at}.block_sparse_moe"), ["w1", "w3", "w2"], true)
            }
            Architecture::Qwen3Moe if self.is_sparse(layer)? => {
                let normalize = self.config.details.normalize_experts.unwrap_or(false);
                self.experts(&format!("{at}.mlp"), ["gate_proj", "up_proj", "down_proj"], normalize)
            }
            _ => Ok(PartSpec::FeedForward(FeedForwardSpec {
                inner: InnerSpec::Gated {
                    gate: map("gate_proj", hidden, inner)?,
                    up: map("up_proj", hidden, inner)?,
                },
                down: map("down_proj", inner, hidden)?,
                activation,
            })),
        }
    }

    fn is_sparse(&self, layer: usize) -> Result<bool> {
        let step = self.config.details.sparse_step.map_or(Ok(1), size)?;
        let dense = self.config.details.dense_layers.contains(&(layer as u64));
        Ok(self.sizes.experts.is_some() && !dense && (layer + 1).is_multiple_of(step))
    }

    fn experts(&self, at: &str, [gate, up, down]: [&str; 3], normalize: bool) -> Result<PartSpec> {
        let Some(sizes) = self.sizes.experts else {
            let message = "the number of experts is missing";
            return Err(InputError::corruption("B78", message).in_file("config.json").into());
        };
        let (count, inner) = (size(sizes.count)?, size(sizes.intermediate)?);
        let expert = |index: usize| -> Result<FeedForwardSpec> {
            let map = |name: &str, inputs, outputs| {
                self.map(&format!("{at}.experts.{index}.{name}"), inputs, outputs)
            };
            Ok(FeedForwardSpec {
                inner: InnerSpec::Gated {
                    gate: map(gate, self.hidden, inner)?,
                    up: map(up, self.hidden, inner)?,
                },
                down: map(down, inner, self.hidden)?,
                activation: self.activation,
            })
        };
        Ok(PartSpec::Experts(ExpertsSpec {
            router: self.map(&format!("{at}.gate"), self.hidden, count)?,
            experts: (0..count).map(expert).collect::<Result<_>>()?,
            per_token: size(sizes.per_token)?,
            normalize,
        }))
    }
}
