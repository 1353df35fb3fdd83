//! Shapes of known models: their tensors, named as in real checkpoints, and their config.json.

use super::arguments::{Element, ShapeName};
use super::weights::Fill;
use serde_json::{Value, json};

/// One tensor to write.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name in the checkpoint.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// What its weights look like.
    pub fill: Fill,
}

impl TensorSpec {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// A decoder of the Llama family.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    name: ShapeName,
    hidden: u64,
    feed_forward: u64,
    layers: u64,
    heads: u64,
    kv_heads: u64,
    vocabulary: u64,
    /// Zero where every token takes the same feed-forward.
    experts: u64,
}

impl Shape {
    /// The shape of that name with another number of layers.
    pub fn new(name: ShapeName, layers: Option<u64>) -> Self {
        let (hidden, feed_forward, own_layers, heads, kv_heads, vocabulary, experts) = match name {
            ShapeName::Llama7b => (4096, 11008, 32, 32, 32, 32000, 0),
            ShapeName::Mistral7b => (4096, 14336, 32, 32, 8, 32000, 0),
            ShapeName::Llama70b => (8192, 28672, 80, 64, 8, 32000, 0),
            ShapeName::Mixtral => (4096, 14336, 32, 32, 8, 32000, 8),
            ShapeName::Tiny => (64, 172, 2, 4, 2, 256, 0),
        };
        let layers = layers.unwrap_or(own_layers);
        Shape { name, hidden, feed_forward, layers, heads, kv_heads, vocabulary, experts }
    }

    /// Rows of the embedding.
    pub fn vocabulary(&self) -> u64 {
        self.vocabulary
    }

    /// Every tensor, in the order of the model's forward pass.
    pub fn tensors(&self, embeddings: bool) -> Vec<TensorSpec> {
        let mut out = Vec::new();
        let mut add = |name: String, shape: &[u64], fill: Fill| {
            out.push(TensorSpec { name, shape: shape.to_vec(), fill });
        };
        let linear = |columns: u64| Fill::linear(columns);
        let (h, f, kv) = (self.hidden, self.feed_forward, self.hidden / self.heads * self.kv_heads);
        if embeddings {
            add("model.embed_tokens.weight".to_owned(), &[self.vocabulary, h], Fill::embedding());
        }
        for layer in 0..self.layers {
            let of = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
            add(of("input_layernorm"), &[h], Fill::norm());
            add(of("self_attn.q_proj"), &[h, h], linear(h));
            add(of("self_attn.k_proj"), &[kv, h], linear(h));
            add(of("self_attn.v_proj"), &[kv, h], linear(h));
            add(of("self_attn.o_proj"), &[h, h], linear(h));
            add(of("post_attention_layernorm"), &[h], Fill::norm());
            if self.experts == 0 {
                add(of("mlp.gate_proj"), &[f, h], linear(h));
                add(of("mlp.up_proj"), &[f, h], linear(h));
                add(of("mlp.down_proj"), &[h, f], linear(f));
            } else {
                add(of("block_sparse_moe.gate"), &[self.experts, h], linear(h));
            }
            for expert in 0..self.experts {
                let of = |rest: &str| of(&format!("block_sparse_moe.experts.{expert}.{rest}"));
                add(of("w1"), &[f, h], linear(h));
                add(of("w2"), &[h, f], linear(f));
                add(of("w3"), &[f, h], linear(h));
            }
        }
        if embeddings {
            add("model.norm.weight".to_owned(), &[h], Fill::norm());
            add("lm_head.weight".to_owned(), &[self.vocabulary, h], linear(h));
        }
        out
    }

    /// What `config.json` of such a model says.
    pub fn config(&self, dtype: Element) -> Value {
        let (model_type, class) = match self.name {
            ShapeName::Mistral7b => ("mistral", "MistralForCausalLM"),
            ShapeName::Mixtral => ("mixtral", "MixtralForCausalLM"),
            _ => ("llama", "LlamaForCausalLM"),
        };
        let mut config = json!({
            "architectures": [class],
            "model_type": model_type,
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": 4096,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": false,
            "torch_dtype": dtype.config_name(),
            "use_cache": true,
            "vocab_size": self.vocabulary,
        });
        if model_type == "mistral" {
            config["max_position_embeddings"] = json!(32768);
            config["sliding_window"] = json!(4096);
        }
        if model_type == "mixtral" {
            config["max_position_embeddings"] = json!(32768);
            config["sliding_window"] = Value::Null;
            config["rope_theta"] = json!(1e6);
            config["num_local_experts"] = json!(self.experts);
            config["num_experts_per_tok"] = json!(2);
            config["output_router_logits"] = json!(false);
            config["router_aux_loss_coef"] = json!(0.02);
        }
        config
    }

    /// What `generation_config.json` says: the least that loaders accept.
    pub fn generation_config(&self) -> Value {
        json!({ "_from_model_config": true, "bos_token_id": 1, "eos_token_id": 2 })
    }
}
