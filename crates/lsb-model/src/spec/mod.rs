//! What a forward pass computes, as data: a list of residual blocks, assembled from the configuration.
//!
//! A model is an embedding, [`BlockSpec`]s in order, a last norm and a head. A block adds the outputs of its
//! branches to its input; most layers are two blocks of one branch (attention, then feed-forward), a layer with
//! a parallel residual is one block of two branches. Architectures differ in this data, never in code that runs.

mod decoder;
mod encoder;
mod names;
mod rotary;

pub use rotary::RotarySpec;

use crate::{Architecture, Error, ModelConfig, Result};
use lsb_stream::WeightSource;
use names::Names;

/// A model as a list of blocks.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Rows of the embedding, and of the head.
    pub vocab: usize,
    /// Longest context in tokens, where the configuration says it.
    pub context: Option<usize>,
    /// Layers, as people count them.
    pub layers: usize,
    /// From token ids to the residual stream.
    pub embedding: EmbeddingSpec,
    /// The blocks in order.
    pub blocks: Vec<BlockSpec>,
    /// The norm behind the last block.
    pub norm: Option<NormSpec>,
    /// From the residual stream to logits; `None` for encoders.
    pub head: Option<HeadSpec>,
}

/// Embedding of tokens.
#[derive(Clone, Debug)]
pub struct EmbeddingSpec {
    /// The matrix, [vocabulary, hidden].
    pub tokens: String,
    /// What its rows are multiplied by.
    pub scale: f64,
    /// Learned embeddings of positions, [positions, hidden].
    pub positions: Option<String>,
    /// Embeddings of token types; row 0 is added to every token.
    pub token_types: Option<String>,
    /// A norm of the sum.
    pub norm: Option<NormSpec>,
}

/// From the residual stream to logits.
#[derive(Clone, Debug)]
pub struct HeadSpec {
    /// The linear map; the embedding's own tensor where the two are tied.
    pub map: MapSpec,
    /// Logits `x` become `cap * tanh(x / cap)`.
    pub soft_cap: Option<f32>,
}

/// A residual block: `y = after(x + sum of branches(x))`.
#[derive(Clone, Debug)]
pub struct BlockSpec {
    /// The layer it is part of.
    pub layer: usize,
    /// What is added to the input.
    pub branches: Vec<BranchSpec>,
    /// A norm of the sum (encoders built like BERT).
    pub after: Option<NormSpec>,
}

/// One branch: `after(part(before(x)))`.
#[derive(Clone, Debug)]
pub struct BranchSpec {
    /// The norm of its input.
    pub before: Option<NormSpec>,
    /// What it computes.
    pub part: PartSpec,
    /// The norm of its output.
    pub after: Option<NormSpec>,
}

/// What a branch computes.
#[derive(Clone, Debug)]
pub enum PartSpec {
    /// Attention over the tokens.
    Attention(Box<AttentionSpec>),
    /// A feed-forward block, token by token.
    FeedForward(FeedForwardSpec),
    /// Sparse experts, token by token.
    Experts(ExpertsSpec),
}

/// A norm over the hidden width.
#[derive(Clone, Debug)]
pub struct NormSpec {
    /// The weights, `[hidden]`.
    pub weight: String,
    /// The bias of a layer norm; `None` for a root-mean-square norm.
    pub bias: Option<String>,
    /// Whether one is added to the weights.
    pub plus_one: bool,
    /// Added to the variance.
    pub eps: f32,
}

/// A linear map y = W x + b.
#[derive(Clone, Debug, PartialEq)]
pub struct MapSpec {
    /// The weights, [outputs, inputs], or [inputs, outputs] where `inputs_first`.
    pub tensor: String,
    /// The bias, `[outputs]`.
    pub bias: Option<String>,
    /// Inputs.
    pub inputs: usize,
    /// Outputs.
    pub outputs: usize,
    /// Whether the matrix is stored with one row for each input.
    pub inputs_first: bool,
}

/// Attention.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// The projections of queries, keys and values.
    pub qkv: QkvSpec,
    /// The output projection.
    pub out: MapSpec,
    /// Norms of each query and each key head.
    pub head_norms: Option<[NormSpec; 2]>,
    /// Rotary position embedding.
    pub rotary: Option<RotarySpec>,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Scores `s` become `cap * tanh(s / cap)`.
    pub soft_cap: Option<f32>,
    /// How many keys back a query sees, itself included.
    pub window: Option<usize>,
    /// Whether a query sees only keys up to its own position.
    pub causal: bool,
}

/// How queries, keys and values are projected.
#[derive(Clone, Debug)]
pub enum QkvSpec {
    /// Three maps.
    Separate([MapSpec; 3]),
    /// One map whose outputs are all queries, all keys, all values.
    Blocks(MapSpec),
    /// One map whose outputs are, head by head, query, key and value.
    Interleaved(MapSpec),
}

/// A feed-forward block.
#[derive(Clone, Debug)]
pub struct FeedForwardSpec {
    /// The maps into it.
    pub inner: InnerSpec,
    /// The map out of it.
    pub down: MapSpec,
    /// The activation.
    pub activation: Activation,
}

/// The maps into a feed-forward block.
#[derive(Clone, Debug)]
pub enum InnerSpec {
    /// `act(up x)`.
    Plain(MapSpec),
    /// `act(gate x) * (up x)`.
    Gated {
        /// The map under the activation.
        gate: MapSpec,
        /// The map beside it.
        up: MapSpec,
    },
    /// The same with one map, whose outputs are all gates, then all ups.
    Fused(MapSpec),
}

/// Sparse experts.
#[derive(Clone, Debug)]
pub struct ExpertsSpec {
    /// Scores of the experts.
    pub router: MapSpec,
    /// The experts.
    pub experts: Vec<FeedForwardSpec>,
    /// How many of them see one token.
    pub per_token: usize,
    /// Whether the weights of the chosen ones are made to sum to one.
    pub normalize: bool,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x).
    Silu,
    /// x * Phi(x), with the normal distribution function.
    Gelu,
    /// Its approximation by a hyperbolic tangent.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

impl ModelSpec {
    /// The forward pass of the model that `config` describes and `source` holds. Every tensor it names is
    /// there, with the shape it needs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an architecture without a forward pass; [`Error::Input`] where the
    /// configuration asks for something that is not known, or tensors are missing or of another shape.
    pub fn new(config: &ModelConfig, source: &dyn WeightSource) -> Result<ModelSpec> {
        let names = Names::new(source);
        match config.architecture {
            Architecture::Unknown(_) => {
                Err(Error::Unsupported { found: config.architecture.name().to_owned() })
            }
            Architecture::Bert => encoder::spec(config, &names),
            _ => decoder::spec(config, &names),
        }
    }

    /// Every linear map but those of experts, in the order a pass uses them; the head is the last.
    pub fn maps(&self) -> impl Iterator<Item = &MapSpec> {
        let parts = self.blocks.iter().flat_map(|b| &b.branches).flat_map(|b| b.part.maps());
        parts.chain(self.head.as_ref().map(|h| &h.map))
    }
}

impl ModelSpec {
    /// Every linear map, with those of experts.
    pub fn every_map(&self) -> impl Iterator<Item = &MapSpec> {
        let parts = self.blocks.iter().flat_map(|b| &b.branches).map(|b| &b.part);
        let experts = parts.filter_map(|p| match p {
            PartSpec::Experts(experts) => Some(&experts.experts),
            _ => None,
        });
        self.maps().chain(experts.flatten().flat_map(FeedForwardSpec::maps))
    }

    /// Every different rotary embedding.
    pub(crate) fn rotaries(&self) -> Vec<&RotarySpec> {
        let mut found: Vec<&RotarySpec> = Vec::new();
        for rotary in self.attentions().filter_map(|a| a.rotary.as_ref()) {
            if !found.contains(&rotary) {
                found.push(rotary);
            }
        }
        found
    }

    /// Whether no token sees those after it, as in a decoder; in an encoder every token sees every other.
    pub fn is_causal(&self) -> bool {
        self.attentions().all(|a| a.causal)
    }

    /// The attention of every block that has one, in order.
    pub(crate) fn attentions(&self) -> impl Iterator<Item = &AttentionSpec> {
        self.blocks.iter().filter_map(BlockSpec::attention)
    }
}

impl BlockSpec {
    /// Its attention.
    pub(crate) fn attention(&self) -> Option<&AttentionSpec> {
        self.branches.iter().find_map(|b| match &b.part {
            PartSpec::Attention(attention) => Some(&**attention),
            _ => None,
        })
    }
}

impl PartSpec {
    /// Its linear maps in the order they are used; of experts, the router alone.
    pub fn maps(&self) -> Vec<&MapSpec> {
        match self {
            PartSpec::Attention(attention) => {
                let qkv = match &attention.qkv {
                    QkvSpec::Separate(maps) => &maps[..],
                    QkvSpec::Blocks(map) | QkvSpec::Interleaved(map) => std::slice::from_ref(map),
                };
                qkv.iter().chain([&attention.out]).collect()
            }
            PartSpec::FeedForward(block) => block.maps(),
            PartSpec::Experts(experts) => vec![&experts.router],
        }
    }
}

impl PartSpec {
    /// Its linear maps, with those of experts.
    pub fn every_map(&self) -> Vec<&MapSpec> {
        let mut maps = self.maps();
        if let PartSpec::Experts(experts) = self {
            maps.extend(experts.experts.iter().flat_map(FeedForwardSpec::maps));
        }
        maps
    }
}

impl FeedForwardSpec {
    /// Its linear maps in the order they are used.
    pub fn maps(&self) -> Vec<&MapSpec> {
        match &self.inner {
            InnerSpec::Plain(map) | InnerSpec::Fused(map) => vec![map, &self.down],
            InnerSpec::Gated { gate, up } => vec![gate, up, &self.down],
        }
    }
}
