//! The reader against `serde_json`, and the errors it gives where that one is silent.

use super::*;
use proptest::prelude::*;

const RULES: Rules = Rules {
    encoding: "encoding",
    syntax: "syntax",
    kind: "kind",
    depth: "depth",
    surrogate: "surrogate",
    number: "number",
    duplicate: "duplicate",
};

fn skip_all(text: &[u8]) -> Result<()> {
    let mut reader = Reader::new(text, 0, RULES)?;
    reader.skip()?;
    reader.end()
}

fn fault(text: &str) -> (&'static str, u64) {
    let e = check_document(text.as_bytes(), RULES).unwrap_err();
    (e.rule(), e.offset().unwrap())
}

proptest! {
    #[test]
    fn prop_reader_accepts_what_serde_json_accepts(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\""), Just("\"a\""),
                Just("\"a\":"), Just("1"), Just("-0"), Just("01"), Just("1.5e-3"), Just("1."), Just(".5"),
                Just("true"), Just("null"), Just("nul"), Just(" "), Just("\n"), Just("\\"), Just("\\u00e9"),
                Just("\"\\ud83d\\ude00\""), Just("\"\\ud83d\""), Just("\"\\q\""), Just("\u{1}"), Just("é"),
            ],
            0..9,
        ),
    ) {
        let text = parts.concat();
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(skip_all(text.as_bytes()).is_ok(), theirs, "{:?}", text);
    }

    #[test]
    fn prop_strings_read_as_serde_json_reads_them(s in ".{0,40}") {
        let text = serde_json::to_string(&s).unwrap();
        prop_assert_eq!(&*Reader::new(text.as_bytes(), 0, RULES).unwrap().string().unwrap(), &*s);
    }

    #[test]
    fn prop_no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = skip_all(&bytes);
        let _ = check_document(&bytes, RULES);
    }
}

#[test]
fn faults_are_named_with_their_offset() {
    assert_eq!(fault("[1]"), ("kind", 0));
    assert_eq!(fault("{\"a\": NaN}"), ("number", 6));
    assert_eq!(fault("{\"a\": -Infinity}"), ("number", 7));
    assert_eq!(fault("{\"a\": 1e400}"), ("number", 6));
    assert_eq!(fault("{\"a\": {\"b\": 1, \"\\u0062\": 2}}"), ("duplicate", 15));
    assert_eq!(fault("{\"a\": 1} {}"), ("syntax", 9));
    assert_eq!(fault("{\"a\": 1,}"), ("syntax", 8));
    assert_eq!(fault("{\"a\": \"\\udc00\"}"), ("surrogate", 7));
    assert_eq!(fault("\u{feff}{}"), ("encoding", 0));
    assert_eq!(fault(""), ("kind", 0));
}

#[test]
fn depth_is_bounded_without_recursing_deeply() {
    let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert!(check_document(nested(15).as_bytes(), RULES).is_ok());
    assert_eq!(fault(&nested(16)), ("depth", 20));
    assert_eq!(fault(&nested(100_000)), ("depth", 20));
}

#[test]
fn unsigned_takes_digits_only() {
    let read = |text: &str| Reader::new(text.as_bytes(), 0, RULES).unwrap().unsigned().unwrap();
    assert_eq!(read("18446744073709551615"), Some(u64::MAX));
    for text in ["18446744073709551616", "-1", "-0", "1e3", "1.0", "\"5\"", "null", "[1]"] {
        assert_eq!(read(text), None, "{text}");
    }
}
