//! Rows T1 to T11 of `docs/bad-inputs.md`: tokenizers and the files beside them that are missing, damaged or mean
//! harm. Each ends in an error that names the rule and the file, in bounded time and memory.

// A test that cannot set up its input has failed.
#![allow(clippy::unwrap_used)]

use lsb_model::tokenizer::Tokenizer;
use lsb_model::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const GOOD: &str = r#"{"version":"1.0","added_tokens":[{"id":3,"content":"<s>","single_word":false,"lstrip":false,
"rstrip":false,"normalized":false,"special":true}],"normalizer":null,"pre_tokenizer":null,"post_processor":null,
"decoder":null,"model":{"type":"BPE","unk_token":null,"fuse_unk":false,"vocab":{"a":0,"b":1,"ab":2},
"merges":["a b"]}}"#;

/// The sound tokenizer with one text replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replace(from, to)
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn open(json: &[u8]) -> Result<Tokenizer> {
    Tokenizer::open(folder(&[("tokenizer.json", json)]).path())
}

fn beside(name: &str, text: &str) -> Result<Tokenizer> {
    Tokenizer::open(folder(&[("tokenizer.json", GOOD.as_bytes()), (name, text.as_bytes())]).path())
}

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T>, rule: &str, file: &str, words: &[&str]) {
    let error = result.unwrap_err();
    let shown = error.to_string();
    let Error::Input(input) = &error else { panic!("not about a file: {shown}") };
    assert_eq!(input.rule(), rule, "{shown}");
    assert!(input.file().unwrap().ends_with(file), "{shown}");
    assert!(shown.len() < 900, "{shown}");
    for word in words {
        assert!(shown.contains(word), "{word:?} is not in: {shown}");
    }
}

/// Replaces parts of the sound tokenizer by what the crate would choke on; each must be refused under a rule.
#[track_caller]
fn refused(rule: &str, cases: &[(&str, &str, &[&str])]) {
    for (from, to, words) in cases {
        says(open(with(from, to).as_bytes()), rule, "tokenizer.json", words);
    }
}

#[test]
fn every_row_has_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let catalogue = std::fs::read_to_string(root.join("../../docs/bad-inputs.md")).unwrap();
    let source = std::fs::read_to_string(root.join("tests/bad_text/main.rs")).unwrap();
    let rows: Vec<String> = catalogue
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 6 && cells[4] == "text")
        .map(|cells| cells[1].to_lowercase())
        .collect();
    assert_eq!(rows.len(), 11);
    for row in rows {
        assert!(source.contains(&format!("fn {row}_")), "row {row} has no test");
    }
}

#[test]
fn t1_missing_says_what_to_do() {
    says(Tokenizer::open(folder(&[]).path()), "T1", "", &["no tokenizer.json", "copy tokenizer.json"]);
    let sentencepiece = folder(&[("tokenizer.model", b"")]);
    says(Tokenizer::open(sentencepiece.path()), "T1", "", &["sentencepiece", "save_pretrained"]);
    says(Tokenizer::open(folder(&[("vocab.txt", b"")]).path()), "T1", "", &["older form", "save_pretrained"]);
    let dir = folder(&[]);
    std::fs::create_dir(dir.path().join("tokenizer.json")).unwrap();
    says(Tokenizer::open(dir.path()), "T1", "tokenizer.json", &["not a regular file"]);
}

#[test]
fn t2_too_long() {
    let dir = folder(&[("tokenizer.json", GOOD.as_bytes())]);
    let length = GOOD.len().to_string();
    says(Tokenizer::open_limited(dir.path(), 99), "T2", "tokenizer.json", &[&length, "99"]);
    assert!(Tokenizer::open_limited(dir.path(), GOOD.len() as u64).is_ok());
    let sparse = std::fs::File::create(dir.path().join("tokenizer.json")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    says(Tokenizer::open(dir.path()), "T2", "tokenizer.json", &["1099511627776"]);
}

#[test]
fn t3_json() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    refused(
        "T3",
        &[
            ("\"a b\"", &deep, &["16 deep"]),
            ("\"b\":1", "\"a\":1", &["twice"]),
            ("\"b\":1", "\"b\":1e999", &["out of range"]),
            ("\"b\":1", "\"b\":NaN", &["NaN"]),
            ("\"b\":1", "\"\\ud800\":1", &["surrogate"]),
            ("]}}", "]}", &["expected"]),
        ],
    );
    says(open(b"\xff\xfe{}"), "T3", "tokenizer.json", &["UTF-8"]);
    says(open(b""), "T3", "tokenizer.json", &["an object"]);
    says(open(&[&GOOD.as_bytes()[..40], b"\xc3"].concat()), "T3", "tokenizer.json", &["UTF-8"]);
    for name in ["tokenizer_config.json", "generation_config.json", "config.json"] {
        says(beside(name, "{"), "T3", name, &["expected"]);
    }
}

#[test]
fn t4_parts_that_are_missing_unknown_or_of_another_type() {
    says(open(b"{}"), "T4", "tokenizer.json", &["model"]);
    refused(
        "T4",
        &[
            ("\"1.0\"", "\"2.0\"", &["version \"2.0\""]),
            ("\"1.0\"", "1", &["string"]),
            ("\"id\":3", "\"id\":-3", &["u32"]),
            ("\"id\":3", "\"id\":4294967296", &["u32"]),
            ("\"single_word\":false,", "", &["single_word"]),
            ("\"normalizer\":null", "\"normalizer\":{\"type\":\"Magic\"}", &["normalizer"]),
            (
                "\"normalizer\":null",
                "\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////w==\"}",
                &["normalizer"],
            ),
            ("\"decoder\":null", "\"decoder\":[]", &["decoder"]),
            (
                "\"pre_tokenizer\":null",
                "\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}",
                &["length 0"],
            ),
            // The text in the frame twice, never, or with a token that the frame does not define.
            (
                "\"post_processor\":null",
                r#""post_processor":{"type":"TemplateProcessing","single":[{"Sequence":
                {"id":"A","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{}}"#,
                &["exactly once"],
            ),
            (
                "\"post_processor\":null",
                r#""post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":
                {"id":"X","type_id":0}}],"pair":[],"special_tokens":{}}"#,
                &["post_processor"],
            ),
        ],
    );
    let config = "tokenizer_config.json";
    says(beside(config, r#"{"bos_token":7}"#), "T4", config, &["bos_token", "7"]);
    says(beside(config, r#"{"eos_token":{"content":[]}}"#), "T4", config, &["eos_token"]);
    let generation = "generation_config.json";
    says(beside(generation, r#"{"eos_token_id":"x"}"#), "T4", generation, &["eos_token_id"]);
    says(beside(generation, r#"{"eos_token_id":[1,4294967296]}"#), "T4", generation, &["eos_token_id"]);
    // Some published files write -1 for none.
    assert!(beside(generation, r#"{"eos_token_id":-1}"#).unwrap().stop_ids().is_empty());
}

#[test]
fn t5_models_that_contradict_themselves() {
    refused(
        "T5",
        &[
            ("\"BPE\"", "\"Oracle\"", &["model"]),
            ("\"a b\"", "\"a c\"", &["`c` out of vocabulary"]),
            ("\"a b\"", "\"b a\"", &["`ba` out of vocabulary"]),
            ("\"a b\"", "\"a b c\"", &["a merge"]),
            ("\"a b\"", "[\"a\",\"b\",\"c\"]", &["a merge"]),
            ("\"a b\"", "[\"a\"]", &["a merge"]),
            ("\"a b\"", "7", &["a merge"]),
            ("\"b\":1", "\"b\":-1", &["u32"]),
            ("\"b\":1", "\"b\":1.5", &["u32"]),
            ("\"merges\":[\"a b\"]", "\"no\":[]", &["merges"]),
            // The crate cuts two bytes into the token and panics.
            ("\"fuse_unk\":false", "\"continuing_subword_prefix\":\"###\"", &["broke down"]),
        ],
    );
    let unigram = r#"{"version":"1.0","model":{"type":"Unigram","unk_id":9,"vocab":[["a",-1.0]]}}"#;
    says(open(unigram.as_bytes()), "T5", "tokenizer.json", &["model"]);
}

#[test]
fn t6_empty_vocabulary() {
    let empty = with(r#"{"a":0,"b":1,"ab":2}"#, "{}").replace("\"a b\"", "");
    says(open(empty.as_bytes()), "T6", "tokenizer.json", &["empty"]);
}

#[test]
fn t7_ids_of_two_tokens_or_of_none() {
    refused(
        "T7",
        &[
            ("\"b\":1", "\"b\":0", &["\"a\" and \"b\" both have id 0"]),
            ("\"id\":3", "\"id\":7", &["\"<s>\" says id 7 and gets 3"]),
            ("\"content\":\"<s>\"", "\"content\":\"b\"", &["\"b\" says id 3 and gets 1"]),
        ],
    );
    let tokenizer = open(GOOD.as_bytes()).unwrap();
    tokenizer.check_ids(4).unwrap();
    says(
        tokenizer.check_ids(3),
        "T7",
        "tokenizer.json",
        &["largest token id is 3", "3 rows", "another model"],
    );
    let huge = open(with("\"ab\":2", "\"ab\":4294967295").as_bytes());
    // The largest id there is leaves no id for added tokens.
    match huge {
        Ok(tokenizer) => says(tokenizer.check_ids(1 << 20), "T7", "tokenizer.json", &["4294967295"]),
        Err(e) => assert!(e.to_string().contains("tokenizer.json"), "{e}"),
    }
}

#[test]
fn t8_patterns_that_cannot_be_used() {
    let split = |pattern: &str| {
        let part = serde_json::json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false});
        open(with("\"pre_tokenizer\":null", &format!("\"pre_tokenizer\":{part}")).as_bytes())
    };
    let nested = format!("{}a{}", "(?=".repeat(5000), ")".repeat(5000));
    for pattern in ["(", "[z-a]", "(?!(a{500}){500}){500}", "\\k<no>", nested.as_str()] {
        says(split(pattern), "T8", "tokenizer.json", &["malformed or too large"]);
    }
    assert!(split(r"\s+(?!\S)|\S+").is_ok());
    for name in ["normalizer", "decoder"] {
        let part = serde_json::json!({"type": "Replace", "pattern": {"Regex": "(?=a)"}, "content": "b"});
        let json = with(&format!("\"{name}\":null"), &format!("\"{name}\":{part}"));
        says(open(json.as_bytes()), "T8", "tokenizer.json", &[name, "looks around"]);
    }
}

#[test]
fn t9_patterns_that_never_end() {
    let start = Instant::now();
    let split = serde_json::json!({"type": "Split", "pattern": {"Regex": "(?:a|a?)+(?!a)$(?<=b)"},
        "behavior": "Isolated", "invert": false});
    let tokenizer =
        open(with("\"pre_tokenizer\":null", &format!("\"pre_tokenizer\":{split}")).as_bytes()).unwrap();
    let error = tokenizer.encode(&"a".repeat(5000), false).unwrap_err().to_string();
    assert!(error.contains("was given up on this text"), "{error}");
    assert!(tokenizer.encode("ab", false).is_ok());
    // What the usual patterns cannot match is said too, where the crate would silently stop.
    let level = r#""pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true}"#;
    let tokenizer = open(with("\"pre_tokenizer\":null", level).as_bytes()).unwrap();
    let error = tokenizer.encode(&" ".repeat(1_100_000), false).unwrap_err().to_string();
    assert!(error.contains("in a row"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn t10_templates_are_tested_beside_them() {
    let dir = folder(&[("chat_template.jinja", b"{% if %}")]);
    says(lsb_model::chat::ChatTemplate::open(dir.path()), "T10", "chat_template.jinja", &["line 1"]);
}

#[test]
fn t11_texts_that_explode() {
    let twice = r#"{"type":"Replace","pattern":{"String":"a"},"content":"aa"}"#;
    let chain = |n: usize| vec![twice; n].join(",");
    let normalizer = format!(r#""normalizer":{{"type":"Sequence","normalizers":[{}]}}"#, chain(100));
    let tokenizer = open(with("\"normalizer\":null", &normalizer).as_bytes()).unwrap();
    let error = tokenizer.encode("a", false).unwrap_err().to_string();
    assert!(error.contains("times longer"), "{error}");
    let decoder = format!(r#""decoder":{{"type":"Sequence","decoders":[{}]}}"#, chain(100));
    says(open(with("\"decoder\":null", &decoder).as_bytes()), "T11", "tokenizer.json", &["times longer"]);
    let few = format!(r#""normalizer":{{"type":"Sequence","normalizers":[{}]}}"#, chain(3));
    let tokenizer = open(with("\"normalizer\":null", &few).as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("a", false).unwrap(), [0; 8]);
}

#[test]
fn panics_of_the_crate_become_errors() {
    let strip = r#""decoder":{"type":"Strip","content":" ","start":0,"stop":5}"#;
    let tokenizer = open(with("\"decoder\":null", strip).as_bytes()).unwrap();
    let error = tokenizer.decode(&[0, 1], false);
    assert!(error.is_ok() || error.unwrap_err().to_string().contains("tokenizer.json"));
    let spaces = r#""decoder":{"type":"Strip","content":"a","start":0,"stop":5}"#;
    let tokenizer = open(with("\"decoder\":null", spaces).as_bytes()).unwrap();
    let error = tokenizer.decode(&[0], false).unwrap_err().to_string();
    assert!(error.contains("broke down"), "{error}");
}

#[test]
fn dropout_is_left_out() {
    let json = with("\"fuse_unk\":false", "\"dropout\":1.0");
    let tokenizer = open(json.as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("ab", false).unwrap(), [2]);
}
