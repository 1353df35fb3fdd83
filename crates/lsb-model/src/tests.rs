//! Configurations and tensor names of every architecture, from headers of models as they are published.

use crate::{Architecture, ExpertPart, ModelConfig, Role, role_of};
use lsb_stream::layers::{LayerId, layer_of};
use lsb_stream::source::{Model, OpenOptions, find_duplicates};
use std::path::{Path, PathBuf};

const ALL: &[(&str, Architecture)] = &[
    ("bert", Architecture::Bert),
    ("gemma2", Architecture::Gemma2),
    ("gemma3", Architecture::Gemma3),
    ("gpt-neox", Architecture::GptNeox),
    ("gpt2", Architecture::Gpt2),
    ("llama", Architecture::Llama),
    ("llama3-rope", Architecture::Llama),
    ("mistral", Architecture::Mistral),
    ("mixtral", Architecture::Mixtral),
    ("phi3", Architecture::Phi3),
    ("qwen2", Architecture::Qwen2),
    ("qwen3", Architecture::Qwen3),
    ("qwen3-moe", Architecture::Qwen3Moe),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/headers").join(name)
}

fn config(name: &str) -> ModelConfig {
    ModelConfig::parse(&std::fs::read(fixture(&format!("{name}.config.json"))).unwrap()).unwrap()
}

/// The model of a header, with zeros for weights.
fn model(name: &str) -> (tempfile::TempDir, Model) {
    let json = std::fs::read_to_string(fixture(&format!("{name}.json"))).unwrap();
    let header: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ends = header.as_object().unwrap().values().filter_map(|e| e["data_offsets"][1].as_u64());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(bytes.len() + ends.max().unwrap() as usize, 0);
    std::fs::write(path, bytes).unwrap();
    let model = Model::open(dir.path(), &OpenOptions { hub_cache: None, ..OpenOptions::default() }).unwrap();
    (dir, model)
}

#[test]
fn every_configuration_describes_its_tensors() {
    for (name, architecture) in ALL {
        let config = config(name);
        assert_eq!(config.architecture, *architecture, "{name}");
        assert_eq!(config.warnings(), [], "{name}");
        assert_eq!(config.dtype.as_deref(), Some("bfloat16"), "{name}");
        let sizes = config.sizes.unwrap();
        assert_eq!((sizes.vocab, sizes.hidden, sizes.layers, sizes.heads), (320, 64, 3, 4), "{name}");
        assert_eq!(sizes.context, Some(128), "{name}");
        let (_dir, model) = model(name);
        let duplicates = find_duplicates(&model).unwrap();
        assert_eq!(config.check_against(&model, &duplicates).unwrap(), [], "{name}");
    }
}

#[test]
fn every_tensor_has_a_role_and_a_place() {
    for (name, _) in ALL {
        let (_dir, model) = model(name);
        let mut layers = std::collections::BTreeSet::new();
        for tensor in model.tensors() {
            let role = role_of(&tensor.name);
            let pooler = tensor.name == "pooler.dense.weight";
            assert_eq!(role == Role::Other, pooler, "{name}: {}", tensor.name);
            let place = layer_of(&tensor.name);
            layers.insert(place);
            let embedding = matches!(role, Role::Embedding | Role::PositionEmbedding);
            assert_eq!(
                place == LayerId::Before,
                embedding || tensor.name.starts_with("embeddings."),
                "{}",
                tensor.name
            );
            if role == Role::Head {
                assert_eq!(place, LayerId::After);
            }
            // Matrices are never taken for norms or biases, and the other way round.
            let vector = matches!(role, Role::Norm | Role::Bias);
            assert_eq!(vector, tensor.shape.len() == 1, "{name}: {}", tensor.name);
        }
        let expected =
            [LayerId::Before, LayerId::Layer(0), LayerId::Layer(1), LayerId::Layer(2), LayerId::After];
        assert_eq!(layers.into_iter().collect::<Vec<_>>(), expected, "{name}");
    }
}

#[test]
fn roles_of_names_that_look_alike() {
    for (name, role) in [
        ("encoder.layer.0.attention.output.dense.weight", Role::AttentionOut),
        ("encoder.layer.0.output.dense.weight", Role::MlpDown),
        ("gpt_neox.layers.0.attention.dense.weight", Role::AttentionOut),
        ("transformer.h.0.attn.c_proj.weight", Role::AttentionOut),
        ("transformer.h.0.mlp.c_proj.weight", Role::MlpDown),
        ("model.layers.0.mlp.gate.weight", Role::Router),
        ("model.layers.0.mlp.gate_proj.weight", Role::MlpGate),
        ("model.layers.0.self_attn.q_norm.weight", Role::Norm),
        ("encoder.layer.0.output.LayerNorm.bias", Role::Norm),
        ("model.layers.0.mlp.experts.7.down_proj.weight", Role::Expert { index: 7, part: ExpertPart::Down }),
        (
            "model.layers.0.block_sparse_moe.experts.2.w3.weight",
            Role::Expert { index: 2, part: ExpertPart::Up },
        ),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", Role::Other),
        ("", Role::Other),
    ] {
        assert_eq!(role_of(name), role, "{name}");
    }
}

#[test]
fn details_of_both_styles_of_configuration() {
    let llama3 = config("llama3-rope");
    let sizes = llama3.sizes.unwrap();
    assert_eq!((sizes.head_dim, sizes.kv_heads, llama3.tie_word_embeddings), (24, 2, true));
    let rope = llama3.rope.unwrap();
    let scaling = rope.scaling.unwrap();
    assert_eq!((rope.theta, scaling.kind.as_str(), scaling.factor), (500_000.0, "llama3", Some(8.0)));
    assert_eq!(scaling.original_context, Some(32));

    let gemma3 = config("gemma3").rope.unwrap();
    assert_eq!((gemma3.theta, gemma3.local_theta, gemma3.scaling), (1_000_000.0, Some(10_000.0), None));
    let neox = config("gpt-neox");
    assert_eq!(
        (neox.rope.unwrap().partial, neox.norm_eps, neox.tie_word_embeddings),
        (0.25, Some(1e-5), false)
    );
    let gpt2 = config("gpt2");
    assert_eq!((gpt2.sizes.unwrap().intermediate, gpt2.rope, gpt2.norm_eps), (256, None, Some(1e-5)));
    let moe = config("qwen3-moe").sizes.unwrap().experts.unwrap();
    assert_eq!((moe.count, moe.per_token, moe.intermediate), (6, 2, 48));
    let mixtral = config("mixtral").sizes.unwrap().experts.unwrap();
    assert_eq!((mixtral.count, mixtral.per_token, mixtral.intermediate), (4, 2, 160));
    assert_eq!(config("mistral").sliding_window, Some(8));
}

#[test]
fn architectures_are_found_by_type_or_class() {
    assert_eq!(Architecture::of(None, Some("Qwen3MoeForCausalLM")), Architecture::Qwen3Moe);
    assert_eq!(Architecture::of(None, Some("Qwen3ForCausalLM")), Architecture::Qwen3);
    assert_eq!(Architecture::of(None, Some("GPT2LMHeadModel")), Architecture::Gpt2);
    assert_eq!(
        Architecture::of(Some("mamba"), Some("LlamaForCausalLM")),
        Architecture::Unknown("mamba".to_owned())
    );
    assert_eq!(Architecture::of(None, None), Architecture::Unknown(String::new()));
    assert_eq!(Architecture::Llama.name(), "llama");
}
