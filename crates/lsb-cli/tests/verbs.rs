//! Verbs that read packages: what comes back, what is found, and what is judged.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

mod support;

use serde_json::Value;
use std::path::PathBuf;
use support::{flip, json, reflm, run, sharded_model, tensors, text};

/// A temporary directory with paths as texts.
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

    /// Compresses the reference model.
    fn compressed(&self, name: &str, codec: &str) -> String {
        let out = self.text(name);
        run(&["compress", &model(), "-o", &out, "--codec", codec], 0);
        out
    }
}

fn model() -> String {
    reflm().to_str().unwrap().to_owned()
}

fn number(v: &Value, key: &str) -> f64 {
    v[key].as_f64().unwrap_or_else(|| panic!("{key} is no number: {}", v[key]))
}

#[test]
fn lossless_packages_turn_back_into_the_same_tensors() {
    let place = Place::new();
    let package = place.compressed("p", "lossless");
    let out = place.text("restored");
    let report = json(&["decompress", &package, "-o", &out], 0);
    assert_eq!((report["tensors"].as_u64(), report["exact_tensors"].as_u64()), (Some(38), Some(38)));
    assert!(report["bytes"].is_u64() && report["seconds"].is_number() && report["peak_rss_bytes"].is_u64());
    assert!(tensors(&place.path("restored")) == tensors(&reflm()), "tensors differ");
    for file in ["config.json", "tokenizer.json"] {
        assert_eq!(
            std::fs::read(place.path("restored").join(file)).unwrap(),
            std::fs::read(reflm().join(file)).unwrap()
        );
    }
    let refused = run(&["decompress", &package, "-o", &out], 1);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--overwrite"));
    run(&["decompress", &package, "-o", &out, "--overwrite"], 0);

    sharded_model(&place.path("sharded"), 2, 128);
    run(
        &[
            "compress",
            &place.text("sharded"),
            "-o",
            &place.text("q"),
            "--codec",
            "lossless",
            "--shard-size",
            "100kB",
        ],
        0,
    );
    run(&["decompress", &place.text("q"), "-o", &place.text("r"), "--shard-size", "100kB"], 0);
    assert!(tensors(&place.path("r")) == tensors(&place.path("sharded")), "tensors differ");
}

#[test]
fn decompress_writes_the_type_asked_for() {
    let place = Place::new();
    let package = place.compressed("p", "lossless");
    let original = tensors(&reflm());
    for (flag, name) in [("f32", "F32"), ("f16", "F16")] {
        let said = text(&["decompress", &package, "-o", &place.text(flag), "--dtype", flag], 0);
        assert!(said.contains("38 tensors"), "{said}");
        for (tensor, (dtype, shape, bytes)) in tensors(&place.path(flag)) {
            assert_eq!((dtype.as_str(), &shape), (name, &original[&tensor].1));
            if flag == "f32" {
                // A bf16 is the upper half of the f32 of the same value.
                let widened = original[&tensor].2.chunks(2).flat_map(|b| [0, 0, b[0], b[1]]);
                assert!(widened.eq(bytes), "{tensor}");
            }
        }
        let diff = json(&["diff", &model(), &place.text(flag)], 0);
        assert_eq!(diff["summary"]["different"], 38);
        let errors = diff["tensors"].as_array().unwrap().iter().map(|t| &t["error"]);
        assert!(flag != "f32" || errors.clone().all(|e| e["exact"] == true));
        assert!(errors.clone().all(|e| e["exact"] == true || number(e, "weight_snr_db") > 60.0));
    }
    let message = support::complaint(&["decompress", &package, "-o", &place.text("x"), "--dtype", "f8"], 2);
    assert!(message.contains("bf16, f16, f32 or original"), "{message}");
}

#[test]
fn diff_counts_and_compares() {
    let place = Place::new();
    let (exact, lossy) = (place.compressed("a", "lossless"), place.compressed("b", "outlier-binary"));
    let same = json(&["diff", &model(), &exact], 0);
    assert_eq!((&same["summary"]["identical"], &same["summary"]["different"]), (&38.into(), &0.into()));
    assert!(text(&["diff", &model(), &exact], 0).starts_with("38 identical, 0 different"));
    let moved = json(&["diff", &exact, &lossy], 0);
    assert_eq!((&moved["summary"]["identical"], &moved["summary"]["different"]), (&9.into(), &29.into()));
    assert_eq!((moved["a"].as_str(), moved["b"].as_str()), (Some(exact.as_str()), Some(lossy.as_str())));
    let said = text(&["diff", &exact, &lossy], 0);
    assert!(said.contains("mlp.up_proj") && said.contains("9 identical, 29 different"), "{said}");
    assert!(text(&["diff", &exact, &lossy, "--full"], 0).lines().count() >= 38);

    sharded_model(&place.path("other"), 1, 128);
    let other = json(&["diff", &model(), &place.text("other")], 0);
    let states: Vec<&str> =
        other["tensors"].as_array().unwrap().iter().map(|t| t["state"].as_str().unwrap()).collect();
    assert!(states.contains(&"only_in_a") && states.contains(&"mismatch"), "{states:?}");
    assert!(text(&["diff", &model(), &place.text("other")], 0).contains("mismatch"));
}

#[test]
fn verify_finds_a_flipped_byte_and_says_where() {
    let place = Place::new();
    let package = place.compressed("p", "outlier-binary");
    for depth in ["--quick", "--full", "--weights"] {
        let report = json(&["verify", &package, depth], 0);
        assert_eq!((&report["ok"], &report["tensors"]), (&true.into(), &38.into()));
        assert!(report["bytes"].is_u64() && report["damaged"].as_array().unwrap().is_empty());
        assert!(text(&["verify", &package, depth], 0).contains(": ok, 38 tensors"));
    }

    let shard = place.path("p").join("weights-00001.lsb");
    let middle = std::fs::metadata(&shard).unwrap().len() as usize / 2;
    flip(&shard, middle);
    for depth in ["--full", "--weights"] {
        let report = json(&["verify", &package, depth], 3);
        assert_eq!(report["ok"], false);
        let damage = &report["damaged"][0];
        assert_eq!(damage["file"], "weights-00001.lsb");
        assert!(
            damage["tensor"].as_str().unwrap().starts_with("model.") && damage["tile"].is_u64(),
            "{damage}"
        );
        let said = text(&["verify", &package, depth], 3);
        assert!(
            said.contains("damaged: weights-00001.lsb, tensor \"model.") && said.contains("tile "),
            "{said}"
        );
    }
    run(&["verify", &package, "--quick"], 0);
    flip(&shard, middle);

    // A copied file: nothing a decoder needs, so only the full check reads it.
    flip(&place.path("p").join("config.json"), 10);
    assert_eq!(json(&["verify", &package], 3)["damaged"][0]["file"], "config.json");
    run(&["verify", &package, "--weights"], 0);
    flip(&place.path("p").join("config.json"), 10);

    let manifest = place.path("p").join("lsb.json");
    let at = std::fs::read_to_string(&manifest).unwrap().find("outlier_ratio").unwrap();
    flip(&manifest, at);
    for depth in ["--quick", "--full", "--weights"] {
        assert_eq!(json(&["verify", &package, depth], 3)["damaged"][0]["file"], "lsb.json");
    }
    flip(&manifest, at);
    run(&["verify", &package], 0);
    std::fs::remove_file(&shard).unwrap();
    assert_eq!(json(&["verify", &package, "--quick"], 3)["ok"], false);
}

#[test]
fn validate_judges_by_the_limits() {
    let place = Place::new();
    let package = place.compressed("p", "rtn:4");
    let base = ["validate", &package, "--against", &model()];
    let passing =
        ["--min-snr", "18", "--min-correlation", "0.99", "--max-relative-error", "2", "--min-ratio", "3.5"];
    let report = json(&[&base[..], &passing].concat(), 0);
    assert_eq!(report["passed"], true);
    let names: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["weight_snr_db", "relative_error_percent", "correlation", "ratio", "defective_tensors"]
    );
    for check in report["checks"].as_array().unwrap() {
        assert!(
            check["value"].is_number() && check["limit"].is_number() && check["passed"] == true,
            "{check}"
        );
    }
    assert!(report["defects"].as_array().unwrap().is_empty());

    let failing = json(&[&base[..], &["--min-snr", "30", "--max-bpw", "2"]].concat(), 3);
    assert_eq!(failing["passed"], false);
    for check in failing["checks"].as_array().unwrap() {
        let expected =
            ["relative_error_percent", "defective_tensors"].contains(&check["name"].as_str().unwrap());
        assert_eq!(check["passed"], expected, "{check}");
    }
    let said = text(&[&base[..], &["--min-snr", "30"]].concat(), 3);
    assert!(said.contains("FAIL  weight_snr_db") && said.contains("without the exact tensors"), "{said}");

    // A package of something else is defective, whatever the limits.
    sharded_model(&place.path("other"), 1, 128);
    let wrong =
        json(&["validate", &package, "--against", &place.text("other"), "--max-relative-error", "100"], 3);
    assert!(!wrong["defects"].as_array().unwrap().is_empty());
    assert!(
        wrong["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["name"] == "defective_tensors" && c["passed"] == false)
    );
}
