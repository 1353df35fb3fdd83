//! Distributions against exact probabilities, each filter's support, stop strings against a naive search.

use super::*;
use proptest::prelude::*;

const LOGITS: [f32; 6] = [1.0, 2.5, 0.0, 2.5, -1.0, f32::NEG_INFINITY];

fn options() -> SamplerOptions {
    SamplerOptions { temperature: 1.0, seed: 7, ..SamplerOptions::default() }
}

/// How often each token is drawn in `n` draws.
fn counts(options: SamplerOptions, logits: &[f32], history: &[u32], n: usize) -> Vec<usize> {
    let mut sampler = Sampler::new(options).unwrap();
    let mut counts = vec![0; logits.len()];
    for _ in 0..n {
        counts[sampler.next(&mut logits.to_vec(), history).unwrap() as usize] += 1;
    }
    counts
}

fn support(options: SamplerOptions, logits: &[f32]) -> Vec<usize> {
    let counts = counts(options, logits, &[], 4000);
    (0..logits.len()).filter(|&i| counts[i] > 0).collect()
}

/// Chi-square of `counts` against `weights`, with the bound for its degrees of freedom at p = 1e-6.
fn check_distribution(counts: &[usize], weights: &[f64]) {
    let n: usize = counts.iter().sum();
    let total: f64 = weights.iter().sum();
    let mut chi = 0.0;
    for (&count, weight) in counts.iter().zip(weights) {
        let expected = weight / total * n as f64;
        if expected == 0.0 {
            assert_eq!(count, 0);
        } else {
            chi += (count as f64 - expected).powi(2) / expected;
        }
    }
    assert!(chi < 38.0, "chi-square {chi}: {counts:?}");
}

#[test]
fn greedy_takes_the_lowest_of_equals_and_no_random_number() {
    let mut sampler = Sampler::new(SamplerOptions::default()).unwrap();
    for _ in 0..3 {
        assert_eq!(sampler.next(&mut LOGITS.to_vec(), &[]).unwrap(), 1);
    }
    assert_eq!(sampler.random.clone().bits(), Random::new(0).bits());
}

#[test]
fn draws_follow_the_softmax_at_a_temperature() {
    for temperature in [0.5f32, 1.0, 2.0] {
        let counts = counts(SamplerOptions { temperature, ..options() }, &LOGITS, &[], 20_000);
        let weights = LOGITS.map(|l| (f64::from(l) / f64::from(temperature)).exp());
        check_distribution(&counts, &weights);
    }
}

#[test]
fn filtered_draws_keep_the_proportions_of_what_stays() {
    let counts = counts(SamplerOptions { top_k: 3, ..options() }, &LOGITS, &[], 20_000);
    let mut weights = LOGITS.map(|l| f64::from(l).exp());
    weights[2] = 0.0;
    weights[4] = 0.0;
    check_distribution(&counts, &weights);
}

#[test]
fn each_filter_leaves_exactly_its_support() {
    let p = [0.5f32, 0.25, 0.15, 0.1].map(f32::ln);
    assert_eq!(support(options(), &p), [0, 1, 2, 3]);
    assert_eq!(support(SamplerOptions { top_k: 2, ..options() }, &p), [0, 1]);
    assert_eq!(support(SamplerOptions { top_k: 9, ..options() }, &p), [0, 1, 2, 3]);
    // The token that crosses the limit stays.
    for (top_p, expected) in [(0.01, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (0.91, 4)] {
        assert_eq!(support(SamplerOptions { top_p, ..options() }, &p).len(), expected, "top-p {top_p}");
    }
    for (min_p, expected) in [(1.0, 1), (0.6, 1), (0.49, 2), (0.29, 3), (0.19, 4)] {
        assert_eq!(support(SamplerOptions { min_p, ..options() }, &p).len(), expected, "min-p {min_p}");
    }
    // Top-p counts what top-k left: 0.5 of 0.75 is two thirds.
    assert_eq!(support(SamplerOptions { top_k: 2, top_p: 0.6, ..options() }, &p), [0]);
    // Temperature comes before top-p and min-p: a flatter distribution keeps more.
    assert_eq!(support(SamplerOptions { temperature: 9.0, min_p: 0.6, ..options() }, &p), [0, 1, 2, 3]);
    // Equals are cut by id.
    assert_eq!(support(SamplerOptions { top_k: 2, ..options() }, &[0.0; 4]), [0, 1]);
}

#[test]
fn repetition_penalty_divides_above_zero_and_multiplies_below() {
    let penalty = SamplerOptions { repetition_penalty: 2.0, ..SamplerOptions::default() };
    let mut sampler = Sampler::new(penalty).unwrap();
    let mut logits = [4.0, 3.0, -1.0, -3.0];
    // A token counts once however often it was said, and ids outside of the vocabulary are ignored.
    assert_eq!(sampler.next(&mut logits, &[0, 0, 2, 99]).unwrap(), 1);
    assert_eq!(logits, [2.0, 3.0, -2.0, -3.0]);
    let window = SamplerOptions { repetition_window: 1, ..penalty };
    let mut logits = [4.0, 3.0];
    assert_eq!(Sampler::new(window).unwrap().next(&mut logits, &[0, 1]).unwrap(), 0);
    assert_eq!(logits, [4.0, 1.5]);
}

#[test]
fn seeds_reproduce_and_differ() {
    let draw = |seed| {
        let mut sampler = Sampler::new(SamplerOptions { seed, ..options() }).unwrap();
        (0..64).map(|_| sampler.next(&mut LOGITS.to_vec(), &[]).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn random_numbers_are_those_of_splitmix64() {
    // The first outputs for seed 1234567 that the algorithm's reference implementation gives.
    let mut random = Random::new(1_234_567);
    assert_eq!(random.bits(), 6_457_827_717_110_365_317);
    assert_eq!(random.bits(), 3_203_168_211_198_807_973);
}

#[test]
fn bad_logits_and_options_are_refused_with_advice() {
    let mut sampler = Sampler::new(SamplerOptions::default()).unwrap();
    let error = sampler.next(&mut [1.0, f32::NAN], &[]).unwrap_err().to_string();
    assert!(error.contains("token 1 is NaN") && error.contains("lsb validate"), "{error}");
    assert!(sampler.next(&mut [f32::INFINITY], &[]).unwrap_err().to_string().contains("inf"));
    assert!(sampler.next(&mut [], &[]).is_err());
    assert!(sampler.next(&mut [f32::NEG_INFINITY; 2], &[]).is_err());
    for (bad, name) in [
        (SamplerOptions { temperature: -1.0, ..options() }, "temperature"),
        (SamplerOptions { temperature: f32::NAN, ..options() }, "temperature"),
        (SamplerOptions { top_p: 0.0, ..options() }, "top-p"),
        (SamplerOptions { min_p: 1.5, ..options() }, "min-p"),
        (SamplerOptions { repetition_penalty: 0.0, ..options() }, "repetition penalty"),
    ] {
        let error = Sampler::new(bad).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
}

/// The text up to the stop string that is complete first, found by looking at every prefix.
fn naive(text: &str, stops: &[String]) -> (String, bool) {
    for end in (0..=text.len()).filter(|&n| text.is_char_boundary(n)) {
        let starts = stops.iter().filter(|s| !s.is_empty() && text[..end].ends_with(s.as_str()));
        if let Some(start) = starts.map(|s| end - s.len()).min() {
            return (text[..start].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

#[test]
fn stop_strings_are_never_shown_in_part() {
    let mut stops = StopStrings::new(["</s>", "\n\n"]);
    assert_eq!(stops.push("Hi <"), ("Hi ".to_owned(), false));
    assert_eq!(stops.push("/b>\n"), ("</b>".to_owned(), false));
    assert_eq!(stops.push("x</"), ("\nx".to_owned(), false));
    assert_eq!(stops.push("s> more"), (String::new(), true));
    assert_eq!((stops.push("again"), stops.finish()), ((String::new(), true), String::new()));
    let mut open = StopStrings::new(["abc", ""]);
    assert_eq!(open.push("ab"), (String::new(), false));
    assert_eq!(open.finish(), "ab");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn prop_stop_strings_match_naive(
        pieces in prop::collection::vec("[abé€]{0,4}", 0..8),
        stops in prop::collection::vec("[abé€]{0,4}", 0..4),
    ) {
        let expected = naive(&pieces.concat(), &stops);
        let mut finder = StopStrings::new(stops);
        let (mut shown, mut stopped) = (String::new(), false);
        for piece in &pieces {
            let (text, end) = finder.push(piece);
            shown += &text;
            stopped = end;
        }
        shown += &finder.finish();
        prop_assert_eq!((shown, stopped), expected);
    }
}
