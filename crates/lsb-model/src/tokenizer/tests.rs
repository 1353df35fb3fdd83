//! The reference model's tokens, special tokens, streamed decoding against decoding whole.

use super::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn reflm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/reflm")
}

fn golden() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(reflm().join("golden.json")).unwrap()).unwrap()
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn reference_model_ids_are_those_of_transformers() {
    let tokenizer = Tokenizer::open(&reflm()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 2048);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.stop_ids()), (Some(0), Some(0), &[0][..]));
    tokenizer.check_ids(2048).unwrap();
    for case in golden()["generation"].as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        let prompt_ids = ids(&case["prompt_ids"]);
        assert_eq!(tokenizer.encode(prompt, false).unwrap(), prompt_ids);
        assert_eq!(tokenizer.encode(prompt, true).unwrap(), prompt_ids);
        assert_eq!(tokenizer.decode(&prompt_ids, true).unwrap(), prompt);
    }
    let first = ids(&golden()["eval_ids_first_64"]);
    let text = tokenizer.decode(&first, false).unwrap();
    assert_eq!(tokenizer.encode(&text, false).unwrap(), first);
}

#[test]
fn long_text_is_the_crates_own_ids() {
    let tokenizer = Tokenizer::open(&reflm()).unwrap();
    let line = "It was a dark night — \u{1f600} 汉字<|endoftext|>\n\n  and 12345 tokens' worth.\t";
    let text = line.repeat(400);
    let whole = tokenizers::Tokenizer::from_file(reflm().join("tokenizer.json")).unwrap();
    assert_eq!(
        tokenizer.encode(&text, false).unwrap(),
        whole.encode(text.as_str(), false).unwrap().get_ids()
    );
}

const WORDS: [&str; 6] = ["▁", "h", "i", "▁h", "▁hi", "x"];

/// A vocabulary of byte tokens, words and `extra`, in the given file around it.
fn bpe(extra: &[&str], rest: &str) -> String {
    let mut tokens: Vec<String> = vec!["<unk>".into(), "<s>".into(), "</s>".into()];
    tokens.extend((0..=255).map(|b| format!("<0x{b:02X}>")));
    tokens.extend(extra.iter().map(|s| s.to_string()));
    let vocab: serde_json::Map<String, serde_json::Value> =
        tokens.into_iter().enumerate().map(|(i, t)| (t, i.into())).collect();
    let special = |(id, content): (usize, &&str)| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let added: Vec<_> = ["<unk>", "<s>", "</s>"].iter().enumerate().map(special).collect();
    format!(
        r#"{{"version":"1.0","added_tokens":{},{rest},"model":{{"type":"BPE","dropout":0.5,"unk_token":"<unk>",
        "fuse_unk":true,"byte_fallback":true,"vocab":{},"merges":["▁ h","▁h i"]}}}}"#,
        serde_json::to_string(&added).unwrap(),
        serde_json::to_string(&vocab).unwrap()
    )
}

const LLAMA: &str = r#""normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
    {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":null,
    "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
    {"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}},
    "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
    {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#;

fn llama(config: &str) -> TempDir {
    let json = bpe(&WORDS, LLAMA);
    folder(&[("tokenizer.json", &json), ("tokenizer_config.json", config)])
}

#[test]
fn byte_fallback_frame_and_flags() {
    let dir = llama(r#"{"bos_token":{"content":"<s>"},"eos_token":"</s>"}"#);
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let hi = tokenizer.token_id("▁hi").unwrap();
    assert_eq!(tokenizer.encode("hi", true).unwrap(), [1, hi]);
    assert_eq!(tokenizer.encode("hi", false).unwrap(), [hi]);
    // Text that looks like a special token is one, as in transformers.
    assert_eq!(tokenizer.encode("hi</s>", false).unwrap(), [hi, 2]);
    let accent = tokenizer.encode("hi é", false).unwrap();
    assert_eq!(accent[2..], [0xc3 + 3, 0xa9 + 3]);
    assert_eq!(tokenizer.decode(&accent, true).unwrap(), "hi é");
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    let flags = r#"{"tokenizer_class":"LlamaTokenizerFast","bos_token":"<s>","eos_token":"</s>",
        "add_bos_token":false,"add_eos_token":true}"#;
    let tokenizer = Tokenizer::open(llama(flags).path()).unwrap();
    assert_eq!(tokenizer.encode("hi", true).unwrap(), [hi, 2]);
    let ignored = flags.replace("LlamaTokenizerFast", "PreTrainedTokenizerFast");
    let tokenizer = Tokenizer::open(llama(&ignored).path()).unwrap();
    assert_eq!(tokenizer.encode("hi", true).unwrap(), [1, hi]);
}

#[test]
fn truncation_keeps_the_special_tokens() {
    let rest = r###""truncation":{"max_length":4,"strategy":"LongestFirst","stride":0,"direction":"Right"},
        "padding":{"strategy":{"Fixed":9},"direction":"Right","pad_id":0,"pad_type_id":0,"pad_token":"[PAD]",
        "pad_to_multiple_of":null},
        "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,
        "lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},
        "post_processor":{"type":"BertProcessing","sep":["[SEP]",2],"cls":["[CLS]",1]},
        "decoder":{"type":"WordPiece","prefix":"##","cleanup":true}"###;
    let model = r###""model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",
        "max_input_chars_per_word":100,"vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"a":3,"##b":4,"c":5,".":6}}"###;
    let dir = folder(&[("tokenizer.json", &format!("{{\"version\":\"1.0\",{rest},{model}}}"))]);
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(tokenizer.max_tokens(), Some(4));
    assert_eq!(tokenizer.encode("AB c. zz", true).unwrap(), [1, 3, 4, 5, 6, 0, 2]);
    assert_eq!(tokenizer.encode_truncated("ab c. zz", 4).unwrap(), [1, 3, 4, 2]);
    assert_eq!(tokenizer.encode_truncated("ab", 4).unwrap(), [1, 3, 4, 2]);
    assert!(tokenizer.encode_truncated("ab", 2).is_err());
    assert_eq!(tokenizer.decode(&[3, 4, 5, 6], true).unwrap(), "ab c.");
    check_stream(&tokenizer, &[3, 4, 5, 6, 4, 3]);
    assert_eq!(tokenizer.decode(&[], true).unwrap(), "");
}

#[test]
fn stop_ids_come_from_all_files() {
    let json = bpe(&WORDS, LLAMA);
    let dir = folder(&[
        ("tokenizer.json", &json),
        ("tokenizer_config.json", r#"{"eos_token":"</s>"}"#),
        ("generation_config.json", r#"{"eos_token_id":[9,7],"bos_token_id":5}"#),
        ("config.json", r#"{"eos_token_id":4}"#),
    ]);
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.stop_ids()), (Some(5), Some(2), &[2, 7, 9][..]));
    let dir = folder(&[("tokenizer.json", &json), ("config.json", r#"{"text_config":{"eos_token_id":4}}"#)]);
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.stop_ids()), (None, Some(4), &[4][..]));
}

/// Streams `ids`, checks that the pieces are the whole, and returns them.
fn check_stream(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    for skip in [false, true] {
        let mut stream = tokenizer.stream(skip);
        let mut text: String = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
        text += &stream.finish().unwrap();
        assert_eq!(text, tokenizer.decode(ids, skip).unwrap(), "{ids:?}");
    }
    let mut stream = tokenizer.stream(true);
    ids.iter().map(|&id| stream.push(id).unwrap().unwrap_or_default()).collect()
}

/// Some thousand short sequences of ids, the same every time.
fn sequences(vocab: u32, mut check: impl FnMut(&[u32])) {
    let mut state = 1u64;
    for length in (0..12).cycle().take(3000) {
        let ids: Vec<u32> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as u32 % vocab
            })
            .collect();
        check(&ids);
    }
}

#[test]
fn stream_holds_characters_split_over_byte_level_tokens() {
    let tokenizer = Tokenizer::open(&reflm()).unwrap();
    let ids = tokenizer.encode("a汉 b", false).unwrap();
    let pieces = check_stream(&tokenizer, &ids);
    assert!(pieces.iter().all(|p| !p.contains('\u{fffd}')), "{pieces:?}");
    assert_eq!(pieces[0], "a");
    sequences(2050, |ids| drop(check_stream(&tokenizer, ids)));
    // Single bytes only: valid, invalid and unfinished characters in every mixture.
    let bytes: Vec<u32> =
        (0..2048).filter(|id| tokenizer.token(*id).is_some_and(|t| t.chars().count() == 1)).collect();
    sequences(bytes.len() as u32, |at| {
        let ids: Vec<u32> = at.iter().map(|i| bytes[*i as usize]).collect();
        check_stream(&tokenizer, &ids);
    });
}

#[test]
fn stream_holds_runs_of_byte_tokens() {
    let dir = llama("{}");
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let byte = |b: u32| b + 3;
    let x = tokenizer.token_id("x").unwrap();
    // A later byte makes the whole run invalid, so nothing of it is shown before it ends.
    let pieces = check_stream(&tokenizer, &[x, byte(0xc3), byte(0xa9), byte(0xff), x]);
    assert_eq!(pieces, ["x", "", "", "", "\u{fffd}\u{fffd}\u{fffd}x"]);
    let n = tokenizer.vocab_size() as u32;
    sequences(n + 1, |ids| drop(check_stream(&tokenizer, ids)));
    // Mostly words, among them the space that vanishes at the beginning.
    sequences(9, |at| {
        let ids: Vec<u32> = at.iter().map(|i| if *i == 0 { byte(0xc3) } else { n - *i }).collect();
        check_stream(&tokenizer, &ids);
    });
}

#[test]
fn stream_matches_every_decoder() {
    for decoder in [
        "null",
        r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#,
        r#"{"type":"BPEDecoder","suffix":"x"}"#,
        r#"{"type":"Fuse"}"#,
        r#"{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Metaspace","replacement":"▁",
            "prepend_scheme":"first","split":true}]}"#,
    ] {
        let rest =
            format!(r#""normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":{decoder}"#);
        let dir = folder(&[("tokenizer.json", &bpe(&WORDS, &rest))]);
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        let n = tokenizer.vocab_size() as u32;
        sequences(8, |at| drop(check_stream(&tokenizer, &at.iter().map(|i| n - 1 - i).collect::<Vec<_>>())));
    }
}

/// Texts of fragments that pre-tokenizers treat in different ways, the same every time.
fn texts(mut check: impl FnMut(&str)) {
    let fragments = [
        "hi",
        "h",
        "i",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "'s",
        "12345",
        "x",
        "\u{e9}",
        "e\u{301}",
        "\u{212a}",
        "汉字",
        "▁",
        " hi",
        "!?",
        "<s>",
        "</s>",
        "<|endoftext|>",
        "\u{1f600}",
        "\u{a0}",
        "\r\n",
        "It was",
        "\u{ac00}\u{11a8}",
    ];
    let mut state = 9u64;
    for length in (0..24).cycle().take(1500) {
        let text: String = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                fragments[(state >> 33) as usize % fragments.len()]
            })
            .collect();
        check(&text);
    }
}

/// Compares encoding in pieces with the crate's encoding of the whole, on texts short and long.
#[track_caller]
fn check_pieces(json: &str, expected: bool) {
    let dir = folder(&[("tokenizer.json", json)]);
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(tokenizer.pieces.is_some(), expected, "{json:.300}");
    let Some(pieces) = &tokenizer.pieces else { return };
    let whole = tokenizers::Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
    let (mut done, mut all, mut joined) = (0, 0, String::new());
    let mut check = |text: &str| {
        let mut ids = Vec::new();
        all += 1;
        if let Some(result) = pieces.encode(&tokenizer, text, &mut ids) {
            result.unwrap();
            done += 1;
            assert_eq!(ids, whole.encode(text, false).unwrap().get_ids(), "{text:?}");
        }
    };
    texts(|text| {
        check(text);
        joined += text;
    });
    check(&joined.replace("<|endoftext|>", ""));
    check(&joined.replace('<', ""));
    assert!(done * 4 > all, "only {done} of {all} texts could be cut");
}

fn reflm_with(from: &str, to: &str) -> String {
    let json = std::fs::read_to_string(reflm().join("tokenizer.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let json = serde_json::to_string(&json).unwrap();
    assert!(json.contains(from), "{from}");
    json.replace(from, to)
}

#[test]
fn pieces_of_words_give_the_ids_of_the_whole() {
    let level = r#""pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"#;
    let order = |json: &str| {
        // The file's fields in whatever order this build of serde_json keeps them.
        let value: serde_json::Value = serde_json::from_str(&format!("{{{json}}}")).unwrap();
        let text = serde_json::to_string(&value).unwrap();
        text[1..text.len() - 1].to_owned()
    };
    check_pieces(&reflm_with(&order(level), level), true);
    let regex = r#"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"#;
    let split = format!(
        r#""pre_tokenizer":{{"type":"Sequence","pretokenizers":[{{"type":"Split","pattern":{{"Regex":"{regex}"}},
        "behavior":"Isolated","invert":false}},{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,
        "use_regex":false}}]}}"#
    );
    let llama_3 = reflm_with(&order(level), &split);
    check_pieces(&llama_3, true);
    for form in ["NFC", "NFD", "NFKC", "NFKD"] {
        let part = format!(r#""normalizer":{{"type":"{form}"}}"#);
        check_pieces(&llama_3.replace("\"normalizer\":null", &part), true);
    }
    check_pieces(&llama_3.replace("\"Isolated\"", "\"MergedWithNext\""), false);
    check_pieces(
        &reflm_with(&order(level), &level.replace("\"add_prefix_space\":false", "\"add_prefix_space\":true")),
        false,
    );
}

#[test]
fn pieces_of_marks_give_the_ids_of_the_whole() {
    let plain = |json: String| json.replace("\"dropout\":0.5", "\"dropout\":null");
    let llama = plain(bpe(&WORDS, LLAMA));
    check_pieces(&llama, true);
    let rest = |normalizer: &str, pre_tokenizer: &str| {
        plain(bpe(&WORDS, &format!(r#""normalizer":{normalizer},"pre_tokenizer":{pre_tokenizer}"#)))
    };
    let replace = r#"{"type":"Replace","pattern":{"String":" "},"content":"▁"}"#;
    check_pieces(&rest(replace, "null"), true);
    let gemma = r#"{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false}"#;
    check_pieces(&rest(replace, gemma), true);
    for scheme in ["always", "first", "never"] {
        let part =
            format!(r#"{{"type":"Metaspace","replacement":"▁","prepend_scheme":"{scheme}","split":false}}"#);
        check_pieces(&rest("null", &part), true);
    }
    // A token with a mark behind another character could join two pieces.
    check_pieces(&plain(bpe(&[&WORDS[..], &["x▁"]].concat(), LLAMA)), false);
    check_pieces(&llama.replace("\"<0x41>\"", "\"<0xZZ>\""), false);
}
