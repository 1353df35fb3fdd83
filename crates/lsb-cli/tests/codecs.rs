//! A target that chooses among codecs, tensor by tensor.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

mod support;

use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;
use support::{complaint, json, reflm, run, tensors};

/// A tensor of the reference model that is made to hold three values only.
const NATIVE: &str = "model.layers.1.mlp.up_proj.weight";

/// The reference model with one tensor of three values.
fn partly_ternary(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for entry in std::fs::read_dir(reflm()).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let mut all = tensors(dir);
    let native = &mut all.get_mut(NATIVE).unwrap().2;
    let of = |b: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
    let mean = native.chunks(2).map(|b| of(b).abs()).sum::<f32>() / (native.len() / 2) as f32;
    for b in native.chunks_mut(2) {
        let x = of(b);
        let made = if x.abs() < 0.5 * mean { 0.0 } else { mean.copysign(x) };
        b.copy_from_slice(&made.to_bits().to_le_bytes()[2..]);
    }
    let views = all
        .iter()
        .map(|(name, (_, shape, data))| (name, TensorView::new(Dtype::BF16, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
}

#[test]
fn each_tensor_gets_what_is_cheapest_at_one_price() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    partly_ternary(&dir.path().join("model"));
    let (model, package, stats) = (path("model"), path("package"), path("stats"));
    run(&["calibrate", &model, "-o", &stats, "--calib-tokens", "256", "--seqlen", "128"], 0);
    let codecs = "trellis:states=8,ternary,lossless";
    let recipe = path("made/recipe.toml");
    let args = ["compress", &model, "-o", &package, "--codecs", codecs, "--bpw", "3", "--calib", &stats];
    let report = json(&[&args[..], &["--emit-recipe", &recipe]].concat(), 0);
    assert!((report["bpw"].as_f64().unwrap() / 3.0 - 1.0).abs() < 0.005, "{}", report["bpw"]);
    let tensors = report["tensors"].as_array().unwrap();
    for t in tensors.iter().filter(|t| t["codec"] != "raw") {
        let (name, codec) = (t["name"].as_str().unwrap(), t["codec"].as_str().unwrap());
        assert_eq!(codec, if name == NATIVE { "ternary" } else { "trellis" }, "{name}");
    }
    let native = tensors.iter().find(|t| t["name"] == NATIVE).unwrap();
    let bits = 8.0 * native["bytes"].as_f64().unwrap() / native["weights"].as_f64().unwrap();
    assert!(bits < 2.2, "{bits}");
    assert!(native["notes"].to_string().contains("cheaper than trellis"), "{}", native["notes"]);
    run(&["verify", &package], 0);

    // The recipe makes the same tensors without a search, and a line of it can be changed.
    let text = std::fs::read_to_string(&recipe).unwrap();
    assert!(text.contains("tau=") && text.contains("ternary") && !text.contains("bpw=3"), "{text}");
    let (again, changed) = (path("again"), path("changed"));
    run(&["compress", &model, "-o", &again, "--config", &recipe], 0);
    let restored = |package: &str, to: &str| {
        run(&["decompress", package, "-o", &path(to)], 0);
        support::tensors(Path::new(&path(to)))
    };
    let first = restored(&package, "first");
    assert!(first == restored(&again, "second"), "other weights");
    let line = text.lines().find(|l| l.contains(r"layers\.2\.mlp\.down_proj")).unwrap();
    let other = "    '^model\\.layers\\.2\\.mlp\\.down_proj\\.weight$=lossless',";
    std::fs::write(&recipe, text.replace(line, other)).unwrap();
    let report = json(&["compress", &model, "-o", &changed, "--config", &recipe], 0);
    let name = "model.layers.2.mlp.down_proj.weight";
    let mut tensors = report["tensors"].as_array().unwrap().iter();
    assert_eq!(tensors.find(|t| t["name"] == name).unwrap()["codec"], "lossless");
}

#[test]
fn without_calibration_the_expected_error_decides() {
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("package").to_str().unwrap().to_owned();
    let model = reflm().to_str().unwrap().to_owned();
    let args = ["compress", &model, "-o", &package, "--codecs", "rtn:bits=4,group=64,ternary", "--bpw", "3"];
    let report = json(&args, 0);
    let used = |codec: &str| report["tensors"].as_array().unwrap().iter().any(|t| t["codec"] == codec);
    assert!(used("rtn") && used("ternary") && report["bpw"].as_f64().unwrap() <= 3.0);
    let nothing = complaint(&["compress", &model, "-o", &package, "--codecs", "rtn,ternary"], 2);
    assert!(nothing.contains("a target"), "{nothing}");
}
