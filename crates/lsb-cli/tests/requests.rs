//! What can be asked of `plan` and `compress`: targets, rules, recipes, and the requests that are refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

mod support;

use serde_json::Value;
use std::path::PathBuf;
use support::{
    bell, complaint, contents, f32_model, json, json_error, package_size, reflm, run, sharded_model, text,
};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.text(name)
    }
}

fn model() -> String {
    reflm().to_str().unwrap().to_owned()
}

/// Codec and parameters of a tensor in the report of `compress`.
fn codec(report: &Value, name: &str) -> String {
    let t = report["tensors"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap();
    format!("{} {}", t["codec"].as_str().unwrap(), t["parameters"])
}

#[test]
fn plans_predict_the_size_within_two_percent() {
    let place = Place::new();
    for codec in ["outlier-binary", "rtn:4", "residual-binary:3", "lossless", "ternary", "raw"] {
        let plan = json(&["plan", &model(), "--codec", codec], 0);
        let out = place.text(&codec.replace(':', "-"));
        let report = json(&["compress", &model(), "-o", &out, "--codec", codec], 0);
        let (predicted, real) =
            (plan["predicted_bytes"].as_f64().unwrap(), report["package_bytes"].as_f64().unwrap());
        assert!((predicted / real - 1.0).abs() < 0.02, "{codec}: {predicted} planned, {real} made");
        assert_eq!(plan["source_bytes"], report["source_bytes"]);
        assert!(plan["predicted_ram_bytes"].as_u64() <= plan["ram_limit_bytes"].as_u64());
        assert!(plan["ratio"].is_number() && plan["bpw"].is_number() && plan["conflicts"].is_array());
    }
}

#[test]
fn plans_name_targets_that_cannot_hold_together() {
    let args = ["plan", &model(), "--calib", "none", "--ratio", "5.63", "--min-snr", "40"];
    let plan = json(&args, 0);
    let conflicts = plan["conflicts"].as_array().unwrap();
    assert!(conflicts.iter().any(|c| c["explanation"].as_str().unwrap().contains("6.64")), "{conflicts:?}");
    let said = text(&args, 0);
    assert!(said.contains("cannot hold together") && said.contains("6.64"), "{said}");
    let fine = json(&["plan", &model(), "--calib", "none", "--ratio", "3", "--min-snr", "10"], 0);
    assert!(fine["conflicts"].as_array().unwrap().is_empty(), "{}", fine["conflicts"]);
    // Where the rate is found for the whole model, the size asked for is the size to expect.
    for target in [["--ratio", "5.63"], ["--bpw", "2.2"], ["--target-size", "1500000"]] {
        let met = json(&[&["plan", &model()], &target[..]].concat(), 0);
        assert!(met["conflicts"].as_array().unwrap().is_empty(), "{}", met["conflicts"]);
    }
}

#[test]
fn sizes_asked_for_are_met_from_below() {
    let place = Place::new();
    let source = std::fs::metadata(reflm().join("model.safetensors")).unwrap().len() as f64;
    let weights = 2_885_888.0;
    let targets = [
        ("--ratio", "5.63", source / 5.63),
        ("--ratio", "3", source / 3.0),
        ("--ratio", "9", source / 9.0),
        ("--bpw", "3", weights * 3.0 / 8.0),
        ("--bpw", "2", weights * 2.0 / 8.0),
        ("--target-size", "900kB", 900e3),
    ];
    for (i, (flag, value, bytes)) in targets.into_iter().enumerate() {
        let out = place.path(&i.to_string());
        run(&["compress", &model(), "-o", out.to_str().unwrap(), "--calib", "none", flag, value], 0);
        let share = package_size(&out) as f64 / bytes;
        assert!((0.97..=1.0).contains(&share), "{flag} {value}: {share:.4} of the target");
    }
    let message =
        complaint(&["compress", &model(), "-o", &place.text("x"), "--calib", "none", "--ratio", "300"], 2);
    assert!(message.contains("cannot be reached") && message.contains("smallest"), "{message}");
    assert!(!place.path("x").exists());
}

#[test]
fn of_two_rules_the_later_one_wins() {
    let place = Place::new();
    let out = place.text("out");
    let rules = [
        "--rule",
        "mlp=rtn:4",
        "--rule",
        "layers.0.mlp=residual-binary:planes=2",
        "--rule",
        "embed=lossless",
    ];
    let report = json(&[&["compress", &model(), "-o", &out][..], &rules].concat(), 0);
    assert!(codec(&report, "model.layers.0.mlp.up_proj.weight").starts_with("residual-binary"));
    assert!(codec(&report, "model.layers.1.mlp.up_proj.weight").starts_with("rtn"));
    assert!(codec(&report, "model.embed_tokens.weight").starts_with("lossless"));
    assert!(codec(&report, "model.layers.1.self_attn.q_proj.weight").starts_with("outlier-binary"));
    let message = complaint(&["plan", &model(), "--rule", "lm_haed=raw"], 2);
    assert!(message.contains("lm_haed=raw") && message.contains("matches no tensor"), "{message}");
    for bad in ["(=raw", "raw", "mlp=zip", "mlp=rtn:99", "mlp=rtn:colour=red"] {
        run(&["plan", &model(), "--rule", bad], 2);
    }
}

#[test]
fn recipes_are_read_and_flags_win() {
    let place = Place::new();
    let recipe = place.write("lsb.toml", "codec = \"rtn:3\"\ntarget_ram_mb = 100\nrules = [\"embed=raw\"]\n");
    let plan = json(&["plan", &model(), "--config", &recipe], 0);
    assert_eq!(plan["ram_limit_bytes"], 100_000_000);
    assert_eq!(plan["tensors"][0]["codec"], "raw");
    assert_eq!(plan["tensors"][2]["parameters"]["bits"], 3);
    let over =
        json(&["plan", &model(), "--config", &recipe, "--codec", "rtn:5", "--rule", "embed=ternary"], 0);
    assert_eq!(over["tensors"][0]["codec"], "ternary");
    assert_eq!(over["tensors"][2]["parameters"]["bits"], 5);
    for (content, named) in [
        ("colour = 1", "colour"),
        ("codec = \"zip\"", "zip"),
        ("codec = \"rtn:colour=1\"", "colour"),
        ("outlier_ratio = 0.9", "outlier_ratio"),
        ("target_ram_mb = \"much\"", "target_ram_mb"),
        ("rules = [\"nothing_like_it=raw\"]", "nothing_like_it"),
        ("codec = ", "bad.toml"),
    ] {
        let message = complaint(&["plan", &model(), "--config", &place.write("bad.toml", content)], 2);
        assert!(message.contains(named), "{content}: {message}");
    }
    // What a plan writes down makes the same plan again.
    let written = place.text("written.toml");
    let first = json(
        &[
            "plan",
            &model(),
            "--ratio",
            "5",
            "--calib",
            "none",
            "--rule",
            "norm=lossless",
            "--emit-recipe",
            &written,
        ],
        0,
    );
    assert_eq!(first, json(&["plan", &model(), "--config", &written], 0));
}

#[test]
fn max_layers_leaves_the_rest_alone() {
    let place = Place::new();
    let out = place.text("out");
    let report = json(&["compress", &model(), "-o", &out, "--max-layers", "1", "--codec", "rtn:4"], 0);
    assert!(codec(&report, "model.layers.0.mlp.up_proj.weight").starts_with("rtn"));
    for layer in 1..4 {
        assert!(codec(&report, &format!("model.layers.{layer}.mlp.up_proj.weight")).starts_with("raw"));
    }
    run(&["verify", &out], 0);
}

#[test]
fn nonfinite_weights_are_refused_by_name_or_kept() {
    let place = Place::new();
    for (value, rule) in [(f32::NAN, "B53"), (f32::INFINITY, "B54")] {
        let input = place.path(rule);
        let mut weights: Vec<f32> = (0..128 * 128).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
        weights[4321] = value;
        let fine = weights.iter().map(|x| if x.is_finite() { *x } else { 0.0 }).collect();
        f32_model(&input, &[("a.weight", vec![128, 128], fine), ("bad.weight", vec![128, 128], weights)]);
        let out = place.text("out");
        let args = ["compress", input.to_str().unwrap(), "-o", &out, "--codec", "rtn:4"];
        let error = json_error(&args, 1);
        assert_eq!((&error["rule"], &error["tensor"]), (&rule.into(), &"bad.weight".into()), "{error}");
        assert!(error["file"].as_str().unwrap().ends_with("model.safetensors"), "{error}");
        assert!(error["message"].as_str().unwrap().contains("4321"), "{error}");
        let message = complaint(&args, 1);
        assert!(message.contains(rule) && message.contains("allow-nonfinite"), "{message}");
        assert!(!place.path("out").exists());

        let kept = json(&[&args[..], &["--allow-nonfinite", "--restart"]].concat(), 0);
        assert!(codec(&kept, "bad.weight").starts_with("raw") && codec(&kept, "a.weight").starts_with("rtn"));
        run(&["verify", &out], 0);
        run(&["validate", &out, "--against", input.to_str().unwrap(), "--max-relative-error", "5"], 0);
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn adaptive_precision_refines_what_misses_the_threshold() {
    let place = Place::new();
    let args = ["compress", &model(), "--codec", "rtn:2", "--quality-threshold", "1.0", "-o"];
    let plain = json(&[&args[..], &[&place.text("a")]].concat(), 3);
    let adapted = json(&[&args[..], &[&place.text("b"), "--adaptive-precision"]].concat(), 0);
    let worst = |r: &Value| {
        let errors =
            r["tensors"].as_array().unwrap().iter().map(|t| t["relative_error_percent"].as_f64().unwrap());
        errors.fold(0.0, f64::max)
    };
    assert!(worst(&plain) > 1.0 && worst(&adapted) <= 1.0, "{} {}", worst(&plain), worst(&adapted));
    assert!(adapted["package_bytes"].as_u64() > plain["package_bytes"].as_u64());
}

#[test]
fn quality_may_go_unmeasured_without_changing_a_weight() {
    let place = Place::new();
    let args = ["compress", &model(), "--codec", "rtn:4", "-o"];
    run(&[&args[..], &[&place.text("a")]].concat(), 0);
    let report = json(&[&args[..], &[&place.text("b"), "--quality-monitoring=false"]].concat(), 0);
    assert!(report["weight_snr_db"].is_null());
    assert!(
        report["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .any(|t| t["weight_snr_db"].is_null() && t["exact"].is_null())
    );
    let diff = json(&["diff", &place.text("a"), &place.text("b")], 0);
    assert_eq!(diff["summary"]["identical"], 38);
    let said = text(&[&args[..], &[&place.text("b"), "--quality-monitoring=false"]].concat(), 0);
    assert!(said.contains("not measured"), "{said}");
}

#[test]
fn memory_that_cannot_suffice_is_refused_with_advice() {
    let place = Place::new();
    sharded_model(&place.path("m"), 6, 1024);
    let out = place.text("out");
    let input = place.text("m");
    assert!(complaint(&["compress", &input, "-o", &out, "--target-ram-mb", "10"], 2).contains("32"));
    let message = complaint(&["compress", &input, "-o", &out, "--target-ram-mb", "32"], 1);
    assert!(message.contains("raise --target-ram-mb"), "{message}");
    let advised = message.trim().rsplit(' ').next().unwrap().to_owned();
    // Streaming needs that much; the whole model does not fit into it.
    let request = ["compress", &input, "-o", &out, "--target-ram-mb", &advised];
    let message = complaint(&[&request[..], &["--streaming-enabled=false"]].concat(), 1);
    assert!(message.contains("MB of memory"), "{message}");
    assert!(!place.path("out").exists());
    run(&request, 0);
}

#[test]
fn what_exists_is_kept_unless_told_otherwise() {
    let place = Place::new();
    let out = place.text("out");
    run(&["compress", &model(), "-o", &out, "--codec", "rtn:4"], 0);
    let before = contents(&place.path("out"));
    let message = complaint(&["compress", &model(), "-o", &out, "--codec", "rtn:3"], 1);
    assert!(message.contains("--overwrite"), "{message}");
    assert!(contents(&place.path("out")) == before);
    assert_eq!(json(&["compress", &model(), "-o", &out, "--codec", "rtn:4"], 0)["already_done"], true);
    let report = json(&["compress", &model(), "-o", &out, "--codec", "rtn:3", "--overwrite"], 0);
    assert_eq!(report["already_done"], false);
    assert!(contents(&place.path("out")) != before);
    // A directory that is no package is not replaced by chance.
    std::fs::create_dir(place.path("mine")).unwrap();
    place.write("mine/letter.txt", "keep me");
    run(&["compress", &model(), "-o", &place.text("mine")], 1);
    assert_eq!(std::fs::read_to_string(place.path("mine/letter.txt")).unwrap(), "keep me");
}

#[test]
fn a_storage_limit_that_is_asked_for_is_a_check() {
    let place = Place::new();
    let out = place.text("out");
    let args = ["compress", &model(), "-o", &out, "--codec", "rtn:4", "--target-storage-gb", "0.0001"];
    let report = json(&args, 3);
    assert_eq!((&report["passed"], &report["checks"][0]["name"]), (&false.into(), &"storage_gb".into()));
    assert!(text(&args, 3).contains("FAIL  storage_gb"));
}

#[test]
fn dry_runs_write_nothing() {
    let place = Place::new();
    let said = text(&["compress", &model(), "-o", &place.text("out"), "--dry-run"], 0);
    assert!(said.contains("outlier-binary"), "{said}");
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 0);
}

#[test]
fn errors_for_machines_are_one_json_line() {
    let place = Place::new();
    let out = place.text("out");
    for (args, code) in [
        (vec!["compress", "/no/such/model", "-o", &out], 1),
        (vec!["compress", &model(), "-o", &out, "--codec", "zip"], 2),
        (vec!["compress", &model(), "-o", &out, "--ratio", "2", "--bpw", "3"], 2),
        (vec!["compress", &model(), "-o", &out, "--rule", "zz=raw"], 2),
        (vec!["plan"], 2),
        (vec!["nonsense"], 2),
        (vec!["verify", "/no/such/package"], 1),
        (vec!["inspect", "/no/such/package"], 1),
        (vec!["validate", &model(), "--against", &model()], 1),
        (vec!["decompress", &model(), "-o", &out], 1),
        (vec!["diff", &model(), "/no/such/model"], 1),
        (vec!["codecs", "zip"], 2),
    ] {
        let error = json_error(&args, code);
        assert!(!error["message"].as_str().unwrap().is_empty(), "{args:?}");
    }
    // A truncated file: rule, file and offset are told.
    let bytes = std::fs::read(reflm().join("model.safetensors")).unwrap();
    std::fs::create_dir(place.path("cut")).unwrap();
    std::fs::write(place.path("cut/model.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    let error = json_error(&["compress", &place.text("cut"), "-o", &out], 1);
    assert!(error["rule"].as_str().unwrap().starts_with('B'), "{error}");
    assert!(error["file"].as_str().unwrap().contains("model.safetensors"), "{error}");
}

#[test]
fn a_lone_file_and_repeated_content_are_fine() {
    let place = Place::new();
    let values: Vec<f32> = bell(1, 96 * 96)
        .chunks(2)
        .map(|b| f32::from_bits(u32::from(b[1]) << 24 | u32::from(b[0]) << 16))
        .collect();
    let shape = vec![96, 96];
    f32_model(&place.path("m"), &[("a.weight", shape.clone(), values.clone()), ("b.weight", shape, values)]);
    let file = place.text("m/model.safetensors");
    let report = json(&["compress", &file, "-o", &place.text("out"), "--codec", "rtn:4"], 0);
    assert_eq!(report["weights"], 96 * 96, "identical tensors are stored once");
    run(&["validate", &place.text("out"), "--against", &file, "--max-relative-error", "5"], 0);
}
