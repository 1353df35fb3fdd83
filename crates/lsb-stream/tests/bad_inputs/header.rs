//! Rows B18 to B63: what a header may claim.

use crate::support::*;
use lsb_format::DType;
use lsb_stream::source::{Model, OpenOptions};

/// The refusal of a file with one tensor described by `entries` and `n` bytes of data.
fn refused(entries: &[String], n: usize) -> lsb_format::Error {
    refusal(raw(format!("{{{}}}", entries.join(",")), &vec![0; n]))
}

fn one(dtype: &str, shape: &str, offsets: &str, n: usize) -> lsb_format::Error {
    refused(&[entry("t", dtype, shape, offsets)], n)
}

/// Every order of some dimensions.
fn permutations(dims: &[u64]) -> Vec<Vec<u64>> {
    if dims.len() < 2 {
        return vec![dims.to_vec()];
    }
    let mut all = Vec::new();
    for i in 0..dims.len() {
        let mut rest = dims.to_vec();
        let first = rest.remove(i);
        all.extend(permutations(&rest).into_iter().map(|mut p| {
            p.insert(0, first);
            p
        }));
    }
    all
}

#[test]
fn b18_header_of_length_zero() {
    says(&refusal([0; 8]), "B18", None, Some(0), &["length 0"]);
}

#[test]
fn b19_impossible_header_length() {
    for len in [1 << 31, 1 << 63, u64::MAX] {
        let mut file = bytes_of(&[("a", 10)]);
        file[..8].copy_from_slice(&u64::to_le_bytes(len));
        says(&refusal(&file), "B19", None, Some(0), &[&len.to_string(), &file.len().to_string()]);
    }
    // A little too long cannot be told from a file that was cut inside its header.
    let len = bytes_of(&[("a", 10)]).len() as u64;
    for (claimed, over) in [(len, 8), (len - 7, 1)] {
        let mut file = bytes_of(&[("a", 10)]);
        file[..8].copy_from_slice(&claimed.to_le_bytes());
        says(&refusal(&file), "B9", None, Some(len), &[&format!("ends {over} bytes before")]);
    }
}

#[test]
fn b20_header_above_the_limit() {
    let folder = Folder::new().with(FILE, bytes_of(&[("a", 10), ("b", 10)]));
    let len = std::fs::metadata(folder.at(FILE)).unwrap().len() - 28;
    let limited = |limit| Model::open(folder.path(), &OpenOptions { max_header_bytes: limit, ..options() });
    assert!(limited(len).is_ok());
    let numbers = [format!("{len} bytes"), format!("limit is {}", len - 1)];
    says(&input(limited(len - 1)), "B20", None, Some(0), &[&numbers[0], &numbers[1], "--max-header"]);
}

#[test]
fn b21_hundreds_of_thousands_of_tensors() {
    const N: u64 = 200_000;
    let names: Vec<String> = (0..N).map(|i| format!("model.layers.{i}.weight")).collect();
    let tensors: Vec<(&str, u64)> = names.iter().map(|n| (n.as_str(), 1)).collect();
    let started = std::time::Instant::now();
    let (_folder, model) = accepted(bytes_of(&tensors));
    assert_eq!(model.tensors().len() as u64, N);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn b22_not_utf8() {
    says(&refusal(raw(b"{\"a\xff\":1}", &[])), "B22", None, Some(11), &["not UTF-8"]);
    says(&refusal(raw(b"{\"\xc0\xaf\":1}", &[])), "B22", None, Some(10), &["not UTF-8"]);
    says(&refusal(raw("\u{feff}{}", &[])), "B22", None, Some(8), &["byte order mark"]);
}

#[test]
fn b23_broken_json() {
    for (json, offset) in [
        ("{", 9),
        ("{\"a\"", 12),
        ("{\"a\":}", 13),
        ("{} {}", 11),
        ("{\"__metadata__\":{},}", 27),
        ("{a:1}", 9),
        ("{/*x*/}", 9),
        ("{'a':1}", 9),
        ("x", 8),
        ("   ", 11),
        ("{\"a\tb\":1}", 11),
        ("{\"a", 11),
    ] {
        let e = refusal(raw(json, &[]));
        let rule = e.rule();
        assert!(rule == "B23" || rule == "B30", "{json}: {e}");
        assert_eq!(e.offset(), Some(offset), "{json}: {e}");
        assert_eq!(e.file(), Some(FILE));
    }
}

#[test]
fn b24_json_that_is_not_an_object() {
    for json in ["[]", "1", "null", "\"text\"", "true"] {
        says(&refusal(raw(json, &[])), "B24", None, Some(8), &["not an object"]);
    }
}

#[test]
fn b25_padding() {
    let text = format!("{{{}}}", entry("a", "U8", "[1]", "[0,1]"));
    for json in [format!("  \n\t{text}"), format!("{text} \t\r\n   "), text.replace(':', " : ")] {
        assert_eq!(accepted(raw(json, &[9])).1.tensors().len(), 1);
    }
    let end = 8 + text.len() as u64;
    says(&refusal(raw(format!("{text}\0\0"), &[9])), "B25", None, Some(end), &["NUL"]);
    says(&refusal(raw(format!("\0{text}"), &[9])), "B25", None, Some(8), &["NUL"]);
}

#[test]
fn b26_tensor_named_twice() {
    let a = entry("a", "U8", "[1]", "[0,1]");
    let second = 8 + 1 + a.len() as u64 + 1;
    let e = refused(&[a, entry("a", "U8", "[1]", "[1,2]")], 2);
    says(&e, "B26", Some("a"), Some(second), &["twice", "at bytes 9 and", &second.to_string()]);
}

#[test]
fn b27_names_equal_after_unescaping() {
    let a = entry("a", "U8", "[1]", "[0,1]");
    let second = 8 + 1 + a.len() as u64 + 1;
    let e = refused(&[a, entry("\\u0061", "U8", "[1]", "[1,2]")], 2);
    says(&e, "B27", Some("a"), Some(second), &["twice"]);
}

#[test]
fn b28_fields_twice() {
    let range = "\"data_offsets\":[0,1]";
    for (field, text) in [
        ("dtype", format!("\"dtype\":\"U8\",\"shape\":[1],\"dtype\":\"I8\",{range}")),
        ("shape", format!("\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],{range}")),
        ("data_offsets", format!("\"dtype\":\"U8\",\"shape\":[1],{range},{range}")),
    ] {
        let json = format!("{{\"t\":{{{text}}}}}");
        let at = 8 + json.rfind(&format!("\"{field}\"")).unwrap() as u64;
        says(&refusal(raw(json, &[0])), "B28", Some("t"), Some(at), &[field, "twice"]);
    }
    let e = refusal(raw("{\"__metadata__\":{},\"__metadata__\":{}}", &[]));
    says(&e, "B28", None, Some(27), &["__metadata__", "twice"]);
    let e = refusal(raw("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", &[]));
    says(&e, "B28", None, Some(33), &["\"k\"", "twice"]);
}

#[test]
fn b29_metadata() {
    for value in ["null", "[]", "1", "{\"k\":1}", "{\"k\":null}", "{\"k\":{}}"] {
        let at = if value.starts_with("{") { 29 } else { 24 };
        let e = refusal(raw(format!("{{\"__metadata__\":{value}}}"), &[]));
        says(&e, "B29", None, Some(at), &["strings to strings"]);
    }
    let large = "x".repeat(10 << 20);
    for value in ["{}".to_owned(), "{\"format\":\"pt\"}".to_owned(), format!("{{\"k\":\"{large}\"}}")] {
        let json = format!("{{\"__metadata__\":{value},{}}}", entry("a", "U8", "[1]", "[0,1]"));
        assert_eq!(accepted(raw(json, &[1])).1.tensors().len(), 1);
    }
}

#[test]
fn b30_missing_and_unknown_fields() {
    let fields = ["\"dtype\":\"U8\"", "\"shape\":[1]", "\"data_offsets\":[0,1]"];
    for (i, name) in ["dtype", "shape", "data_offsets"].iter().enumerate() {
        let rest: Vec<_> = fields.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, f)| *f).collect();
        let e = refusal(raw(format!("{{\"t\":{{{}}}}}", rest.join(",")), &[0]));
        says(&e, "B30", Some("t"), Some(9), &[&format!("no \"{name}\"")]);
    }
    let e = refusal(raw("{\"t\":[]}", &[]));
    says(&e, "B30", Some("t"), Some(13), &["an object"]);
    let folder =
        Folder::new().with(FILE, raw(format!("{{\"t\":{{\"zip\":[{{}}],{}}}}}", fields.join(",")), &[0]));
    let w = folder.warning();
    assert_eq!((w.rule, w.file.as_deref(), w.tensor.as_deref()), ("B30", Some(FILE), Some("t")));
    assert!(w.message.contains("\"zip\"") && w.message.contains("byte 14"), "{w}");
}

#[test]
fn b31_malformed_numbers() {
    let at = 8 + "{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":".len() as u64;
    for offsets in [
        "[]",
        "[0]",
        "[0,1,2]",
        "[-1,0]",
        "[0,1e3]",
        "[0,\"5\"]",
        "[0,1.0]",
        "[0,18446744073709551616]",
        "null",
        "{}",
        "[null,1]",
        "5",
        "[[0,1]]",
    ] {
        says(&one("U8", "[1]", offsets, 1), "B31", Some("t"), Some(at), &["pair of whole numbers"]);
    }
    let at = 8 + "{\"t\":{\"dtype\":\"U8\",\"shape\":[".len() as u64;
    for shape in ["[-1]", "[1.0]", "[\"1\"]", "[null]", "[18446744073709551616]", "[[1]]"] {
        says(&one("U8", shape, "[0,1]", 1), "B31", Some("t"), Some(at), &["dimension"]);
    }
    // Above 2^53, where floating-point readers round.
    let n = (1u64 << 53) + 1;
    let e = one("U8", &format!("[{n}]"), &format!("[0,{n}]"), 1);
    says(&e, "B8", Some("t"), e.offset(), &[&format!("{} bytes short", n - 1)]);
}

#[test]
fn b32_begin_after_end() {
    says(&one("U8", "[1]", "[2,1]", 2), "B32", Some("t"), Some(9), &["begin at 2", "at 1"]);
}

#[test]
fn b33_overlapping_tensors() {
    let a = entry("a", "U8", "[4]", "[0,4]");
    let at = 8 + 1 + a.len() as u64 + 1;
    let e = refused(&[a.clone(), entry("b", "U8", "[4]", "[3,7]")], 7);
    says(&e, "B33", Some("b"), Some(at), &["begins at 3", "\"a\"", "ends at 4"]);
    let e = refused(&[a.clone(), entry("b", "U8", "[4]", "[0,4]")], 4);
    says(&e, "B33", Some("b"), Some(at), &["begins at 0"]);
    let e = refused(&[a, entry("b", "U8", "[0]", "[2,2]")], 4);
    says(&e, "B33", Some("b"), Some(at), &["begins at 2"]);
}

#[test]
fn b34_holes() {
    let a = entry("a", "U8", "[4]", "[0,4]");
    let at = 8 + 1 + a.len() as u64 + 1;
    let e = refused(&[a, entry("b", "U8", "[1]", "[5,6]")], 6);
    says(&e, "B34", Some("b"), Some(at), &["begins at 5", "ends at 4", "hole"]);
    says(&one("U8", "[1]", "[1,2]", 2), "B34", Some("t"), Some(9), &["begins at 1, not at 0"]);
}

#[test]
fn b35_shape_product_overflows() {
    for shape in ["[1099511627776,1099511627776]", "[18446744073709551615,2]", "[4294967296,2,4294967296]"] {
        let dims = shape.replace(',', ", ");
        says(&one("F32", shape, "[0,16]", 16), "B35", Some("t"), Some(9), &[&dims, "overflows 64 bits"]);
    }
}

#[test]
fn b36_shape_times_element_size_overflows() {
    let e = one("F32", "[2,9223372036854775807]", "[0,16]", 16);
    says(&e, "B36", Some("t"), Some(9), &["of F32 overflows 64 bits"]);
}

#[test]
fn b37_shape_does_not_match_the_range() {
    for n in [23, 25] {
        let e = one("F32", "[2,3]", &format!("[0,{n}]"), n);
        says(&e, "B37", Some("t"), Some(9), &["[2, 3] of F32 takes 24 bytes", &format!("give {n}")]);
    }
    says(&one("U8", "[0]", "[0,1]", 1), "B37", Some("t"), Some(9), &["takes 0 bytes"]);
}

#[test]
fn b38_scalar() {
    let (_folder, model) = accepted(raw(format!("{{{}}}", entry("t", "F32", "[]", "[0,4]")), &[1, 2, 3, 4]));
    assert_eq!((&model.tensors()[0].shape[..], model.tensors()[0].elements()), (&[][..], 1));
    assert_eq!(data(&model, 0), [1, 2, 3, 4]);
}

#[test]
fn b39_tensors_without_elements() {
    let empty = |name, at| entry(name, "F32", "[2,0]", &format!("[{at},{at}]"));
    let full = |name, at: u64| entry(name, "U8", "[2]", &format!("[{at},{}]", at + 2));
    for (entries, n) in [
        (vec![empty("t", 0), full("a", 0)], 2),
        (vec![full("a", 0), empty("t", 2), full("b", 2)], 4),
        (vec![full("a", 0), empty("t", 2)], 2),
        (vec![empty("t", 0), empty("u", 0)], 0),
    ] {
        let (_folder, model) = accepted(raw(format!("{{{}}}", entries.join(",")), &vec![5; n]));
        assert_eq!(model.tensors().len(), entries.len());
        let t = model.tensors().iter().find(|t| t.name == "t").unwrap();
        assert_eq!((&t.shape[..], t.bytes, t.elements()), (&[2, 0][..], 0, 0));
    }
}

#[test]
fn b40_zero_beside_huge_dimensions() {
    for dims in [vec![0, 1 << 63], vec![0, 1 << 40, 1 << 40], vec![0, 0, u64::MAX, 2]] {
        for order in permutations(&dims) {
            let e = one("F32", &format!("{order:?}"), "[0,0]", 0);
            says(&e, "B40", Some("t"), Some(9), &[&format!("{order:?}"), "overflows"]);
        }
    }
}

#[test]
fn b41_too_many_dimensions() {
    for rank in [9, 64, 1_000_000] {
        let shape = format!("[{}1]", "1,".repeat(rank - 1));
        let at = 8 + "{\"t\":{\"dtype\":\"U8\",\"shape\":[".len() as u64 + 16;
        says(&one("U8", &shape, "[0,1]", 1), "B41", Some("t"), Some(at), &["more than 8 dimensions"]);
    }
    accepted(raw(format!("{{{}}}", entry("t", "U8", "[1,1,1,1,1,1,1,1]", "[0,1]")), &[0]));
}

#[test]
fn b42_hostile_names() {
    for name in ["", "a/../../b", "..", "/etc/passwd", "\\u0000", "\\n\\u001b[2J", "\u{202e}gnp", "C:\\\\x"] {
        let (_folder, model) = accepted(raw(format!("{{{}}}", entry(name, "U8", "[1]", "[0,1]")), &[3]));
        assert_eq!(data(&model, 0), [3], "{name}");
    }
    let e = refused(&[entry("\\u001b[2J\u{202e}", "U8", "[2]", "[0,1]")], 1);
    assert!(!e.to_string().contains(['\u{1b}', '\u{202e}']), "{e:?}");
    accepted(raw(format!("{{{}}}", entry(&"x".repeat(1024), "U8", "[1]", "[0,1]")), &[3]));
    for n in [1025, 1 << 20] {
        let e = refused(&[entry(&"x".repeat(n), "U8", "[1]", "[0,1]")], 1);
        says(&e, "B42", None, Some(9), &[&format!("name of {n} bytes"), "1024"]);
        assert!(e.to_string().len() < 400);
    }
}

#[test]
fn b43_two_spellings_of_one_name() {
    let entries = [entry("\u{e9}", "U8", "[1]", "[0,1]"), entry("e\u{301}", "U8", "[1]", "[1,2]")];
    let (_folder, model) = accepted(raw(format!("{{{}}}", entries.join(",")), &[1, 2]));
    assert_eq!((data(&model, 0), data(&model, 1)), (vec![1], vec![2]));
}

#[test]
fn b44_deep_nesting() {
    for depth in [129, 100_000] {
        let json = format!("{{\"t\":{{\"x\":{}{}}}}}", "[".repeat(depth), "]".repeat(depth));
        says(&refusal(raw(json, &[])), "B44", Some("t"), Some(18 + 14), &["more than 16 deep"]);
    }
}

#[test]
fn b45_odd_characters_in_names() {
    let e = refused(&[entry("\\ud83d", "U8", "[1]", "[0,1]")], 1);
    says(&e, "B45", None, Some(10), &["surrogate"]);
    for name in ["\\ud83d\\ude00", "\u{1f600}", "a\\u0000b"] {
        accepted(raw(format!("{{{}}}", entry(name, "U8", "[1]", "[0,1]")), &[3]));
    }
}

#[test]
fn b46_data_at_odd_addresses() {
    for pad in 0..8 {
        let json = format!("{{{}}}{}", entry("t", "F32", "[2]", "[0,8]"), " ".repeat(pad));
        let (_folder, model) = accepted(raw(json, &[1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(data(&model, 0), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

#[test]
fn b47_unknown_dtype() {
    let at = 8 + "{\"t\":{\"dtype\":".len() as u64;
    for dtype in ["F7", "f16", ""] {
        let e = one(dtype, "[1]", "[0,1]", 1);
        says(&e, "B47", Some("t"), Some(at), &[&format!("\"{dtype}\""), "BOOL, F4", "BF16", "U64"]);
    }
}

#[test]
fn b48_every_dtype() {
    let (mut entries, mut bytes) = (Vec::new(), Vec::new());
    for dtype in DType::ALL {
        let n = dtype.byte_len(8).unwrap();
        let at = bytes.len() as u64;
        entries.push(entry(dtype.name(), dtype.name(), "[2,4]", &format!("[{at},{}]", at + n)));
        bytes.extend((0..n).map(|i| (i as u8).wrapping_mul(37) ^ at as u8));
    }
    let (_folder, model) = accepted(raw(format!("{{{}}}", entries.join(",")), &bytes));
    assert_eq!(model.tensors().len(), 22);
    let read: Vec<u8> = (0..22).flat_map(|i| data(&model, i)).collect();
    assert_eq!(read, bytes);
}

#[test]
fn b49_four_bit_elements_that_do_not_fill_a_byte() {
    let e = one("F4", "[3]", "[0,2]", 2);
    says(&e, "B49", Some("t"), Some(9), &["[3] of F4", "whole bytes"]);
}

#[test]
fn b50_booleans_above_one() {
    let bytes: Vec<u8> = (0..=255).collect();
    let (_folder, model) = accepted(raw(format!("{{{}}}", entry("t", "BOOL", "[256]", "[0,256]")), &bytes));
    assert_eq!(data(&model, 0), bytes);
}

#[test]
fn b63_more_than_32_bits_of_bytes() {
    const N: u64 = 5 << 30;
    let json = format!("{{{}}}", entry("t", "U8", &format!("[{N}]"), &format!("[0,{N}]")));
    let folder = Folder::new().with(FILE, raw(&json, &[]));
    let file = std::fs::OpenOptions::new().write(true).open(folder.at(FILE)).unwrap();
    let start = 8 + json.len() as u64;
    file.set_len(start + N).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"end", start + N - 3).unwrap();
    let model = folder.open().unwrap();
    let mut end = [0; 3];
    model.reader(0).unwrap().read_at(N - 3, &mut end).unwrap();
    assert_eq!(&end, b"end");
    assert!(model.reader(0).unwrap().read_at(N - 2, &mut end).is_err());
}
