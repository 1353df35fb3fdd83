//! Windows by hand, and the laws every cut obeys.

use super::*;
use proptest::prelude::*;

fn ids(n: u32) -> Vec<u32> {
    (100..100 + n).collect()
}

fn protocol(window: usize, stride: Option<usize>, bos: Option<u32>) -> Protocol {
    Protocol { window, stride, bos, ..Protocol::for_context(window) }
}

fn window(feed: &[u32], score: std::ops::Range<usize>, targets: &[u32]) -> Window {
    Window { feed: feed.to_vec(), score, targets: targets.to_vec() }
}

#[test]
fn windows_side_by_side_score_every_id_but_the_first_once() {
    let cut = protocol(4, None, None).windows(&ids(10)).unwrap();
    let expected = [
        window(&[100, 101, 102, 103], 0..4, &[101, 102, 103, 104]),
        window(&[104, 105, 106, 107], 0..4, &[105, 106, 107, 108]),
    ];
    assert_eq!(cut, expected);
    // One id fewer than a second window needs.
    assert_eq!(protocol(4, None, None).windows(&ids(8)).unwrap().len(), 1);
}

#[test]
fn a_short_text_is_one_shorter_window_and_the_record_says_so() {
    let p = protocol(2048, None, None);
    let cut = p.windows(&ids(5)).unwrap();
    assert_eq!(cut, [window(&[100, 101, 102, 103], 0..4, &[101, 102, 103, 104])]);
    let record = p.record(b"text", &ids(5), &cut);
    assert!(record.shortened);
    assert_eq!((record.text_tokens, record.scored_tokens, record.windows), (5, 4, 1));
    assert_eq!(record.text_blake3, blake3::hash(b"text").to_hex().as_str());
    assert_eq!(p.windows(&ids(1)), Err(ProtocolError::TooShort { ids: 1, least: 2 }));
}

#[test]
fn a_bos_takes_one_position_and_scores_the_same_ids() {
    let cut = protocol(4, None, Some(1)).windows(&ids(8)).unwrap();
    let expected = [
        window(&[1, 100, 101, 102], 1..4, &[101, 102, 103]),
        window(&[1, 103, 104, 105], 1..4, &[104, 105, 106]),
    ];
    assert_eq!(cut, expected);
}

#[test]
fn sliding_windows_score_what_is_new() {
    let cut = protocol(4, Some(2), None).windows(&ids(7)).unwrap();
    let expected = [
        window(&[100, 101, 102, 103], 0..3, &[101, 102, 103]),
        window(&[102, 103, 104, 105], 1..3, &[104, 105]),
        window(&[104, 105, 106], 1..2, &[106]),
    ];
    assert_eq!(cut, expected);
    let with_bos = protocol(4, Some(2), Some(1)).windows(&ids(5)).unwrap();
    let expected =
        [window(&[1, 100, 101, 102], 1..3, &[101, 102]), window(&[1, 102, 103, 104], 1..3, &[103, 104])];
    assert_eq!(with_bos, expected);
}

#[test]
fn llama_cpp_scores_the_second_half_without_its_last_position() {
    let p = Protocol { window: 6, ..Protocol::llama_cpp(Some(1)) };
    let cut = p.windows(&ids(13)).unwrap();
    // The text begins with a BOS of its own; in the second window it overwrites an id.
    let expected = [
        window(&[1, 100, 101, 102, 103, 104], 3..5, &[103, 104]),
        window(&[1, 106, 107, 108, 109, 110], 3..5, &[109, 110]),
    ];
    assert_eq!(cut, expected);
    let chunk = Protocol::llama_cpp(None).windows(&ids(1024)).unwrap();
    assert_eq!((chunk.len(), chunk[0].score.clone(), chunk[0].targets.len()), (2, 256..511, 255));
    let short = Protocol::llama_cpp(None).windows(&ids(1023));
    assert_eq!(short, Err(ProtocolError::TooShort { ids: 1023, least: 1024 }));
}

#[test]
fn max_tokens_limits_what_is_scored() {
    let p = Protocol { max_tokens: Some(8), ..protocol(4, None, None) };
    let cut = p.windows(&ids(100)).unwrap();
    assert_eq!(cut.iter().map(|w| w.targets.len()).sum::<usize>(), 8);
    let p = Protocol { max_tokens: Some(usize::MAX), ..p };
    assert_eq!(p.windows(&ids(9)).unwrap().len(), 2);
}

#[test]
fn impossible_protocols_are_refused() {
    let refuse = |p: Protocol| p.windows(&ids(50)).unwrap_err();
    assert_eq!(refuse(protocol(0, None, None)), ProtocolError::Window { window: 0, least: 1 });
    assert_eq!(refuse(protocol(1, None, Some(1))), ProtocolError::Window { window: 1, least: 2 });
    assert_eq!(refuse(protocol(1, Some(1), None)), ProtocolError::Window { window: 1, least: 2 });
    assert_eq!(refuse(protocol(8, Some(0), None)), ProtocolError::Stride { stride: 0, ids: 8 });
    assert_eq!(refuse(protocol(8, Some(8), Some(1))), ProtocolError::Stride { stride: 8, ids: 7 });
    let strided = Protocol { stride: Some(2), ..Protocol::llama_cpp(None) };
    assert_eq!(refuse(strided), ProtocolError::LlamaCppStride);
    let narrow = Protocol { window: 2, ..Protocol::llama_cpp(None) };
    assert_eq!(refuse(narrow), ProtocolError::Window { window: 2, least: 3 });
}

#[test]
fn a_record_survives_json() {
    let p = Protocol::llama_cpp(Some(2));
    let cut = p.windows(&ids(1100)).unwrap();
    let record = p.record(b"x", &ids(1100), &cut);
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!((json["kind"].as_str(), json["window"].as_u64()), (Some("llama.cpp"), Some(512)));
    assert_eq!(serde_json::from_value::<ProtocolRecord>(json).unwrap(), record);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn prop_targets_follow_their_positions_and_none_counts_twice(
        n in 2u32..200, width in 2usize..20, stride in proptest::option::of(1usize..20), bos in any::<bool>(),
    ) {
        let p = protocol(width, stride, bos.then_some(7));
        let ids = ids(n);
        let Ok(cut) = p.windows(&ids) else { return Ok(()) };
        let mut seen = Vec::new();
        for w in &cut {
            prop_assert!(w.feed.len() <= width && !w.targets.is_empty());
            prop_assert_eq!(w.score.len(), w.targets.len());
            prop_assert!(w.score.end <= w.feed.len());
            for (position, target) in w.score.clone().zip(&w.targets) {
                // Ids are consecutive numbers, so the id that follows is one more.
                prop_assert_eq!(w.feed[position] + 1, *target);
            }
            seen.extend_from_slice(&w.targets);
        }
        prop_assert!(seen.windows(2).all(|p| p[0] < p[1]));
        let ids_per_window = width - usize::from(bos);
        if stride.is_some_and(|s| s < ids_per_window) {
            prop_assert_eq!(&seen[..], &ids[1..]);
        }
    }
}
