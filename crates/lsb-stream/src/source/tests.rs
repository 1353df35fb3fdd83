//! Opening sound models: what counts as part of them and what they are called.

use super::*;
use std::os::unix::fs::symlink;

fn header_only(name: &str) -> Vec<u8> {
    let json = format!("{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[0,0]}}}}");
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    file
}

fn options() -> OpenOptions {
    OpenOptions { hub_cache: None, ..OpenOptions::default() }
}

#[test]
fn files_beside_the_weights_are_listed_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    put("model.safetensors", &header_only("a"));
    put("tokenizer.json", b"{}");
    put("config.json", b"{ }");
    put("LICENSE", b"");
    put(".gitattributes", b"x");
    put("pytorch_model.bin", b"x");
    put("model.gguf", b"x");
    std::fs::create_dir(dir.path().join("onnx")).unwrap();
    let model = Model::open(dir.path(), &options()).unwrap();
    let others: Vec<_> = model.other_files().iter().map(|f| (f.name.as_str(), f.bytes)).collect();
    assert_eq!(others, [("LICENSE", 0), ("config.json", 3), ("tokenizer.json", 2)]);
    assert_eq!(model.config_json(), Some(&b"{ }"[..]));
    assert_eq!(model.warnings(), []);
    assert_eq!(model.name(), dir.path().file_name().unwrap().to_str().unwrap());
    assert_eq!(model.weight_bytes(), header_only("a").len() as u64);
    let hash = blake3::hash(&header_only("a"));
    assert_eq!(model.files()[0].header_blake3, *hash.as_bytes());
}

#[test]
fn odd_files_beside_the_weights_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), header_only("a")).unwrap();
    symlink("nowhere", dir.path().join("tokenizer.json")).unwrap();
    let big = std::fs::File::create(dir.path().join("extra.dat")).unwrap();
    big.set_len(100_000_001).unwrap();
    let model = Model::open(dir.path(), &options()).unwrap();
    let rules: Vec<_> = model.warnings().iter().map(|w| (w.rule, w.file.as_deref().unwrap())).collect();
    assert_eq!(rules, [("S2", "extra.dat"), ("B12", "tokenizer.json")]);
    assert_eq!(model.other_files().len(), 1);
}

#[test]
fn a_lone_file_is_a_model_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.safetensors");
    std::fs::write(&path, header_only("a")).unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    let model = Model::open(&path, &options()).unwrap();
    assert_eq!((model.name(), model.other_files().len(), model.config_json()), ("tiny", 0, None));
    assert_eq!(model.files()[0].name, "tiny.safetensors");
    assert_eq!(Model::open(dir.path(), &options()).unwrap().tensors(), model.tensors());
}

#[test]
fn a_folder_without_weights_says_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let text = || Model::open(dir.path(), &options()).unwrap_err().to_string();
    assert!(text().contains("no .safetensors file"), "{}", text());
    std::fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(text().contains("pytorch_model.bin; convert"), "{}", text());
    let missing = Model::open(&dir.path().join("nothing"), &options());
    assert!(matches!(missing, Err(Error::Io { action: "open", .. })), "{missing:?}");
}

#[test]
fn warnings_of_one_kind_are_counted_after_the_first_few() {
    let mut warnings = Warnings::new(false);
    for i in 0..100 {
        warnings.add(Warning::new("B70", "left out").in_tensor(format!("t{i}"))).unwrap();
    }
    let list = warnings.finish();
    assert_eq!(list.len(), 9);
    assert_eq!(list[0].to_string(), "[B70] tensor \"t0\": left out");
    assert_eq!(list[8].to_string(), "[B70] and 92 more like these");
    assert_eq!(Warnings::new(true).add(Warning::new("B70", "left out")).unwrap_err().rule(), "B70");
}
