//! The tallies against direct computation over whole logits, however they are cut.

use super::kernel::{EXP_ERROR, exp};
use super::*;
use proptest::prelude::*;

/// Logits of `tokens` x `vocabulary`, and the same with noise.
fn logits(tokens: usize, vocabulary: usize, seed: u64, noise: f32) -> (Vec<f32>, Vec<f32>) {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let n = tokens * vocabulary;
    let a: Vec<f32> = (0..n).map(|_| 8.0 * (uniform() + uniform() + uniform()) - 3.0).collect();
    let b = a.iter().map(|x| x + noise * uniform()).collect();
    (a, b)
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().fold(f64::MIN, |m, &x| m.max(f64::from(x)));
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - max).exp()).sum();
    row.iter().map(|&x| f64::from(x) - max - sum.ln()).collect()
}

fn best_five(row: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    ids.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
    ids.truncate(5);
    ids
}

fn direct(a: &[f32], b: &[f32], target: usize) -> TokenComparison {
    let (p, q) = (log_softmax(a), log_softmax(b));
    let (top_a, top_b) = (best_five(a), best_five(b));
    let n = a.len() as f64;
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let (a, b) = (wide(a), wide(b));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let centred = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / n;
        x.iter().map(|x| x - mean).collect::<Vec<f64>>()
    };
    TokenComparison {
        original_nll: -p[target],
        nll: -q[target],
        kl: p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum(),
        top1: top_a[0] == top_b[0],
        top5: top_a.iter().filter(|id| top_b.contains(id)).count() as f32 / top_a.len() as f32,
        correlation: Some(cosine(&centred(&a), &centred(&b)) as f32),
        cosine: Some(cosine(&a, &b) as f32),
    }
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * b.abs().max(1.0)
}

/// Columns `first..last` of the rows of `tokens`.
fn tile(values: &[f32], vocabulary: usize, tokens: &std::ops::Range<usize>, ids: &[usize; 2]) -> Vec<f32> {
    tokens.clone().flat_map(|t| values[t * vocabulary..][ids[0]..ids[1]].to_vec()).collect()
}

fn assert_same(found: &TokenComparison, expected: &TokenComparison) {
    assert!(near(found.original_nll, expected.original_nll, 1e-10), "{found:?} {expected:?}");
    assert!(near(found.nll, expected.nll, 1e-10), "{found:?} {expected:?}");
    assert!(near(found.kl, expected.kl, 1e-10), "{found:?} {expected:?}");
    assert_eq!((found.top1, found.top5), (expected.top1, expected.top5));
    let float = |x: Option<f32>| f64::from(x.unwrap());
    assert!(near(float(found.correlation), float(expected.correlation), 1e-6), "{found:?} {expected:?}");
    assert!(near(float(found.cosine), float(expected.cosine), 1e-6), "{found:?} {expected:?}");
}

#[test]
fn exp_keeps_its_bound() {
    let mut worst = 0.0f64;
    for i in 0..700_000 {
        let x = -f64::from(i) / 1000.0 - 1e-4 * f64::from(i % 7);
        worst = worst.max((exp(x) / x.max(-700.0).exp() - 1.0).abs());
    }
    assert!(worst < EXP_ERROR, "{worst}");
    assert_eq!(exp(0.0), 1.0);
    assert!(exp(f64::NEG_INFINITY) < 1e-303);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn prop_tiles_of_any_size_give_the_figures_of_whole_logits(
        (tokens, vocabulary) in (1usize..7, 5usize..3000), seed in any::<u64>(), noise in 0.0f32..4.0,
        cuts in prop::collection::vec(0.0f64..1.0, 0..5), split in 0.0f64..1.0, backwards in any::<bool>(),
    ) {
        let (a, b) = logits(tokens, vocabulary, seed, noise);
        let targets: Vec<u32> = (0..tokens).map(|t| ((seed as usize % 97 + 31 * t) % vocabulary) as u32).collect();
        let mut edges: Vec<usize> = cuts.iter().map(|c| (c * vocabulary as f64) as usize).collect();
        edges.extend([0, vocabulary]);
        edges.sort_unstable();
        let mut ranges: Vec<[usize; 2]> = edges.windows(2).map(|e| [e[0], e[1]]).collect();
        if backwards {
            ranges.reverse();
        }
        let half = (split * tokens as f64) as usize;
        let (mut one, mut pair) = (LogitTally::new(targets.clone()), PairTally::new(targets.clone()));
        for ids in &ranges {
            for rows in [0..half, half..tokens] {
                let (a, b) = (tile(&a, vocabulary, &rows, ids), tile(&b, vocabulary, &rows, ids));
                one.observe(rows.clone(), ids[0], &a);
                pair.observe(rows, ids[0], &a, &b);
            }
        }
        let (one, pair) = (one.finish(), pair.finish());
        for t in 0..tokens {
            let row = |x: &[f32]| x[t * vocabulary..(t + 1) * vocabulary].to_vec();
            let expected = direct(&row(&a), &row(&b), targets[t] as usize);
            assert_same(&pair[t], &expected);
            prop_assert!(near(one[t].nll, expected.original_nll, 1e-10));
            prop_assert_eq!(&one[t].top[..], &best_five(&row(&a))[..]);
            prop_assert!(near(one[t].log_sum_exp - f64::from(row(&a)[targets[t] as usize]), one[t].nll, 1e-10));
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let (tokens, vocabulary) = (64, 2000);
    let (a, b) = logits(tokens, vocabulary, 7, 1.0);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut tally = PairTally::new(vec![3; tokens]);
            tally.observe(0..tokens, 0, &a, &b);
            tally.finish()
        })
    };
    assert_eq!(run(1), run(5));
}

#[test]
fn a_model_equals_itself_exactly() {
    let (a, _) = logits(5, 4000, 11, 0.0);
    let mut tally = PairTally::new(vec![17; 5]);
    tally.observe(0..5, 0, &a, &a);
    let tokens = tally.finish();
    let all = LogitComparison::of(&tokens, &[5]);
    assert_eq!((all.kl_mean, all.kl_max, all.ln_ratio, all.top1, all.top5), (0.0, 0.0, 0.0, 1.0, 1.0));
    assert_eq!((all.loss_percent(), all.broken_tokens), (0.0, 0));
    assert!((all.logit_correlation.unwrap() - 1.0).abs() < 1e-6);
    assert_eq!(all.original, all.model);
}

#[test]
fn far_apart_logits_neither_overflow_nor_vanish() {
    let (a, b) = ([1000.0f32, 0.0, -1000.0, 5.0, 4.0], [-1000.0f32, 0.0, 1000.0, 5.0, 4.0]);
    let mut tally = PairTally::new(vec![2]);
    // The largest logit comes last, so every sum is moved.
    tally.observe(0..1, 1, &a[1..], &b[1..]);
    tally.observe(0..1, 0, &a[..1], &b[..1]);
    let token = tally.finish()[0];
    assert_eq!((token.original_nll, token.nll, token.kl), (2000.0, 0.0, 2000.0));
}

#[test]
fn logits_that_are_no_numbers_make_figures_infinite_and_are_counted() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut broken = vec![0.5f32; 2000];
        broken[1500] = bad;
        let good = vec![0.5f32; 2000];
        let mut tally = PairTally::new(vec![3, 3]);
        tally.observe(0..1, 0, &good, &broken);
        tally.observe(1..2, 0, &good, &good);
        let tokens = tally.finish();
        assert!(near(tokens[0].original_nll, 2000f64.ln(), 1e-10), "{tokens:?}");
        assert_eq!(
            (tokens[0].nll, tokens[0].kl, tokens[0].correlation),
            (f64::INFINITY, f64::INFINITY, None)
        );
        let all = LogitComparison::of(&tokens, &[1, 1]);
        assert_eq!((all.broken_tokens, all.tokens), (1, 2));
        assert_eq!(
            (all.ln_ratio, all.kl_mean, all.model.perplexity),
            (f64::INFINITY, f64::INFINITY, f64::INFINITY)
        );
        let json = serde_json::to_value(&all).unwrap();
        assert!(json["kl_mean"].is_null() && json["model"]["perplexity"].is_null());
        assert_eq!(serde_json::from_value::<LogitComparison>(json).unwrap(), all);
        let mut tally = LogitTally::new(vec![3]);
        tally.observe(0..1, 0, &broken);
        assert_eq!(tally.finish()[0].nll, f64::INFINITY);
    }
}

#[test]
fn a_target_that_was_never_shown_has_no_figure() {
    let mut tally = LogitTally::new(vec![9]);
    tally.observe(0..1, 0, &[1.0, 2.0]);
    let token = tally.finish()[0];
    assert_eq!((token.nll, token.greedy(), token.top[2]), (f64::INFINITY, 1, u32::MAX));
    assert_eq!(PairTally::new(vec![0]).finish()[0].kl, f64::INFINITY);
}

#[test]
fn summaries_by_hand() {
    let token = |original_nll: f64, nll: f64, kl: f64, top1: bool| TokenComparison {
        original_nll,
        nll,
        kl,
        top1,
        top5: 0.6,
        correlation: Some(0.5),
        cosine: None,
    };
    let tokens = [token(1.0, 1.5, 0.1, true), token(2.0, 2.0, 0.3, false), token(3.0, 3.1, 0.2, true)];
    let all = LogitComparison::of(&tokens, &[2, 1]);
    assert!(near(all.original.nll, 2.0, 1e-15) && near(all.original.perplexity, 2f64.exp(), 1e-14));
    // Variance 1, so the error of the mean is 1/sqrt 3.
    assert!(near(all.original.standard_error, 2f64.exp() / 3f64.sqrt(), 1e-14));
    assert!(near(all.ln_ratio, 0.2, 1e-14) && near(all.loss_percent(), 100.0 * (0.2f64.exp() - 1.0), 1e-13));
    // Differences 0.5, 0, 0.1: deviations 0.3, -0.2, -0.1.
    assert!(near(all.ln_ratio_se, (0.14f64 / 6.0).sqrt(), 1e-14));
    // Windows (0.3 - 0.2) and -0.1: sqrt(2 * 0.02) / 3.
    assert!(near(all.ln_ratio_se_windows.unwrap(), 0.2 / 3.0, 1e-14));
    assert!(near(all.kl_mean, 0.2, 1e-15) && near(all.kl_median, 0.2, 1e-15));
    assert!(near(all.kl_p99, 0.298, 1e-14));
    assert_eq!((all.kl_max, all.tokens, all.kl_top), (0.3, 3, None));
    assert!(near(all.top1, 2.0 / 3.0, 1e-15) && near(all.top5, 0.6, 1e-7));
    assert_eq!((all.logit_correlation, all.logit_cosine), (Some(0.5), None));
    assert_eq!(LogitComparison::of(&tokens, &[3]).ln_ratio_se_windows, None);
}
