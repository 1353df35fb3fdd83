//! A reference says what the pair tally says, survives its file, and refuses every other file.

use super::*;
use crate::logits::{LogitComparison, PairTally};
use crate::protocol::Protocol;
use proptest::prelude::*;
use std::path::Path;

const VOCABULARY: usize = 300;

fn logits(tokens: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..tokens * VOCABULARY).map(|_| 12.0 * (next() + next() - 1.0)).collect()
}

fn other(original: &[f32], seed: u64) -> Vec<f32> {
    let noise = logits(original.len() / VOCABULARY, seed);
    original.iter().zip(noise).map(|(a, n)| a + 0.1 * n).collect()
}

fn targets(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|t| 37 * t % VOCABULARY as u32).collect()
}

fn rows(original: &[f32], top: usize) -> ReferenceRows {
    let tokens = original.len() / VOCABULARY;
    let mut tally = TopTally::new(targets(tokens), top, VOCABULARY);
    let tile = |ids: Range<usize>| {
        (0..tokens).flat_map(|t| original[t * VOCABULARY..][ids.clone()].to_vec()).collect::<Vec<f32>>()
    };
    tally.observe(0..tokens, 0, &tile(0..111));
    tally.observe(0..tokens, 111, &tile(111..VOCABULARY));
    tally.finish().unwrap()
}

fn header(tokens: usize, top: usize) -> ReferenceHeader {
    let protocol = Protocol::for_context(tokens);
    let ids: Vec<u32> = (0..=tokens as u32).collect();
    let windows = protocol.windows(&ids).unwrap();
    let protocol = protocol.record(b"a text", &ids, &windows);
    ReferenceHeader { model: "tiny".into(), protocol, vocabulary: VOCABULARY, top }
}

fn save(path: &Path, tokens: usize, top: usize) -> ReferenceRows {
    let rows = rows(&logits(tokens, 1), top);
    let mut writer = ReferenceWriter::create(path, header(tokens, top)).unwrap();
    writer.push(&rows).unwrap();
    writer.finish().unwrap();
    rows
}

/// Reads bytes as a file and returns the rule they break.
fn refusal(bytes: &[u8]) -> &'static str {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reference");
    std::fs::write(&path, bytes).unwrap();
    match Reference::open(&path).unwrap_err() {
        lsb_stream::Error::Input(error) => {
            assert!(error.file().unwrap().ends_with("reference") && !error.advice().is_empty(), "{error}");
            error.rule()
        }
        error => panic!("{error}"),
    }
}

/// The bytes with the checksum that belongs to them.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - TRAILER;
    let hash = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(hash.as_bytes());
    bytes
}

fn saved_bytes(tokens: usize, top: usize) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reference");
    save(&path, tokens, top);
    std::fs::read(path).unwrap()
}

#[test]
fn a_reference_survives_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reference");
    let rows = save(&path, 9, 20);
    let found = Reference::open(&path).unwrap();
    assert_eq!((found.rows, &found.header), (rows, &header(9, 20)));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let bytes = std::fs::metadata(&path).unwrap().len() as usize;
    assert_eq!(bytes, 48 + serde_json::to_vec(&found.header).unwrap().len() + 9 * (16 + 8 * 20));
}

#[test]
fn a_comparison_with_a_reference_is_that_of_the_pair_with_a_lower_kl() {
    let tokens = 12;
    let original = logits(tokens, 1);
    let model = other(&original, 2);
    let mut pair = PairTally::new(targets(tokens));
    pair.observe(0..tokens, 0, &original, &model);
    let exact = pair.finish();
    let mut last = 0.0;
    for top in [5, 20, 100, VOCABULARY] {
        let rows = rows(&original, top);
        let mut found = Vec::new();
        for half in [0..5, 5..tokens] {
            let mut tally = ReferenceTally::new(&rows, half.start, targets(tokens)[half.clone()].to_vec());
            tally.observe(0..half.len(), 0, &model[half.start * VOCABULARY..half.end * VOCABULARY]);
            found.extend(tally.finish());
        }
        for (found, exact) in found.iter().zip(&exact) {
            assert!(
                (found.nll - exact.nll).abs() < 1e-10
                    && (found.original_nll - exact.original_nll).abs() < 1e-10
            );
            assert_eq!((found.top1, found.top5), (exact.top1, exact.top5));
            assert!(found.kl <= exact.kl + 1e-10, "{found:?} {exact:?}");
        }
        let all = LogitComparison::of(&found, &[tokens]);
        assert!(all.kl_mean >= last, "{top}: {} {last}", all.kl_mean);
        assert_eq!(all.logit_correlation, None);
        last = all.kl_mean;
    }
    // With every id kept the bound is the divergence itself.
    assert!((last - LogitComparison::of(&exact, &[tokens]).kl_mean).abs() < 1e-10);
}

#[test]
fn a_model_against_its_own_reference_has_no_divergence() {
    let original = logits(3, 4);
    let rows = rows(&original, 10);
    let mut tally = ReferenceTally::new(&rows, 0, targets(3));
    tally.observe(0..3, 0, &original);
    for token in tally.finish() {
        assert!(token.kl < 1e-10 && token.top1 && token.top5 == 1.0, "{token:?}");
    }
    let mut broken = original.clone();
    broken[5] = f32::NAN;
    let mut tally = ReferenceTally::new(&rows, 0, targets(3));
    tally.observe(0..3, 0, &broken);
    assert_eq!(tally.finish()[0].kl, f64::INFINITY);
    let mut tally = TopTally::new(targets(3), 10, VOCABULARY);
    tally.observe(0..3, 0, &broken);
    assert!(tally.finish().unwrap_err().to_string().contains("scored token 0"));
}

#[test]
fn each_rule_is_the_one_that_is_broken() {
    let good = saved_bytes(4, 5);
    let header_end = good.len() - TRAILER - 4 * 56;
    assert_eq!(refusal(&[]), "R1");
    assert_eq!(refusal(&vec![b'x'; 400]), "R1");
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        signed(changed)
    };
    assert_eq!(refusal(&with(8, &2u32.to_le_bytes())), "R2");
    assert_eq!(refusal(&with(12, &u32::MAX.to_le_bytes())), "R3");
    assert_eq!(refusal(&with(16, b"!")), "R3");
    assert_eq!(refusal(&good[..good.len() - 1]), "R4");
    assert_eq!(refusal(&[&good[..], b"x"].concat()), "R4");
    let mut flipped = good.clone();
    flipped[header_end + 3] ^= 1;
    assert_eq!(refusal(&flipped), "R5");
    // Well signed, and still no distribution: an id beyond the vocabulary, one twice, NaN, mass above one.
    let second_id = header_end + 16 + 4;
    assert_eq!(refusal(&with(second_id, &999u32.to_le_bytes())), "R6");
    assert_eq!(refusal(&with(second_id, &good[second_id - 4..second_id])), "R6");
    assert_eq!(refusal(&with(header_end, &f64::NAN.to_le_bytes())), "R6");
    assert_eq!(refusal(&with(header_end + 8, &(-50f64).to_le_bytes())), "R6");
}

#[test]
fn sizes_beyond_reason_reserve_nothing() {
    for (top, tokens) in [(5, usize::MAX), (MAX_TOP, usize::MAX / 2), (0, 4), (MAX_TOP + 1, 1), (5, 1 << 40)]
    {
        let mut claim = header(4, 5);
        (claim.top, claim.vocabulary, claim.protocol.scored_tokens) = (top, 1 << 20, tokens);
        let json = serde_json::to_vec(&claim).unwrap();
        let mut bytes =
            [&MAGIC[..], &VERSION.to_le_bytes(), &(json.len() as u32).to_le_bytes(), &json].concat();
        bytes.extend([0; 100]);
        let rule = refusal(&signed(bytes));
        assert!(rule == "R3" || rule == "R4", "{rule}");
    }
}

#[test]
fn a_reference_of_something_else_says_what_differs() {
    let header = header(4, 5);
    assert_eq!(header.difference(&header.protocol, VOCABULARY), None);
    let says = |protocol: &ProtocolRecord, vocabulary, words: &str| {
        let difference = header.difference(protocol, vocabulary).unwrap();
        assert!(difference.contains(words), "{difference}");
    };
    says(&header.protocol, 7, "vocabulary of 300, and this one of 7");
    says(
        &ProtocolRecord { text_blake3: String::new(), ..header.protocol.clone() },
        VOCABULARY,
        "another text",
    );
    says(&ProtocolRecord { ids_blake3: String::new(), ..header.protocol.clone() }, VOCABULARY, "tokenizer");
    let mut wider = header.protocol.clone();
    wider.protocol.window = 9;
    says(&wider, VOCABULARY, "window: 9");
}

#[test]
fn a_writer_wants_all_rows_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("reference");
    let rows = rows(&logits(3, 1), 5);
    let mut writer = ReferenceWriter::create(&path, header(4, 5)).unwrap();
    writer.push(&rows).unwrap();
    assert!(writer.push(&rows).unwrap_err().to_string().contains("6 rows"));
    let writer = ReferenceWriter::create(&path, header(4, 5)).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("0 rows for a protocol that scores 4"));
    let mut writer = ReferenceWriter::create(&path, header(4, 6)).unwrap();
    assert!(writer.push(&rows).unwrap_err().to_string().contains("keep 5 of 300"));
    assert!(ReferenceWriter::create(&path, header(4, 0)).is_err());
    assert!(!path.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn prop_any_flipped_bit_and_any_cut_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        thread_local!(static GOOD: Vec<u8> = saved_bytes(6, 8));
        GOOD.with(|good| {
            let mut flipped = good.clone();
            flipped[at.index(good.len())] ^= 1 << bit;
            assert!(refusal(&flipped).starts_with('R'));
            assert!(refusal(&good[..at.index(good.len())]).starts_with('R'));
        });
    }

    #[test]
    fn prop_well_signed_nonsense_is_read_or_refused(
        at in any::<prop::sample::Index>(), junk in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        thread_local!(static GOOD: Vec<u8> = saved_bytes(6, 8));
        GOOD.with(|good| {
            let mut changed = good.clone();
            let at = at.index(good.len() - TRAILER - junk.len());
            changed[at..at + junk.len()].copy_from_slice(&junk);
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("reference");
            std::fs::write(&path, signed(changed)).unwrap();
            // Whatever is accepted must compare without panicking.
            if let Ok(reference) = Reference::open(&path) {
                let n = reference.rows.len();
                let mut tally = ReferenceTally::new(&reference.rows, 0, targets(n));
                tally.observe(0..n, 0, &logits(n, 3));
                tally.finish();
            }
        });
    }
}
