//! Rows B65 to B74 and F21: models of several files, and files that change.

use crate::support::*;
use lsb_stream::source::{Model, OpenOptions, find_duplicates};
use std::fmt::Write;

const INDEX: &str = "model.safetensors.index.json";
const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";

/// An index that maps tensors to shards.
fn index(map: &[(&str, &str)], total: u64) -> String {
    let mut text = format!("{{\"metadata\":{{\"total_size\":{total}}},\"weight_map\":{{");
    for (i, (tensor, shard)) in map.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(text, "{comma}\"{tensor}\":\"{shard}\"").unwrap();
    }
    text + "}}"
}

/// A folder of two shards, with `a` and `b` in the first and `c` in the second.
fn two() -> Folder {
    Folder::new().with(ONE, bytes_of(&[("a", 3), ("b", 4)])).with(TWO, bytes_of(&[("c", 5)]))
}

fn indexed(map: &[(&str, &str)], total: u64) -> Folder {
    two().with(INDEX, index(map, total))
}

const GOOD: &[(&str, &str)] = &[("a", ONE), ("b", ONE), ("c", TWO)];

#[test]
fn sound_shards_are_read_with_and_without_an_index() {
    for folder in [two(), indexed(GOOD, 12)] {
        let model = folder.open().unwrap();
        assert_eq!(model.warnings(), []);
        let names: Vec<_> = model.tensors().iter().map(|t| (t.name.as_str(), t.file, t.bytes)).collect();
        assert_eq!(names, [("a", 0, 3), ("b", 0, 4), ("c", 1, 5)]);
        assert_eq!(data(&model, 1), [1; 4]);
        assert_eq!(data(&model, 2), [0; 5]);
        let size = |n: &str| std::fs::metadata(folder.at(n)).unwrap().len();
        assert_eq!(model.weight_bytes(), size(ONE) + size(TWO));
        model.ensure_unchanged().unwrap();
    }
}

#[test]
fn b65_shard_names_that_leave_the_folder() {
    for (name, shown) in [
        ("../x.safetensors", "../x"),
        ("a/../../x", "a/../../x"),
        ("/etc/x", "/etc/x"),
        ("C:\\\\x", "C:\\x"),
        ("\\\\\\\\srv\\\\x", "srv"),
        (".", "\".\""),
        ("", "\"\""),
        ("a\\u0000", "\\u{0}"),
        ("%2e%2e", "%2e"),
    ] {
        let folder = indexed(&[("a", ONE), ("b", name)], 7);
        let text = index(&[("a", ONE), ("b", name)], 7);
        let at = text.find("\"b\":").unwrap() as u64 + 4;
        says_in(&folder.refusal(), INDEX, "B65", Some("b"), Some(at), &[shown, "do not trust"]);
        let lenient = OpenOptions { allow_subfolders: true, ..options() };
        assert_eq!(input(Model::open(folder.path(), &lenient)).rule(), "B65");
    }
}

#[test]
fn b66_shard_in_a_subfolder() {
    let folder = Folder::new()
        .with("sub/x.safetensors", bytes_of(&[("a", 3)]))
        .with(INDEX, index(&[("a", "sub/x.safetensors")], 3));
    says_in(&folder.refusal(), INDEX, "B66", Some("a"), Some(47), &["sub/x", "subfolder"]);
    let lenient = OpenOptions { allow_subfolders: true, ..options() };
    let model = Model::open(folder.path(), &lenient).unwrap();
    assert_eq!((model.files()[0].name.as_str(), data(&model, 0)), ("sub/x.safetensors", vec![0; 3]));
}

#[test]
fn b67_missing_shards() {
    let folder = indexed(&[("a", ONE), ("c", "x.safetensors"), ("d", "y.safetensors")], 8);
    let e = folder.refusal();
    says_in(&e, INDEX, "B67", None, None, &["2 of the 3 shards", "x.safetensors, y.safetensors", "finish"]);
}

#[test]
fn b68_tensor_missing_from_its_shard() {
    let e = indexed(&[("a", ONE), ("b", ONE), ("c", TWO), ("d", TWO)], 12).refusal();
    says_in(&e, INDEX, "B68", Some("d"), None, &[TWO, "no shard has it"]);
    let e = indexed(&[("a", TWO), ("b", ONE), ("c", TWO)], 12).refusal();
    says_in(&e, INDEX, "B68", Some("a"), None, &[&format!("it is in {ONE}")]);
}

#[test]
fn b69_tensor_in_two_shards() {
    let folder = indexed(GOOD, 12);
    folder.put(TWO, bytes_of(&[("c", 5), ("a", 9)]));
    let w = folder.warning();
    assert_eq!((w.rule, w.file.as_deref(), w.tensor.as_deref()), ("B69", Some(TWO), Some("a")));
    assert!(w.message.contains(ONE), "{w}");
    assert_eq!(folder.open().unwrap().tensors()[0].bytes, 3);

    let folder = two();
    folder.put(TWO, bytes_of(&[("c", 5), ("a", 9)]));
    let e = folder.refusal();
    let at = e.offset().unwrap();
    says_in(&e, TWO, "B69", Some("a"), Some(at), &["also in", ONE]);
    let header = std::fs::read(folder.at(TWO)).unwrap();
    assert!(header[at as usize..].starts_with(b"\"a\""));
}

#[test]
fn b70_tensor_that_the_index_does_not_name() {
    let folder = indexed(&[("a", ONE), ("c", TWO)], 8);
    let w = folder.warning();
    assert_eq!((w.rule, w.file.as_deref(), w.tensor.as_deref()), ("B70", Some(ONE), Some("b")));
    let names: Vec<_> = folder.open().unwrap().tensors().iter().map(|t| t.name.clone()).collect();
    assert_eq!(names, ["a", "c"]);
    says_in(&folder.strict_refusal(), ONE, "B70", Some("b"), None, &["left out", "strict"]);
}

#[test]
fn b71_stray_weight_files() {
    let folder = indexed(GOOD, 12).with(FILE, bytes_of(&[("a", 9)]));
    let w = folder.warning();
    assert_eq!((w.rule, w.file.as_deref()), ("B71", Some(FILE)));
    assert_eq!(folder.open().unwrap().tensors()[0].bytes, 3);

    let folder = Folder::new().with(FILE, bytes_of(&[("a", 9)])).with("adapter.safetensors", "x");
    assert_eq!(folder.warning().file.as_deref(), Some("adapter.safetensors"));

    let ambiguous = |folder: Folder, words: &[&str]| {
        says_in(&folder.refusal(), &folder.path().to_string_lossy(), "B71", None, None, words);
    };
    ambiguous(two().with(FILE, bytes_of(&[("a", 9)])), &["several models", FILE, ONE]);
    ambiguous(
        Folder::new().with("x.safetensors", "").with("y.safetensors", ""),
        &["x.safetensors, y.safetensors"],
    );
    ambiguous(
        two().with("x.safetensors.index.json", "").with("y.safetensors.index.json", ""),
        &["several indices"],
    );
}

#[test]
fn b72_total_size_that_is_not_the_total() {
    let text = index(GOOD, 12);
    for (value, word) in
        [("13", "13 and the tensors take 12"), ("-1", "not a number"), ("12.0", "not a number")]
    {
        let folder = two().with(INDEX, text.replace(":12}", &format!(":{value}}}")));
        let w = folder.warning();
        assert_eq!((w.rule, w.file.as_deref()), ("B72", Some(INDEX)));
        assert!(w.message.contains(word), "{w}");
    }
    let folder = two().with(INDEX, text.replace("\"total_size\":12", ""));
    assert!(folder.warning().message.contains("missing"));
}

#[test]
fn b73_malformed_index() {
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    for (text, offset, word) in [
        ("[]", Some(0), "an object"),
        ("null", Some(0), "an object"),
        ("{\"weight_map\":[]}", Some(14), "an object"),
        ("{\"weight_map\":{\"a\":1}}", Some(19), "a string"),
        ("{\"weight_map\":{\"a\":null}}", Some(19), "a string"),
        ("{\"weight_map\":{},\"weight_map\":{}}", Some(17), "twice"),
        ("{\"weight_map\":{\"a\":\"x\",\"\\u0061\":\"y\"}}", Some(23), "twice"),
        ("{}", None, "no \"weight_map\""),
        ("", Some(0), "an object"),
        ("{\"weight_map\":{}", Some(16), "expected"),
        ("{\"x\":NaN}", Some(5), "NaN"),
        (&deep, Some(20), "16 deep"),
    ] {
        let e = two().with(INDEX, text).refusal();
        assert_eq!((e.rule(), e.file(), e.offset()), ("B73", Some(INDEX), offset), "{text:.60}: {e}");
        assert!(e.message().contains(word), "{e}");
    }
    let folder = two().with(INDEX, "{}");
    let file = std::fs::OpenOptions::new().write(true).open(folder.at(INDEX)).unwrap();
    file.set_len(1 << 30).unwrap();
    says_in(&folder.refusal(), INDEX, "B73", None, None, &["1073741824 bytes", "limit"]);
}

#[test]
fn b74_shards_missing_without_an_index() {
    let name = |i: u32| format!("model-{i:05}-of-00003.safetensors");
    let folder = Folder::new().with(&name(1), bytes_of(&[("a", 1)])).with(&name(3), bytes_of(&[("c", 1)]));
    says_in(&folder.refusal(), &name(1), "B74", None, None, &["of 3 shards number 2 is missing"]);
    folder.put(&name(2), bytes_of(&[("b", 1)]));
    assert_eq!(folder.open().unwrap().tensors().len(), 3);
    folder.put(&name(4), "");
    says_in(&folder.refusal(), &name(1), "B74", None, None, &["4 is not a number from 1 to 3"]);

    let alone = Model::open(&folder.at(&name(1)), &options()).unwrap();
    assert_eq!(alone.warnings()[0].rule, "B74");
    assert!(alone.warnings()[0].message.contains("one of 3 shards"));
}

#[test]
fn f21_files_that_change_while_in_use() {
    let folder = indexed(GOOD, 12);
    let model = folder.open().unwrap();
    assert_eq!(data(&model, 2), [0; 5]);
    let shorter = std::fs::OpenOptions::new().write(true).open(folder.at(TWO)).unwrap();
    let size = std::fs::metadata(folder.at(TWO)).unwrap().len();
    shorter.set_len(size - 1).unwrap();
    let lsb_stream::Error::Input(e) = model.ensure_unchanged().unwrap_err() else { panic!() };
    says_in(&e, TWO, "F21", None, None, &[&format!("had {size} bytes and has {}", size - 1)]);
    let result = model.reader(2).unwrap().read_at(0, &mut [0; 5]);
    let Err(lsb_stream::Error::Input(e)) = result else { panic!("{result:?}") };
    says_in(&e, TWO, "F21", Some("c"), Some(size - 1), &["became shorter"]);

    let folder = two();
    let model = folder.open().unwrap();
    std::fs::rename(folder.at(ONE), folder.at("old")).unwrap();
    folder.put(ONE, bytes_of(&[("a", 3), ("b", 4)]));
    let lsb_stream::Error::Input(e) = model.reader(0).unwrap().read_at(0, &mut [0; 2]).unwrap_err() else {
        panic!()
    };
    says_in(&e, ONE, "F21", Some("a"), None, &["replaced"]);
}

/// More shards than files are kept open at once.
#[test]
fn many_shards_are_read_with_few_open_files() {
    let folder = Folder::new();
    for i in 1..=150 {
        folder.put(&format!("m-{i:05}-of-00150.safetensors"), bytes_of(&[(&format!("t{i:03}"), i)]));
    }
    let model = folder.open().unwrap();
    let open_files = || std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count());
    let before = open_files();
    for round in 0..2 {
        for i in 0..150 {
            assert_eq!(data(&model, i).len(), i + 1, "round {round}");
        }
    }
    // Other tests open files at the same time; a leak would show 150 or 300.
    assert!(open_files() < before + 120);
}

#[test]
fn equal_tensors_are_found_and_almost_equal_ones_are_not() {
    let mut big = vec![7u8; 3 << 20];
    let mut file = Vec::new();
    let mut entries = Vec::new();
    let mut add = |name: &str, shape: &str, bytes: &[u8]| {
        let at = file.len();
        entries.push(entry(name, "U8", shape, &format!("[{at},{}]", at + bytes.len())));
        file.extend_from_slice(bytes);
    };
    let n = big.len();
    let shape = format!("[{n}]");
    add("a", &shape, &big);
    add("b", &shape, &big);
    add("reshaped", &format!("[1,{n}]"), &big);
    big[n / 3] = 8;
    add("hidden difference", &shape, &big);
    big[n / 3] = 7;
    add("c", &shape, &big);
    add("empty", "[0]", &[]);
    add("empty too", "[0]", &[]);
    add("x", "[2]", &[1, 2]);
    add("y", "[2]", &[1, 2]);
    let (_folder, model) = accepted(raw(format!("{{{}}}", entries.join(",")), &file));
    let of = find_duplicates(&model).unwrap();
    let mut found = Vec::new();
    for (i, original) in of.iter().enumerate() {
        if let Some(original) = original {
            found.push((model.tensors()[i].name.as_str(), model.tensors()[*original].name.as_str()));
        }
    }
    assert_eq!(found, [("b", "a"), ("c", "a"), ("y", "x")]);
}
