//! The mutator itself, and every target on its own seeds.

use super::mutator::{MAX_LEN, Random, mutate};
use super::*;

#[test]
fn every_target_returns_on_its_seeds_whole_cut_and_flipped() {
    for target in TARGETS {
        for (name, seed) in (target.seeds)().unwrap() {
            println!("{} {name}: {}", target.name, one(target.name, &seed));
            let step = (seed.len() / 50).max(1);
            for at in (0..seed.len()).step_by(step) {
                one(target.name, &seed[..at]);
                let mut flipped = seed.clone();
                flipped[at] ^= 0x10;
                one(target.name, &flipped);
                (target.repair)(&mut flipped);
                one(target.name, &flipped);
            }
        }
    }
}

#[test]
fn seeds_reach_more_than_the_first_check() {
    for target in TARGETS {
        let outcomes: std::collections::BTreeSet<_> =
            (target.seeds)().unwrap().iter().map(|(_, seed)| one(target.name, seed)).collect();
        assert!(outcomes.len() > 1, "{}: {outcomes:?}", target.name);
        assert!(outcomes.iter().any(|o| o.starts_with("ok")), "{}: {outcomes:?}", target.name);
    }
}

#[test]
fn repair_leaves_valid_inputs_alone() {
    for target in TARGETS {
        for (name, seed) in (target.seeds)().unwrap() {
            if one(target.name, &seed).starts_with("ok") {
                let mut repaired = seed.clone();
                (target.repair)(&mut repaired);
                assert_eq!(repaired, seed, "{} {name}", target.name);
            }
        }
    }
}

#[test]
fn the_same_seed_makes_the_same_changes_and_no_input_grows_without_end() {
    let run = |seed| {
        let mut random = Random::new(seed);
        let mut data = b"{\"a\": 12}".to_vec();
        for _ in 0..2000 {
            data = mutate(&mut random, &data, b"0123456789abcdef");
            assert!(data.len() <= MAX_LEN);
        }
        data
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn an_empty_input_can_be_changed() {
    let mut random = Random::new(1);
    for _ in 0..2000 {
        mutate(&mut random, b"", b"");
        mutate(&mut random, b"", b"x");
    }
}

#[test]
fn every_codec_of_the_registry_is_tried() {
    let registry = lsb_quant::Registry::standard();
    for text in target::codecs::CODECS {
        registry.parse(text).unwrap();
    }
    for entry in registry.entries() {
        let tried = target::codecs::CODECS.iter().any(|text| text.split(':').next() == Some(entry.id));
        assert!(tried, "add {} to the list in xtask/src/mutate/target/codecs.rs", entry.id);
    }
}
