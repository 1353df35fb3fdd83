//! From a size in bytes to one configuration per tensor: convex hulls and steepest descent.
//!
//! Without calibration every tensor is expected to suffer like Gaussian weights, so the sum to make small is
//! `weights x relative error` over all tensors. Along the lower convex hull of each tensor's choices,
//! taking the steepest step first is optimal up to the last step (the Lagrangian argument); the rest of the
//! budget goes to the next steps that still fit.

use super::assign::{Assignment, build};
use crate::{CompressConfig, Error, Result};
use lsb_quant::{Quantizer, Registry};
use std::sync::Arc;

/// One way to store a tensor.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) assignment: Assignment,
    pub(super) bytes: f64,
    /// Expected squared error in units of a weight's variance, summed over the tensor.
    pub(super) error: f64,
}

/// Every configuration a target may choose from: the ladders of the codecs asked for, or all ladders.
pub(super) fn menu(config: &CompressConfig, registry: &Registry) -> Result<Vec<Arc<dyn Quantizer>>> {
    let asked: Vec<&String> = config.codec.iter().chain(&config.codecs).collect();
    if asked.is_empty() {
        let entries = registry.entries().iter();
        return entries
            .flat_map(|e| e.ladder.iter().map(|step| format!("{}:{step}", e.id)))
            .map(|text| build(config, registry, &text))
            .collect();
    }
    let mut out = Vec::new();
    for text in asked {
        out.extend(ladder(config, registry, text)?);
    }
    Ok(out)
}

/// A codec and its ladder, as far as that leaves what the user fixed.
fn ladder(config: &CompressConfig, registry: &Registry, text: &str) -> Result<Vec<Arc<dyn Quantizer>>> {
    let usage = |e: lsb_quant::Error| Error::Config(e.to_string());
    let (id, given) = registry.parse_parts(text).map_err(usage)?;
    let entry = registry.entry(&id).map_err(usage)?;
    let mut out = vec![build(config, registry, text)?];
    for step in entry.ladder {
        let mut parameters = lsb_quant::Parameters::parse(&id, step).map_err(usage)?;
        // What the user fixed stays fixed.
        for (name, value) in given.iter() {
            parameters.set(name, value.clone());
        }
        let built = build(config, registry, &format!("{id}:{parameters}"))?;
        if out.iter().all(|q| q.parameters() != built.parameters()) {
            out.push(built);
        }
    }
    Ok(out)
}

/// The lower convex hull of the choices in the plane of bytes and error, from small to large.
pub(super) fn hull(mut choices: Vec<Choice>) -> Vec<Choice> {
    choices.sort_by(|a, b| a.bytes.total_cmp(&b.bytes).then(a.error.total_cmp(&b.error)));
    let mut out: Vec<Choice> = Vec::new();
    for choice in choices {
        if out.last().is_some_and(|last| choice.error >= last.error) {
            continue;
        }
        while let [.., a, b] = out.as_slice()
            && slope(a, b) <= slope(b, &choice)
        {
            out.pop();
        }
        out.push(choice);
    }
    out
}

/// Error saved per byte between two neighbours of a hull.
fn slope(a: &Choice, b: &Choice) -> f64 {
    (a.error - b.error) / (b.bytes - a.bytes)
}

/// One choice per hull, so that the bytes sum to at most `budget` and the error is as small as steepest
/// descent makes it.
///
/// # Errors
/// The smallest possible sum, where that is above the budget.
pub(super) fn pick(hulls: &[Vec<Choice>], budget: f64) -> Result<Vec<usize>, f64> {
    let mut picked = vec![0; hulls.len()];
    let mut used: f64 = hulls.iter().filter_map(|h| h.first()).map(|c| c.bytes).sum();
    if used > budget {
        return Err(used);
    }
    let mut steps: Vec<(f64, usize, usize)> = Vec::new();
    for (h, hull) in hulls.iter().enumerate() {
        steps.extend(hull.windows(2).enumerate().map(|(i, w)| (slope(&w[0], &w[1]), h, i + 1)));
    }
    // Equal slopes go to the earlier tensor, and along a hull from coarse to fine.
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    for (_, h, step) in steps {
        let more = hulls[h][step].bytes - hulls[h][step - 1].bytes;
        if picked[h] + 1 == step && used + more <= budget {
            picked[h] = step;
            used += more;
        }
    }
    Ok(picked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsb_quant::Estimate;
    use proptest::prelude::*;

    fn choice(bytes: f64, error: f64) -> Choice {
        let quantizer = Registry::standard().parse("raw").unwrap();
        let estimate = Estimate { bytes, snr_db: 0.0 };
        Choice {
            assignment: Assignment { quantizer, estimate, reason: String::new(), others: Vec::new() },
            bytes,
            error,
        }
    }

    proptest! {
        #[test]
        fn prop_hull_is_convex_and_keeps_the_extremes(points in prop::collection::vec((1u32..1000, 0u32..1000), 1..20)) {
            let all: Vec<Choice> = points.iter().map(|&(b, e)| choice(b.into(), e.into())).collect();
            let least = all.iter().map(|c| c.error).fold(f64::INFINITY, f64::min);
            let hull = hull(all);
            prop_assert_eq!(hull.last().unwrap().error, least);
            for w in hull.windows(3) {
                prop_assert!(slope(&w[0], &w[1]) > slope(&w[1], &w[2]));
            }
        }

        #[test]
        fn prop_pick_stays_inside_the_budget_and_uses_it(sizes in prop::collection::vec(1u32..50, 1..10), budget in 0f64..3000.0) {
            let hulls: Vec<Vec<Choice>> = sizes
                .iter()
                .map(|&n| hull((1..=6).map(|k| choice(f64::from(n * k), f64::from(n) / 4f64.powi(k as i32))).collect()))
                .collect();
            let smallest: f64 = hulls.iter().map(|h| h[0].bytes).sum();
            match pick(&hulls, budget) {
                Err(s) => prop_assert!(s == smallest && s > budget),
                Ok(picked) => {
                    let used: f64 = picked.iter().zip(&hulls).map(|(&p, h)| h[p].bytes).sum();
                    prop_assert!(used <= budget);
                    let largest_step = f64::from(*sizes.iter().max().unwrap());
                    let full = picked.iter().zip(&hulls).all(|(&p, h)| p + 1 == h.len());
                    prop_assert!(full || used > budget - largest_step);
                }
            }
        }
    }
}
