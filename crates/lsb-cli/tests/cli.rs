//! The command from outside: output contracts, exit codes, what is written and what is left alone.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use support::{assert_same, contents, lsb, reflm, run};

/// A folder for one test, with the trained model's path.
struct Place {
    temp: tempfile::TempDir,
    model: String,
}

impl Place {
    fn new() -> Self {
        Place { temp: tempfile::tempdir().unwrap(), model: text(&reflm()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        text(&self.path(name))
    }

    /// Compresses the model to `name` with more flags, and gives the report.
    fn compress(&self, name: &str, flags: &[&str]) -> Value {
        let out = self.name(name);
        let mut args = vec!["compress", &self.model, "-o", &out, "--json"];
        args.extend(flags);
        json(&run(&args, 0))
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Insists that each key is there and a number.
fn numbers(value: &Value, keys: &[&str]) {
    keys.iter().for_each(|k| assert!(value[k].is_number(), "{k}: {}", value[k]));
}

#[test]
fn compress_reports_what_is_on_disk() {
    let place = Place::new();
    let report = place.compress("new/out", &["--codec", "outlier-binary:0.02"]);
    numbers(&report, &["source_bytes", "package_bytes", "ratio", "bpw", "seconds", "peak_rss_bytes"]);
    numbers(&report, &["weight_snr_db", "relative_error_percent", "correlation", "resumed_tensors"]);
    assert_eq!(
        (&report["codec"], &report["package"]),
        (&"outlier-binary".into(), &place.name("new/out").into())
    );
    assert_eq!(report["parameters"]["outlier_ratio"], 0.02);

    let files = contents(&place.path("new/out"));
    let needed = files.iter().filter(|(name, _)| *name == "lsb.json" || name.ends_with(".lsb"));
    let package_bytes = needed.map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    assert_eq!(report["package_bytes"], package_bytes);
    let source_bytes = std::fs::metadata(reflm().join("model.safetensors")).unwrap().len();
    assert_eq!(report["source_bytes"], source_bytes);
    assert_eq!(report["ratio"], source_bytes as f64 / package_bytes as f64);
    for copied in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(files[copied], std::fs::read(reflm().join(copied)).unwrap(), "{copied}");
    }

    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 38);
    for t in tensors {
        numbers(t, &["bytes", "bpw", "relative_error_percent", "correlation"]);
        assert!(t["name"].is_string() && t["codec"].is_string() && t["shape"].is_array());
        assert_eq!(t["exact"].as_bool().unwrap(), t["weight_snr_db"].is_null(), "{t}");
    }
    let weights: u64 = tensors.iter().map(|t| t["weights"].as_u64().unwrap()).sum();
    assert_eq!(report["bpw"], 8.0 * package_bytes as f64 / weights as f64);
    assert!(report["bpw"].as_f64().unwrap() < 1.5 && report["weight_snr_db"].as_f64().unwrap() > 5.0);
}

#[test]
fn the_same_command_again_finds_the_work_done_and_another_is_refused() {
    let place = Place::new();
    let out = place.name("out");
    place.compress("out", &["--codec", "ternary"]);
    let before = contents(&place.path("out"));
    assert_eq!(place.compress("out", &["--codec", "ternary"])["already_done"], true);
    let refused = run(&["compress", &place.model, "-o", &out, "--codec", "rtn:4"], 1);
    assert!(stderr(&refused).contains("--overwrite"), "{}", stderr(&refused));
    assert!(before == contents(&place.path("out")), "a refused run touched the output");
    let report = place.compress("out", &["--codec", "rtn:4", "--overwrite"]);
    assert_eq!((&report["codec"], &report["already_done"]), (&"rtn".into(), &false.into()));
    for verb in ["compress", "plan"] {
        let twice = run(&[verb, &out], 1);
        assert!(stderr(&twice).contains("lsb decompress"), "{}", stderr(&twice));
    }
    assert_eq!(std::fs::read_dir(place.temp.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn rules_and_recipes_decide_the_same_with_flags_and_from_a_file() {
    let place = Place::new();
    let recipe = place.name("lsb.toml");
    let flags = ["--codec", "rtn:4", "--rule", "embed=lossless", "--rule", "down_proj=residual-binary:2"];
    let plan = [&["plan", &place.model, "--json", "--emit-recipe", &recipe], &flags[..]].concat();
    let planned = json(&run(&plan, 0));
    assert_eq!(json(&run(&["plan", &place.model, "--json", "--config", &recipe], 0)), planned);

    let report = place.compress("flags", &flags);
    for t in report["tensors"].as_array().unwrap() {
        let name = t["name"].as_str().unwrap();
        let codec = match name {
            _ if name.contains("embed") => "lossless",
            _ if name.contains("down_proj") => "residual-binary",
            _ if name.contains("norm") => "raw",
            _ => "rtn",
        };
        assert_eq!(t["codec"], codec, "{name}");
    }
    place.compress("recipe", &["--recipe", &recipe]);
    assert_same(&place.path("flags"), &place.path("recipe"));
}

#[test]
fn plan_foretells_the_size_and_names_conflicts() {
    let place = Place::new();
    let plan = json(&run(
        &["plan", &place.model, "--json", "--calib", "none", "--ratio", "5.63", "--min-snr", "40"],
        0,
    ));
    numbers(
        &plan,
        &["predicted_bytes", "predicted_ram_bytes", "ram_limit_bytes", "source_bytes", "bpw", "ratio"],
    );
    let conflicts = plan["conflicts"].as_array().unwrap();
    let impossible = conflicts.iter().find(|c| c["kind"] == "impossible").unwrap();
    assert_eq!(impossible["targets"], serde_json::json!(["weight_snr_db >= 40", "ratio >= 5.63"]));
    let report = place.compress("out", &["--ratio", "5.63", "--calib", "none"]);
    let (made, foretold) =
        (report["package_bytes"].as_f64().unwrap(), plan["predicted_bytes"].as_f64().unwrap());
    assert!((made / foretold - 1.0).abs() < 0.03, "{made} bytes instead of {foretold}");
    let ratio = report["ratio"].as_f64().unwrap();
    assert!((5.6..5.9).contains(&ratio), "{ratio}");

    let dry = run(&["compress", &place.model, "-o", &place.name("dry"), "--dry-run", "--json"], 0);
    assert!(json(&dry)["predicted_bytes"].is_number());
    assert!(!place.path("dry").exists());
}

#[test]
fn inspect_shows_packages_and_models() {
    let place = Place::new();
    let report = place.compress("out", &["--codec", "rtn:3"]);
    let facts = json(&run(&["inspect", &place.name("out"), "--json"], 0));
    assert_eq!(facts["kind"], "package");
    for key in ["package_bytes", "bpw", "ratio", "weights", "source_bytes"] {
        assert_eq!(facts[key], report[key], "{key}");
    }
    let by_name = |all: &Value, name: &Value| {
        all["tensors"].as_array().unwrap().iter().find(|t| t["name"] == *name).unwrap().clone()
    };
    for t in report["tensors"].as_array().unwrap() {
        let other = by_name(&facts, &t["name"]);
        for key in ["codec", "parameters", "shape", "dtype", "bytes", "bpw"] {
            assert_eq!(other[key], t[key], "{key} of {}", t["name"]);
        }
    }

    let facts = json(&run(&["inspect", &place.model, "--json"], 0));
    assert_eq!((&facts["kind"], &facts["layers"]), (&"model".into(), &4.into()));
    assert_eq!(facts["architecture"], "llama");
    assert_eq!(facts["config"]["sizes"]["hidden"], 256);
    assert_eq!(facts["tensors"].as_array().unwrap().len(), 38);
    let shown = String::from_utf8(run(&["inspect", &place.model, "--full"], 0).stdout).unwrap();
    assert!(shown.contains("model.layers.3.mlp.down_proj.weight"), "{shown}");
}

#[test]
fn verify_finds_damage_and_says_where() {
    let place = Place::new();
    place.compress("out", &["--codec", "rtn:4"]);
    let out = place.name("out");
    for depth in [&[][..], &["--quick"], &["--weights"], &["--full"]] {
        let report = json(&run(&[&["verify", &out, "--json"], depth].concat(), 0));
        assert_eq!((&report["ok"], &report["tensors"]), (&true.into(), &38.into()));
        assert!(report["bytes"].is_number() && report["damaged"] == serde_json::json!([]));
    }

    let shard = place.path("out").join("weights-00001.lsb");
    let whole = std::fs::read(&shard).unwrap();
    let mut bent = whole.clone();
    let middle = bent.len() / 2;
    bent[middle] ^= 4;
    std::fs::write(&shard, bent).unwrap();
    let report = json(&run(&["verify", &out, "--json"], 3));
    assert_eq!(report["ok"], false);
    let damaged = &report["damaged"][0];
    assert_eq!(damaged["file"], "weights-00001.lsb");
    assert!(damaged["tensor"].is_string() && damaged["tile"].is_number() && damaged["message"].is_string());
    let shown = String::from_utf8(run(&["verify", &out], 3).stdout).unwrap();
    assert!(shown.contains("damaged: weights-00001.lsb, tensor \""), "{shown}");
    run(&["decompress", &out, "-o", &place.name("restored")], 1);
    assert!(!place.path("restored").exists(), "damaged weights were restored");

    std::fs::write(&shard, &whole[..whole.len() - 1]).unwrap();
    run(&["verify", &out, "--quick"], 3);
    let nothing = run(&["verify", &text(place.temp.path()), "--json"], 1);
    let error: Value = serde_json::from_slice(&nothing.stderr).unwrap();
    assert!(error["error"]["message"].is_string() && error["error"]["rule"].is_string());
}

#[test]
fn validate_judges_every_limit() {
    let place = Place::new();
    place.compress("out", &["--codec", "rtn:4"]);
    let out = place.name("out");
    let validate = |limits: &[&str], code: i32| {
        let args = ["validate", &out, "--against", &place.model, "--json"];
        json(&run(&[&args[..], limits].concat(), code))
    };
    let passed = validate(&["--min-snr", "15", "--min-correlation", "0.95", "--max-relative-error", "5"], 0);
    assert_eq!(passed["passed"], true);
    assert_eq!(passed["checks"].as_array().unwrap().len(), 4);
    assert_eq!(passed["tensors"].as_array().unwrap().len(), 38);
    for check in passed["checks"].as_array().unwrap() {
        numbers(check, &["value", "limit"]);
        assert!(check["name"].is_string() && check["passed"] == true);
    }
    let failed = validate(&["--min-ratio", "100", "--max-relative-error", "5"], 3);
    assert_eq!(failed["passed"], false);
    let missed = failed["checks"].as_array().unwrap().iter().find(|c| c["passed"] == false).unwrap();
    assert_eq!((&missed["name"], &missed["limit"]), (&"ratio".into(), &100.0.into()));

    let report = run(&["compress", &place.model, "-o", &place.name("low"), "--json", "--min-snr", "30"], 3);
    let report = json(&report);
    assert_eq!((&report["passed"], &report["checks"][0]["name"]), (&false.into(), &"weight_snr_db".into()));
    assert!(
        place.path("low").join("lsb.json").exists(),
        "a missed limit judges the package; it is still there"
    );
}

#[test]
fn unmeasured_quality_meets_no_limit() {
    let place = Place::new();
    let flags = ["--codec", "rtn:4", "--quality-monitoring=false"];
    let report = place.compress("out", &flags);
    assert!(report["weight_snr_db"].is_null() && report["exact"].is_null());
    let out = place.name("other");
    let args = [&["compress", &place.model, "-o", &out, "--json", "--min-snr", "1"], &flags[..]].concat();
    assert!(json(&run(&args, 3))["checks"][0]["value"].is_null());
}

#[test]
fn lossless_comes_back_byte_for_byte_and_diff_agrees() {
    let place = Place::new();
    let report = place.compress("out", &["--codec", "lossless"]);
    assert_eq!((&report["exact"], &report["weight_snr_db"]), (&true.into(), &Value::Null));
    assert_eq!(report["relative_error_percent"], 0.0);
    let (out, back) = (place.name("out"), place.name("new/back"));
    run(&["decompress", &out, "-o", &back], 0);
    let original = std::fs::read(reflm().join("model.safetensors")).unwrap();
    let restored = std::fs::read(place.path("new/back").join("model.safetensors")).unwrap();
    let original = safetensors::SafeTensors::deserialize(&original).unwrap();
    let restored = safetensors::SafeTensors::deserialize(&restored).unwrap();
    assert_eq!(original.len(), restored.len());
    for (name, view) in original.tensors() {
        let other = restored.tensor(&name).unwrap();
        assert!(view.dtype() == other.dtype() && view.shape() == other.shape(), "{name}");
        assert!(view.data() == other.data(), "{name} differs");
    }
    for pair in [[&place.model, &back], [&place.model, &out], [&out, &back]] {
        let difference = json(&run(&["diff", pair[0], pair[1], "--json"], 0));
        assert_eq!(difference["summary"]["identical"], 38, "{pair:?}: {difference}");
    }

    let wide = place.name("wide");
    run(&["decompress", &out, "-o", &wide, "--dtype", "f32"], 0);
    let wide = std::fs::read(place.path("wide").join("model.safetensors")).unwrap();
    let wide = safetensors::SafeTensors::deserialize(&wide).unwrap();
    assert!(wide.tensors().iter().all(|(_, t)| t.dtype() == safetensors::Dtype::F32));
    run(&["decompress", &out, "-o", &back], 1);
    run(&["decompress", &out, "-o", &back, "--overwrite"], 0);
}

#[test]
fn codecs_are_listed_and_explained() {
    let list = json(&run(&["codecs", "--json"], 0));
    let ids: Vec<&str> =
        list["codecs"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    for id in ["raw", "lossless", "outlier-binary", "residual-binary", "ternary", "rtn", "gptq", "trellis"] {
        assert!(ids.contains(&id), "{id}");
        let shown = String::from_utf8(run(&["codecs", id], 0).stdout).unwrap();
        assert!(shown.starts_with(&format!("{id}: ")), "{shown}");
    }
    run(&["codecs", "nonesuch"], 2);
}

#[test]
fn requests_that_make_no_sense_exit_with_2_and_write_nothing() {
    let place = Place::new();
    let out = place.name("missing/folders/out");
    let recipe = place.path("bad.toml");
    std::fs::write(&recipe, "outlier_ration = 0.1\n").unwrap();
    let recipe = text(&recipe);
    let bad: [&[&str]; 9] = [
        &["--nonesuch"],
        &["--codec", "nonesuch"],
        &["--codec", "rtn:bits=99"],
        &["--codec", "rtn:colour=3"],
        &["--rule", "nonesuch=raw"],
        &["--rule", "(=raw"],
        &["--ratio", "4", "--bpw", "3"],
        &["--config", &recipe],
        &["--outlier-ratio", "0.9"],
    ];
    for flags in bad {
        let plain = run(&[&["compress", &place.model, "-o", &out], flags].concat(), 2);
        assert!(stderr(&plain).starts_with("error: "), "{flags:?}: {}", stderr(&plain));
        let machine = run(&[&["compress", &place.model, "-o", &out, "--json"], flags].concat(), 2);
        assert!(machine.stdout.is_empty(), "{flags:?}");
        let error: Value =
            serde_json::from_slice(&machine.stderr).unwrap_or_else(|e| panic!("{flags:?}: {e}"));
        assert_eq!(error["error"]["exit_code"], 2, "{flags:?}");
        assert!(!place.path("missing").exists(), "{flags:?}");
    }
    run(&["compress"], 2);
    run(&["compress", &place.name("nowhere"), "-o", &out], 1);
}

#[test]
fn stderr_is_plain_lines_where_it_is_no_terminal() {
    let place = Place::new();
    let (a, b) = (place.name("a"), place.name("b"));
    let output = run(&["compress", &place.model, "-o", &a, "-v"], 0);
    let said = stderr(&output);
    for layer in ["before layers: ", "layer 0: ", "layer 3: ", "after layers: "] {
        assert_eq!(said.lines().filter(|l| l.starts_with(layer)).count(), 1, "{layer} in {said}");
    }
    assert!(!said.contains('\u{1b}') && !said.contains('\r'), "{said:?}");
    let summary = String::from_utf8(output.stdout).unwrap();
    for part in ["self_attn.q_proj.weight", "weight SNR dB", "bits per weight", "peak memory"] {
        assert!(summary.contains(part), "{part} in {summary}");
    }
    let lowered = summary.to_lowercase();
    assert!(!lowered.contains("% quality") && !lowered.contains("quality %"), "{summary}");
    let quiet = run(&["compress", &place.model, "-o", &b, "--quiet"], 0);
    assert_eq!(stderr(&quiet), "");
}

#[test]
fn a_reader_that_leaves_early_changes_no_outcome() {
    let place = Place::new();
    place.compress("out", &["--codec", "raw"]);
    for (args, code) in [
        (vec!["inspect", &place.name("out"), "--full"], 0),
        (vec!["validate", &place.name("out"), "--against", &place.model, "--min-ratio", "100"], 3),
        (vec!["--help"], 0),
    ] {
        let mut child = lsb().args(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{args:?}: {}", stderr(&output));
    }
}

/// The keys that `docs/command-line.md` promises for a document.
fn documented(document: &str) -> Vec<String> {
    let page = include_str!("../../../docs/command-line.md");
    let start = format!("| {document} | `");
    let row = page.lines().find(|l| l.starts_with(&start)).unwrap_or_else(|| panic!("{document}"));
    let keys = row[start.len()..].split('`').next().unwrap();
    let mut keys: Vec<String> = keys.split(' ').map(str::to_owned).collect();
    keys.sort();
    keys
}

#[test]
fn documents_have_the_keys_that_are_promised() {
    let place = Place::new();
    let made = place.compress("out", &["--codec", "rtn:4"]);
    let (out, model, back) = (place.name("out"), place.model.as_str(), place.name("back"));
    let ask = |args: &[&str]| json(&run(&[args, &["--json"]].concat(), 0));
    let documents = [
        ("`compress`, each of `tensors`", made["tensors"][0].clone()),
        ("`compress`", made),
        ("`plan`", ask(&["plan", model])),
        ("`inspect` of a package", ask(&["inspect", &out])),
        ("`inspect` of a model", ask(&["inspect", model])),
        ("`verify`", ask(&["verify", &out])),
        ("`validate`", ask(&["validate", &out, "--against", model])),
        ("`decompress`", ask(&["decompress", &out, "-o", &back])),
        ("`diff`", ask(&["diff", &out, &back])),
        ("`codecs`", ask(&["codecs"])),
    ];
    for (name, document) in documents {
        let keys: Vec<String> = document.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, documented(name), "{name}");
    }
}
