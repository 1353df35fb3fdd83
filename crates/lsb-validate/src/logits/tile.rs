//! A tile of logits, some tokens by some ids, and how tokens share the threads.

use rayon::prelude::*;
use std::ops::Range;

/// Logits worth a task of their own.
const TASK: usize = 16 * 1024;

/// Columns of a tile of `values` for `tokens`, row-major.
///
/// # Panics
/// If the tokens are not among `all`, the values are no rectangle, or an id does not fit 32 bits.
fn columns(all: usize, tokens: &Range<usize>, first: usize, values: &[f32]) -> usize {
    assert!(tokens.start <= tokens.end && tokens.end <= all, "tokens {tokens:?} of {all}");
    let columns = values.len().checked_div(tokens.len()).unwrap_or(0);
    assert_eq!(columns * tokens.len(), values.len(), "{} logits for {} tokens", values.len(), tokens.len());
    assert!(first + columns <= u32::MAX as usize, "ids {first}..{}", first + columns);
    columns
}

/// Calls `f` with each token's index, state and row of the tile, in parallel where it pays. Each token is
/// one thread's, so no sum depends on their number.
///
/// # Panics
/// As [`columns`].
pub(super) fn for_each_row<T: Send>(
    states: &mut [T],
    tokens: Range<usize>,
    first: usize,
    values: &[f32],
    f: impl Fn(usize, &mut T, &[f32]) + Sync + Send,
) {
    let columns = columns(states.len(), &tokens, first, values);
    if columns == 0 {
        return;
    }
    let start = tokens.start;
    states[tokens]
        .par_iter_mut()
        .zip(values.par_chunks(columns))
        .enumerate()
        .with_min_len((TASK / columns).max(1))
        .for_each(|(i, (state, row))| f(start + i, state, row));
}
