//! Encoders built like BERT: every token sees every other, norms behind the sums.

use super::decoder::{activation, size};
use super::names::Names;
use super::{
    Activation, AttentionSpec, BlockSpec, BranchSpec, EmbeddingSpec, FeedForwardSpec, InnerSpec, ModelSpec,
    PartSpec, QkvSpec,
};
use crate::{ModelConfig, Result};
use lsb_format::Error;

pub(super) fn spec(config: &ModelConfig, names: &Names<'_>) -> Result<ModelSpec> {
    let sizes = config.sizes.ok_or_else(|| {
        Error::corruption("B78", "the sizes of the model are missing").in_file("config.json")
    })?;
    let (hidden, inner) = (size(sizes.hidden)?, size(sizes.intermediate)?);
    let (heads, kv_heads, head_dim) = (size(sizes.heads)?, size(sizes.kv_heads)?, size(sizes.head_dim)?);
    let eps = config.norm_eps.unwrap_or(1e-12) as f32;
    let activation = activation(config, Activation::Gelu)?;
    let prefix = names.prefix(&["", "bert."], "embeddings.word_embeddings.weight")?;
    let at = |name: &str| format!("{prefix}{name}");

    let tokens = at("embeddings.word_embeddings.weight");
    let vocab = names.rows(&tokens, size(sizes.vocab)?, hidden)?;
    let positions = at("embeddings.position_embeddings.weight");
    names.rows(&positions, sizes.context.map_or(Ok(1), size)?, hidden)?;
    let token_types = at("embeddings.token_type_embeddings.weight");
    names.rows(&token_types, 1, hidden)?;
    let embedding = EmbeddingSpec {
        tokens,
        scale: 1.0,
        positions: Some(positions),
        token_types: Some(token_types),
        norm: Some(names.layer_norm(&at("embeddings.LayerNorm"), hidden, eps)?),
    };

    let layer = |layer: usize| -> Result<[BlockSpec; 2]> {
        let at = |name: &str| at(&format!("encoder.layer.{layer}.{name}"));
        let map = |name: &str, inputs, outputs| names.map(&at(name), inputs, outputs, false);
        let attention = AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            qkv: QkvSpec::Separate([
                map("attention.self.query", hidden, heads * head_dim)?,
                map("attention.self.key", hidden, kv_heads * head_dim)?,
                map("attention.self.value", hidden, kv_heads * head_dim)?,
            ]),
            out: map("attention.output.dense", heads * head_dim, hidden)?,
            head_norms: None,
            rotary: None,
            scale: (1.0 / (head_dim as f64).sqrt()) as f32,
            soft_cap: None,
            window: None,
            causal: false,
        };
        let feed_forward = FeedForwardSpec {
            inner: InnerSpec::Plain(map("intermediate.dense", hidden, inner)?),
            down: map("output.dense", inner, hidden)?,
            activation,
        };
        let block = |part, norm: &str| -> Result<BlockSpec> {
            Ok(BlockSpec {
                layer,
                branches: vec![BranchSpec { before: None, part, after: None }],
                after: Some(names.layer_norm(&at(norm), hidden, eps)?),
            })
        };
        Ok([
            block(PartSpec::Attention(Box::new(attention)), "attention.output.LayerNorm")?,
            block(PartSpec::FeedForward(feed_forward), "output.LayerNorm")?,
        ])
    };
    let layers = size(sizes.layers)?;
    let blocks = (0..layers).map(layer).collect::<Result<Vec<_>>>()?.concat();
    let context = sizes.context.map(size).transpose()?;
    Ok(ModelSpec { hidden, vocab, context, layers, embedding, blocks, norm: None, head: None })
}
