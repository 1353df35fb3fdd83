//! Means, their standard errors, and quantiles. What is not a number makes the answer infinite, never NaN.

/// Mean of `values`, in order; infinite where it is not a number.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), x| (sum + x, n + 1));
    finite_or_infinite(sum / n as f64)
}

/// Standard error of the mean of `values`, taken as independent: `sqrt(sum (x - mean)² / (n (n - 1)))`.
/// Infinite for less than two.
pub(crate) fn standard_error(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let mean = mean(values.clone());
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), x| (sum + (x - mean) * (x - mean), n + 1));
    finite_or_infinite((sum / (n as f64 * (n as f64 - 1.0))).sqrt())
}

/// Standard error of the mean of `values` that may depend on each other within a group and not across:
/// `sqrt(G / (G - 1) sum_g (sum_{i in g} (x_i - mean))²) / n` over the `G` groups. With one value per group
/// this is [`standard_error`]. `groups` holds the size of each, in order, and sums to the number of values.
pub(super) fn grouped_standard_error(values: &[f64], groups: &[usize]) -> f64 {
    let mean = mean(values.iter().copied());
    let (mut sum, mut rest) = (0.0, values);
    for &size in groups {
        let (group, after) = rest.split_at(size.min(rest.len()));
        let deviation: f64 = group.iter().map(|x| x - mean).sum();
        sum += deviation * deviation;
        rest = after;
    }
    let n_groups = groups.len() as f64;
    finite_or_infinite((n_groups / (n_groups - 1.0) * sum).sqrt() / values.len() as f64)
}

/// The quantile `share` of sorted values, straight between neighbours (as NumPy's default). Infinite for none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::INFINITY };
    let at = share * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let (a, b) = (sorted[low.min(last)], sorted[(low + 1).min(last)]);
    // A straight line to infinity is not a number.
    if part == 0.0 || a == b { a } else { a + part * (b - a) }
}

/// The value, or infinity for what is not a number.
pub(super) fn finite_or_infinite(x: f64) -> f64 {
    if x.is_finite() { x } else { f64::INFINITY }
}
