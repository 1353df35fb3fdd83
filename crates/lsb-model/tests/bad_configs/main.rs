//! Rows B75 to B83 of `docs/bad-inputs.md`: configurations that contradict themselves, JSON, or the tensors.

// A test that cannot set up its input has failed.
#![allow(clippy::unwrap_used)]

use lsb_format::Error;
use lsb_model::{Architecture, ModelConfig};
use lsb_stream::source::{Model, OpenOptions, Warning, find_duplicates};
use std::fmt::Write;
use tempfile::TempDir;

const GOOD: &str = r#"{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":8,
"intermediate_size":16,"num_attention_heads":4,"num_key_value_heads":2,"num_hidden_layers":2,"vocab_size":10,
"rms_norm_eps":1e-5,"rope_theta":10000.0,"head_dim":null,"tie_word_embeddings":false}"#;

/// The sound configuration with one text replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replace(from, to)
}

fn refusal(json: &str) -> Error {
    ModelConfig::parse(json.as_bytes()).unwrap_err()
}

fn accepted(json: &str) -> ModelConfig {
    ModelConfig::parse(json.as_bytes()).unwrap()
}

#[track_caller]
fn says(error: &Error, rule: &str, words: &[&str]) {
    assert_eq!((error.rule(), error.file()), (rule, Some("config.json")), "{error}");
    for word in words {
        assert!(error.message().contains(word), "{word:?} is not in: {error}");
    }
}

/// A model of bf16 matrices; each is filled with its own number, or with the one given after the shape.
struct Weights(Vec<(String, [u64; 2], u8)>);

impl Weights {
    fn llama(layers: u64) -> Self {
        let mut all = vec![("model.embed_tokens".to_owned(), [10, 8], 1), ("lm_head".to_owned(), [10, 8], 2)];
        for i in 0..layers {
            for (name, shape) in [
                ("self_attn.q_proj", [8, 8]),
                ("self_attn.k_proj", [4, 8]),
                ("self_attn.v_proj", [4, 8]),
                ("self_attn.o_proj", [8, 8]),
                ("mlp.gate_proj", [16, 8]),
                ("mlp.up_proj", [16, 8]),
                ("mlp.down_proj", [8, 16]),
            ] {
                all.push((format!("model.layers.{i}.{name}"), shape, 3));
            }
        }
        Weights(all)
    }

    /// Changes the tensors of that name, or removes them.
    fn edit(mut self, name: &str, change: Option<([u64; 2], u8)>) -> Self {
        match change {
            None => self.0.retain(|t| t.0 != name),
            Some((shape, fill)) => {
                let tensor = self.0.iter_mut().find(|t| t.0 == name).unwrap();
                (tensor.1, tensor.2) = (shape, fill);
            }
        }
        self
    }

    fn open(&self) -> (TempDir, Model) {
        let (mut json, mut data) = (String::from("{"), Vec::new());
        for (name, shape, fill) in &self.0 {
            let (comma, at) = (if data.is_empty() { "" } else { "," }, data.len());
            data.resize(at + 2 * (shape[0] * shape[1]) as usize, *fill);
            let end = data.len();
            write!(
                json,
                "{comma}\"{name}.weight\":{{\"dtype\":\"BF16\",\"shape\":{shape:?},\"data_offsets\":[{at},{end}]}}"
            )
            .unwrap();
        }
        json.push('}');
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json.as_bytes());
        file.extend_from_slice(&data);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
        let options = OpenOptions { hub_cache: None, ..OpenOptions::default() };
        let model = Model::open(dir.path(), &options).unwrap();
        (dir, model)
    }

    fn check(&self, json: &str) -> Result<Vec<Warning>, Error> {
        let (_dir, model) = self.open();
        accepted(json).check_against(&model, &find_duplicates(&model).unwrap())
    }
}

#[test]
fn the_sound_configuration_is_accepted() {
    assert_eq!(accepted(GOOD).sizes.unwrap().head_dim, 2);
    assert_eq!(Weights::llama(2).check(GOOD).unwrap(), []);
}

#[test]
fn b75_shapes_of_another_model() {
    let name = "model.layers.1.self_attn.k_proj";
    let e = Weights::llama(2).edit(name, Some(([8, 8], 0))).check(GOOD).unwrap_err();
    assert_eq!((e.rule(), e.file()), ("B75", Some("model.safetensors")));
    assert_eq!(e.tensor(), Some("model.layers.1.self_attn.k_proj.weight"));
    assert!(e.message().contains("[8, 8]") && e.message().contains("[4, 8]"), "{e}");
}

#[test]
fn b76_tied_and_untied_heads() {
    let tied = with("\"tie_word_embeddings\":false", "\"tie_word_embeddings\":true");
    let absent = || Weights::llama(2).edit("lm_head", None);
    assert_eq!(absent().check(&tied).unwrap(), []);
    assert_eq!(Weights::llama(2).edit("lm_head", Some(([10, 8], 1))).check(&tied).unwrap(), []);

    let warnings = Weights::llama(2).check(&tied).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!((warnings[0].rule, warnings[0].tensor.as_deref()), ("B76", Some("lm_head.weight")));
    assert!(warnings[0].message.contains("model.embed_tokens.weight"), "{}", warnings[0]);

    let e = absent().check(GOOD).unwrap_err();
    says(&e, "B76", &["tie_word_embeddings is false", "no head"]);
    // A model without a task, or with another one, needs none.
    assert_eq!(absent().check(&with("LlamaForCausalLM", "LlamaModel")).unwrap(), []);
}

#[test]
fn b77_sizes_that_cannot_be() {
    for (from, to, words) in [
        ("\"num_attention_heads\":4", "\"num_attention_heads\":0", &["num_attention_heads is 0"][..]),
        ("\"num_hidden_layers\":2", "\"num_hidden_layers\":0", &["num_hidden_layers is 0"]),
        ("\"vocab_size\":10", "\"vocab_size\":0", &["vocab_size is 0"]),
        ("\"hidden_size\":8", "\"hidden_size\":9", &["hidden_size 9", "num_attention_heads 4"]),
        (
            "\"num_key_value_heads\":2",
            "\"num_key_value_heads\":8",
            &["num_key_value_heads 8", "num_attention_heads 4"],
        ),
        (
            "\"num_key_value_heads\":2",
            "\"num_key_value_heads\":3",
            &["num_key_value_heads 3", "num_attention_heads 4"],
        ),
        ("\"num_key_value_heads\":2", "\"num_key_value_heads\":0", &["num_key_value_heads is 0"]),
    ] {
        says(&refusal(&with(from, to)), "B77", words);
    }
    accepted(&with("\"hidden_size\":8", "\"hidden_size\":9").replace("\"head_dim\":null", "\"head_dim\":2"));
    let moe = with("\"llama\"", "\"mixtral\"")
        .replace("\"vocab_size\"", "\"num_experts_per_tok\":5,\"vocab_size\"");
    let moe = moe.replace("\"vocab_size\"", "\"num_local_experts\":4,\"vocab_size\"");
    says(&refusal(&moe), "B77", &["num_experts_per_tok 5", "num_local_experts 4"]);
}

#[test]
fn b78_missing_fields_and_wrong_types() {
    for field in
        ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size"]
    {
        says(&refusal(&with(&format!("\"{field}\""), "\"x\"")), "B78", &[&format!("{field} is missing")]);
    }
    for (from, to, words) in [
        ("\"hidden_size\":8", "\"hidden_size\":\"8\"", &["hidden_size must be a whole number", "\"8\""][..]),
        ("\"hidden_size\":8", "\"hidden_size\":-8", &["hidden_size", "-8"]),
        ("\"hidden_size\":8", "\"hidden_size\":8.5", &["hidden_size", "8.5"]),
        ("\"head_dim\":null", "\"head_dim\":[2]", &["head_dim", "[2]"]),
        ("\"rope_theta\":10000.0", "\"rope_theta\":\"1e4\"", &["rope_theta must be a number"]),
        (
            "\"tie_word_embeddings\":false",
            "\"tie_word_embeddings\":0",
            &["tie_word_embeddings must be true or false"],
        ),
        ("[\"LlamaForCausalLM\"]", "[1]", &["architectures must be a list of texts"]),
        ("\"model_type\":\"llama\"", "\"model_type\":1", &["model_type must be a text"]),
        ("\"rope_theta\":10000.0", "\"rope_scaling\":[]", &["rope_scaling must be an object"]),
    ] {
        says(&refusal(&with(from, to)), "B78", words);
    }
    assert_eq!(accepted(&with("\"head_dim\":null,", "")).sizes.unwrap().head_dim, 2);
}

#[test]
fn b79_absurd_sizes() {
    let layers = with("\"num_hidden_layers\":2", "\"num_hidden_layers\":2147483648");
    let e = Weights::llama(2).check(&layers).unwrap_err();
    says(&e, "B79", &["num_hidden_layers is 2147483648", "no tensors of layer 2"]);
    let e = Weights::llama(1).check(GOOD).unwrap_err();
    says(&e, "B79", &["num_hidden_layers is 2", "no tensors of layer 1"]);
    let warnings = Weights::llama(3).check(GOOD).unwrap();
    assert_eq!(warnings[0].rule, "B79");
    assert!(warnings[0].message.contains("tensors of layer 2"), "{}", warnings[0]);

    let vocab = with("\"vocab_size\":10", "\"vocab_size\":1099511627776");
    assert_eq!(Weights::llama(2).check(&vocab).unwrap_err().rule(), "B82");
    let context = with("\"vocab_size\":10", "\"vocab_size\":10,\"max_position_embeddings\":1000000000000");
    assert_eq!(Weights::llama(2).check(&context).unwrap(), []);
    // The products of such sizes do not fit 64 bits, and nobody needs them to.
    let max = format!("\"head_dim\":{}", u64::MAX);
    assert_eq!(Weights::llama(2).check(&with("\"head_dim\":null", &max)).unwrap(), []);
    let max = format!("\"hidden_size\":{},\"head_dim\":2,", u64::MAX);
    let json = with("\"hidden_size\":8,", &max).replace(",\"head_dim\":null", "");
    assert_eq!(Weights::llama(2).check(&json).unwrap_err().rule(), "B75");
}

#[test]
fn b80_numbers_that_are_not_json() {
    for (value, shown) in
        [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "Infinity"), ("1e400", "1e400")]
    {
        let json = with("1e-5", value);
        let at = json.find(value).unwrap() as u64 + u64::from(value.starts_with('-'));
        let e = refusal(&json);
        says(&e, "B80", &[shown]);
        assert_eq!(e.offset(), Some(at), "{e}");
    }
    says(&refusal("[]"), "B80", &["an object"]);
    says(&refusal(&GOOD[..40]), "B80", &["expected"]);
    says(&refusal(&format!("{{\"x\":{}1{}}}", "[".repeat(9999), "]".repeat(9999))), "B80", &["16 deep"]);
}

#[test]
fn b81_impossible_numbers_and_duplicate_keys() {
    for (from, to, words) in [
        ("\"rope_theta\":10000.0", "\"rope_theta\":0", &["rope_theta is 0"][..]),
        ("\"rope_theta\":10000.0", "\"rope_theta\":-5.0", &["rope_theta is -5"]),
        ("\"rope_theta\":10000.0", "\"rope_parameters\":{\"rope_theta\":0.0}", &["rope_theta is 0"]),
        ("\"rope_theta\":10000.0", "\"partial_rotary_factor\":1.5", &["partial_rotary_factor is 1.5"]),
        ("\"rms_norm_eps\":1e-5", "\"rms_norm_eps\":0.0", &["rms_norm_eps is 0"]),
    ] {
        says(&refusal(&with(from, to)), "B81", words);
    }
    let json = with("\"head_dim\":null", "\"vocab_size\":11");
    let e = refusal(&json);
    says(
        &e,
        "B81",
        &["\"vocab_size\" is there twice", &format!("byte {}", json.find("\"vocab_size\"").unwrap())],
    );
    assert_eq!(e.offset(), Some(json.rfind("\"vocab_size\"").unwrap() as u64));
}

#[test]
fn b82_vocabulary_and_embedding_rows() {
    let e = Weights::llama(2).check(&with("\"vocab_size\":10", "\"vocab_size\":11")).unwrap_err();
    assert_eq!((e.rule(), e.tensor()), ("B82", Some("model.embed_tokens.weight")));
    assert!(e.message().contains("vocab_size is 11") && e.message().contains("10 rows"), "{e}");
    let warnings = Weights::llama(2).check(&with("\"vocab_size\":10", "\"vocab_size\":9")).unwrap();
    let tensors: Vec<_> = warnings.iter().map(|w| (w.rule, w.tensor.as_deref().unwrap())).collect();
    assert_eq!(tensors, [("B82", "model.embed_tokens.weight"), ("B82", "lm_head.weight")]);
}

#[test]
fn b83_unknown_architectures_and_code() {
    let config = accepted("{\"model_type\":\"mystery\\u001b\"}");
    assert_eq!(config.architecture, Architecture::Unknown("mystery\u{1b}".to_owned()));
    assert_eq!((config.sizes, config.warnings()[0].rule), (None, "B83"));
    assert!(config.warnings()[0].message.contains("mystery\\u{1b}"), "{}", config.warnings()[0]);
    assert_eq!(accepted(&with("\"llama\"", "\"mystery\"")).sizes.unwrap().layers, 2);

    let code = with("\"head_dim\":null", "\"auto_map\":{\"AutoModel\":\"modeling.X\"}");
    let warnings = accepted(&code).warnings().to_vec();
    assert_eq!((warnings.len(), warnings[0].rule), (1, "B83"));
    assert!(warnings[0].message.contains("never executed"), "{}", warnings[0]);
}
