//! What a tensor is for, from its name.

/// The purpose of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// Rows for tokens.
    Embedding,
    /// Rows for positions or segments.
    PositionEmbedding,
    /// From the residual stream to logits.
    Head,
    /// Scale or shift of a norm.
    Norm,
    /// Bias of a linear map.
    Bias,
    /// Queries.
    AttentionQ,
    /// Keys.
    AttentionK,
    /// Values.
    AttentionV,
    /// Queries, keys and values in one.
    AttentionQkv,
    /// From heads back to the residual stream.
    AttentionOut,
    /// The gate of a feed-forward block.
    MlpGate,
    /// Into a feed-forward block.
    MlpUp,
    /// Out of a feed-forward block.
    MlpDown,
    /// Gate and up in one.
    MlpGateUp,
    /// Chooses experts.
    Router,
    /// One matrix of one sparse expert.
    Expert {
        /// Number of the expert in its layer.
        index: u32,
        /// Which of its matrices.
        part: ExpertPart,
    },
    /// Anything else.
    Other,
}

/// Which matrix of an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExpertPart {
    /// The gate.
    Gate,
    /// Into the expert.
    Up,
    /// Out of the expert.
    Down,
}

/// The role of the tensor called `name`. Known names do not collide between architectures, so the
/// architecture need not be known.
///
/// ```
/// use lsb_model::{Role, role_of};
/// assert_eq!(role_of("model.layers.3.self_attn.q_proj.weight"), Role::AttentionQ);
/// assert_eq!(role_of("transformer.h.0.mlp.c_proj.weight"), Role::MlpDown);
/// ```
pub fn role_of(name: &str) -> Role {
    let mut parts = name.rsplit('.');
    let kind = parts.next().unwrap_or_default();
    let module = parts.next().unwrap_or_default();
    let parent = parts.next().unwrap_or_default();
    if is_norm(module) {
        return Role::Norm;
    }
    match kind {
        "weight" => {}
        "bias" => return Role::Bias,
        _ => return Role::Other,
    }
    let role = match (parent, module) {
        (_, "embed_tokens" | "wte" | "embed_in" | "word_embeddings") => Role::Embedding,
        (_, "wpe" | "position_embeddings" | "token_type_embeddings") => Role::PositionEmbedding,
        (_, "lm_head" | "embed_out") => Role::Head,
        (_, "q_proj") | ("self", "query") => Role::AttentionQ,
        (_, "k_proj") | ("self", "key") => Role::AttentionK,
        (_, "v_proj") | ("self", "value") => Role::AttentionV,
        (_, "qkv_proj" | "query_key_value" | "c_attn") => Role::AttentionQkv,
        (_, "o_proj") | ("attn", "c_proj") | ("attention", "dense") => Role::AttentionOut,
        ("output", "dense") if parts.next() == Some("attention") => Role::AttentionOut,
        (_, "gate_proj" | "w1") => Role::MlpGate,
        (_, "up_proj" | "w3" | "c_fc" | "dense_h_to_4h") | ("intermediate", "dense") => Role::MlpUp,
        (_, "down_proj" | "w2" | "dense_4h_to_h") | ("mlp", "c_proj") | ("output", "dense") => Role::MlpDown,
        (_, "gate_up_proj") => Role::MlpGateUp,
        ("block_sparse_moe" | "mlp", "gate") => Role::Router,
        _ => Role::Other,
    };
    match (expert_index(name), role) {
        (Some(index), Role::MlpGate) => Role::Expert { index, part: ExpertPart::Gate },
        (Some(index), Role::MlpUp) => Role::Expert { index, part: ExpertPart::Up },
        (Some(index), Role::MlpDown) => Role::Expert { index, part: ExpertPart::Down },
        (_, role) => role,
    }
}

fn is_norm(module: &str) -> bool {
    matches!(module, "ln_1" | "ln_2" | "ln_f" | "LayerNorm" | "norm")
        || module.ends_with("_norm")
        || module.ends_with("layernorm")
}

fn expert_index(name: &str) -> Option<u32> {
    let mut parts = name.split('.');
    parts.find(|part| *part == "experts")?;
    parts.next()?.parse().ok()
}
