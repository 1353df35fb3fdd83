//! Models and directories for tests that run the built command.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command under test.
pub(crate) fn lsb() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lsb"))
}

/// Runs the command and insists on its exit code.
pub(crate) fn run(args: &[&str], code: i32) -> Output {
    let output = lsb().args(args).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "lsb {}\n{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The trained model that ships with the project.
pub(crate) fn reflm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/reflm")
}

/// Reproducible values with a bell-shaped distribution, as bf16.
pub(crate) fn bell(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    };
    let mut out = Vec::with_capacity(n * 2);
    for _ in 0..n {
        let x: f32 = (0..4).map(|_| uniform()).sum::<f32>() * 0.04;
        out.extend_from_slice(&((x.to_bits() + 0x8000) >> 16).to_le_bytes()[..2]);
    }
    out
}

/// Writes a model of three shards with `layers` layers of `width` x `width` matrices.
pub(crate) fn sharded_model(dir: &Path, layers: usize, width: usize) {
    std::fs::create_dir_all(dir).unwrap();
    let mut tensors: Vec<(String, Vec<usize>)> =
        vec![("model.embed_tokens.weight".into(), vec![2 * width, width])];
    for l in 0..layers {
        for name in ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"] {
            tensors.push((format!("model.layers.{l}.{name}.weight"), vec![width, width]));
        }
        tensors.push((format!("model.layers.{l}.input_layernorm.weight"), vec![width]));
    }
    tensors.push(("model.norm.weight".into(), vec![width]));
    let data: Vec<Vec<u8>> =
        tensors.iter().enumerate().map(|(i, (_, s))| bell(i as u64 + 1, s.iter().product())).collect();
    let mut map = serde_json::Map::new();
    for shard in 0..3 {
        let file = format!("model-{:05}-of-00003.safetensors", shard + 1);
        let views: Vec<(&str, TensorView<'_>)> = (0..tensors.len())
            .filter(|i| i * 3 / tensors.len() == shard)
            .map(|i| {
                map.insert(tensors[i].0.clone(), file.clone().into());
                (tensors[i].0.as_str(), TensorView::new(Dtype::BF16, tensors[i].1.clone(), &data[i]).unwrap())
            })
            .collect();
        safetensors::serialize_to_file(views, None, &dir.join(&file)).unwrap();
    }
    let total: usize = data.iter().map(Vec::len).sum();
    let index = serde_json::json!({"metadata": {"total_size": total}, "weight_map": map});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
        "intermediate_size": width, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": 2 * width, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512, "tie_word_embeddings": true, "hidden_act": "silu"
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

/// Every file of a directory with its bytes.
pub(crate) fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries
        .map(|e| {
            let e = e.unwrap();
            (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())
        })
        .collect()
}

/// Insists that two directories hold the same files with the same bytes.
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let (x, y) = (contents(a), contents(b));
    assert_eq!(x.keys().collect::<Vec<_>>(), y.keys().collect::<Vec<_>>());
    for (name, bytes) in &x {
        assert!(bytes == &y[name], "{name} differs between {} and {}", a.display(), b.display());
    }
}
