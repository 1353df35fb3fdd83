//! Searches over losses that follow a formula.

use super::*;
use proptest::prelude::*;

fn search(limit: f64, loss: impl Fn(f64) -> f64) -> SearchReport {
    smallest_rate::<()>(limit, &mut |bpw| Ok(loss(bpw))).unwrap()
}

proptest! {
    #[test]
    fn prop_the_limit_is_kept_and_nearly_used(at_three in 0.001f64..0.5, slope in 0.9f64..1.8, limit in 0.003f64..0.1) {
        let loss = |bpw: f64| at_three * (-slope * (bpw - 3.0)).exp();
        let found = search(limit, loss);
        let best = (3.0 + (at_three / limit).ln() / slope).max(RANGE.0);
        // A rate at the very end of the range may be found or not: the loss there is the limit up to rounding.
        prop_assume!((best - RANGE.1).abs() > 1e-9);
        let Some(bpw) = found.bpw else {
            prop_assert!(best > RANGE.1, "{best} {:?}", found.steps);
            return Ok(());
        };
        prop_assert!(loss(bpw) <= limit);
        prop_assert!(bpw - best < 0.06, "{bpw} {best} {:?}", found.steps);
        prop_assert!(found.steps.len() <= MOST);
    }
}

#[test]
fn a_limit_out_of_reach_is_said() {
    let found = search(0.01, |_| 0.02);
    assert_eq!(found.bpw, None);
    assert_eq!(found.steps.last().unwrap().bpw, RANGE.1);
    // A loss below nothing is noise.
    assert_eq!(search(0.01, |_| -0.001).bpw, Some(RANGE.0));
}

#[test]
fn errors_end_the_search() {
    assert_eq!(smallest_rate(0.01, &mut |_| Err("broken")), Err("broken"));
}
