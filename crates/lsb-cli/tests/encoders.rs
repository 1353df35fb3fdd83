//! Sentence encoders are judged by their vectors, beside their originals.
#![allow(clippy::unwrap_used, reason = "a test that cannot make its input has failed")]

mod support;

use serde_json::{Value, json as object};
use std::path::Path;
use support::{complaint, json, reflm, run, text};

/// The tiny encoder with a tokenizer of three hundred words, `w0` to `w299`, beside a text of four sentences.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        let model = place.0.path().join("model");
        std::fs::create_dir(&model).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/bert");
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(golden.join(file), model.join(file)).unwrap();
        }
        let vocabulary: serde_json::Map<String, Value> =
            (0..300).map(|n| (format!("w{n}"), n.into())).collect();
        let tokenizer = object!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
        });
        std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let long = (0..200).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
        let lines = format!("w1 w2 w3\n\n  w4 w5\nw6 w7 w8 w9 w10\n{long}\n");
        std::fs::write(place.0.path().join("lines.txt"), lines).unwrap();
        run(&["compress", &place.text("model"), "-o", &place.text("coarse"), "--codec", "rtn:2"], 0);
        place
    }

    fn text(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn vectors_are_compared_with_those_of_the_original() {
    let place = Place::new();
    let (model, coarse, lines) = (place.text("model"), place.text("coarse"), place.text("lines.txt"));
    let same = json(&["eval", &model, "--against", &model, "--text", &lines], 0);
    assert_eq!((&same["cosine_mean"], &same["cosine_min"]), (&object!(1.0), &object!(1.0)));
    // The last sentence is cut off at the 128 positions of the model.
    assert_eq!((&same["sentences"], &same["tokens"]), (&object!(4), &object!(3 + 2 + 5 + 128)));
    assert_eq!(same["pooling"], object!({"kind": "mean", "normalize": true}));
    assert!(same["maps"]["mean_snr_db"].is_null());

    let args = ["eval", &coarse, "--against", &model, "--text", &lines];
    let found = json(&args, 0);
    let (mean, lowest) = (found["cosine_mean"].as_f64().unwrap(), found["cosine_min"].as_f64().unwrap());
    assert!(lowest < mean && mean < 0.999, "{mean} {lowest}");
    let said = text(&[&args[..], &["--full"]].concat(), 0);
    for part in
        [&format!("mean {mean:.5} +-"), "mean SNR ", " dB (pooled ", "4 sentences of 138 tokens", "layer 2 "]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let short = json(&[&args[..], &["--max-tokens", "9"]].concat(), 0);
    assert_eq!((&short["sentences"], &short["tokens"]), (&object!(2), &object!(5)));
}

#[test]
fn options_of_running_text_are_refused() {
    let place = Place::new();
    let (model, lines) = (place.text("model"), place.text("lines.txt"));
    let alone = complaint(&["eval", &model, "--text", &lines], 2);
    assert!(alone.contains("judged beside its original") && alone.contains("--against"), "{alone}");
    let beside = ["eval", &model, "--against", &model, "--text", &lines];
    let refused: [&[&str]; 4] =
        [&["--window", "16"], &["--stride", "4"], &["--bos"], &["--protocol", "llama.cpp"]];
    for flags in refused {
        let said = complaint(&[&beside[..], flags].concat(), 2);
        assert!(said.contains("encoder") && said.contains(flags[0]), "{said}");
    }
    for flag in ["--reference", "--save-reference"] {
        let said = complaint(&["eval", &model, "--text", &lines, flag, &place.text("file")], 2);
        assert!(said.contains(flag) && said.contains("--against"), "{said}");
    }
    let few = complaint(&[&beside[..], &["--max-tokens", "2"]].concat(), 2);
    assert!(few.contains("no sentence of 2 tokens or less"), "{few}");
    let other = complaint(&["eval", &model, "--against", reflm().to_str().unwrap(), "--text", &lines], 1);
    assert!(other.contains("cannot be compared"), "{other}");
}

#[test]
fn validate_judges_the_mean_cosine() {
    let place = Place::new();
    let (model, coarse, lines) = (place.text("model"), place.text("coarse"), place.text("lines.txt"));
    run(&["compress", &model, "-o", &place.text("exact"), "--codec", "lossless"], 0);
    let passed = json(&["validate", &place.text("exact"), "--against", &model, "--text", &lines], 0);
    let check = |report: &Value| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|c| c["name"] == "embedding_cosine_mean").cloned().unwrap()
    };
    assert_eq!((&check(&passed)["limit"], &check(&passed)["passed"]), (&object!(0.99), &object!(true)));
    assert_eq!(passed["evaluation"]["sentences"], 4);
    let failed = json(&["validate", &coarse, "--against", &model, "--text", &lines], 3);
    assert_eq!(check(&failed)["passed"], false);
    let said = text(&["validate", &coarse, "--against", &model, "--text", &lines], 3);
    assert!(said.contains("cosine with the original mean"), "{said}");
}
