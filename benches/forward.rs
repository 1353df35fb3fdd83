//! Prefill of 512 tokens, beside candle-transformers' own Llama on the same weights and threads.
//!
//! Both hold f32 weights in memory and return the logits of the last token. The floor is the matrix product
//! itself, which `matmul` measures: the products of all linear maps and nothing else.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaConfig};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use lsb_benches::normal_weights;
use lsb_model::{CacheType, ModelConfig, ModelRunner, RunOptions};
use lsb_stream::{Budget, MemoryWeights};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

const TOKENS: usize = 512;

/// A Llama by its sizes.
struct Shape {
    name: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    inner: usize,
    vocab: usize,
}

const SHAPES: &[Shape] = &[
    Shape { name: "reflm", hidden: 256, layers: 4, heads: 4, kv_heads: 2, inner: 512, vocab: 2048 },
    // Four of the sixteen layers of a Llama with 1.2 billion parameters, and a smaller vocabulary.
    Shape {
        name: "1b, 4 layers",
        hidden: 2048,
        layers: 4,
        heads: 32,
        kv_heads: 8,
        inner: 8192,
        vocab: 32_000,
    },
];

impl Shape {
    fn config(&self) -> serde_json::Value {
        serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": self.hidden,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "intermediate_size": self.inner, "vocab_size": self.vocab,
            "max_position_embeddings": TOKENS + 1, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": false,
        })
    }

    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let kv = self.hidden / self.heads * self.kv_heads;
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocab, self.hidden]),
            ("model.norm.weight".to_owned(), vec![self.hidden]),
            ("lm_head.weight".to_owned(), vec![self.vocab, self.hidden]),
        ];
        for layer in 0..self.layers {
            for (name, shape) in [
                ("input_layernorm", vec![self.hidden]),
                ("post_attention_layernorm", vec![self.hidden]),
                ("self_attn.q_proj", vec![self.hidden, self.hidden]),
                ("self_attn.k_proj", vec![kv, self.hidden]),
                ("self_attn.v_proj", vec![kv, self.hidden]),
                ("self_attn.o_proj", vec![self.hidden, self.hidden]),
                ("mlp.gate_proj", vec![self.inner, self.hidden]),
                ("mlp.up_proj", vec![self.inner, self.hidden]),
                ("mlp.down_proj", vec![self.hidden, self.inner]),
            ] {
                all.push((format!("model.layers.{layer}.{name}.weight"), shape));
            }
        }
        all
    }
}

fn prefill(c: &mut Criterion) {
    for shape in SHAPES {
        let mut memory = MemoryWeights::new();
        let mut tensors = HashMap::new();
        for (i, (name, dims)) in shape.tensors().into_iter().enumerate() {
            let values = normal_weights(i as u64, dims.iter().product(), 0.02);
            let long: Vec<u64> = dims.iter().map(|&d| d as u64).collect();
            memory = memory.with_f32(&name, &long, &values).expect("a tensor of that size");
            tensors
                .insert(name, Tensor::from_vec(values, dims, &Device::Cpu).expect("a tensor of that size"));
        }
        let json = shape.config();
        let config = ModelConfig::parse(json.to_string().as_bytes()).expect("a configuration");
        let budget = Budget::new(64 << 30);
        let ours =
            ModelRunner::new(Arc::new(memory), config, &budget, &RunOptions::default()).expect("a model");
        let config: LlamaConfig = serde_json::from_value(json).expect("a configuration");
        let config: Config = config.into_config(false);
        let products: Vec<Tensor> = tensors
            .iter()
            .filter(|(name, t)| t.dims().len() == 2 && name.contains("layers"))
            .map(|(_, t)| t.clone())
            .collect();
        let builder = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let theirs = Llama::load(builder, &config).expect("a model");
        let ids: Vec<u32> = (0..TOKENS as u32).map(|i| i * 37 % shape.vocab as u32).collect();

        let mut group = c.benchmark_group("prefill");
        group
            .sample_size(10)
            .sampling_mode(SamplingMode::Flat)
            .throughput(Throughput::Elements(TOKENS as u64));
        group.bench_function(BenchmarkId::new("lsb", shape.name), |b| {
            b.iter(|| {
                let mut session = ours.session(TOKENS, CacheType::F32).expect("a session");
                black_box(session.feed(&ids, false).expect("logits"))
            });
        });
        group.bench_function(BenchmarkId::new("candle-transformers", shape.name), |b| {
            let input = Tensor::new(&ids[..], &Device::Cpu).and_then(|t| t.unsqueeze(0)).expect("ids");
            b.iter(|| {
                let mut cache = Cache::new(true, DType::F32, &config, &Device::Cpu).expect("a cache");
                black_box(theirs.forward(&input, 0, &mut cache).expect("logits"))
            });
        });
        group.bench_function(BenchmarkId::new("matmul", shape.name), |b| {
            let input = |n: usize| Tensor::ones((TOKENS, n), DType::F32, &Device::Cpu).expect("inputs");
            let inputs: Vec<Tensor> = products.iter().map(|w| input(w.dims()[1])).collect();
            b.iter(|| {
                for (x, w) in inputs.iter().zip(&products) {
                    black_box(w.t().and_then(|w| x.matmul(&w)).expect("a product"));
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, prefill);
criterion_main!(benches);
