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

/// Runs the command with `--json`, insists on its exit code, and gives the one document on stdout.
pub(crate) fn json(args: &[&str], code: i32) -> serde_json::Value {
    let output = run(&[args, &["--json"]].concat(), code);
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("lsb {}: {e}\n{text}", args.join(" ")))
}

/// Runs the command with `--json`, insists that it fails with this code, prints nothing on stdout and one
/// JSON line on stderr, and gives what that says.
pub(crate) fn json_error(args: &[&str], code: i32) -> serde_json::Value {
    let output = run(&[args, &["--json"]].concat(), code);
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let error = serde_json::from_str::<serde_json::Value>(&text).unwrap()["error"].take();
    assert_eq!(error["exit_code"], code);
    error
}

/// What the command prints on stdout.
pub(crate) fn text(args: &[&str], code: i32) -> String {
    String::from_utf8(run(args, code).stdout).unwrap()
}

/// What the command prints on stderr.
pub(crate) fn complaint(args: &[&str], code: i32) -> String {
    String::from_utf8(run(args, code).stderr).unwrap()
}

/// The bytes a decoder needs: manifest and shards.
pub(crate) fn package_size(dir: &Path) -> u64 {
    let needed = |name: &str| name == "lsb.json" || name.ends_with(".lsb");
    contents(dir).iter().filter(|(name, _)| needed(name)).map(|(_, bytes)| bytes.len() as u64).sum()
}

/// All tensors of a model directory: type, shape and bytes by name.
pub(crate) fn tensors(dir: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let mut out = BTreeMap::new();
    for (name, bytes) in contents(dir).iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (tensor, view) in file.tensors() {
            let entry = (format!("{:?}", view.dtype()), view.shape().to_vec(), view.data().to_vec());
            assert!(out.insert(tensor, entry).is_none());
        }
    }
    out
}

/// Writes a model of one file, `model.safetensors`, with f32 tensors.
pub(crate) fn f32_model(dir: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)]) {
    std::fs::create_dir_all(dir).unwrap();
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape, _), data)| (*name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()))
        .collect();
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
}

/// Changes one byte of a file.
pub(crate) fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
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
