//! The specification.

use super::Stream;
use crate::codec::trellis::shape::level_of;
use lsb_format::entropy::{LANES, LOW};
use lsb_format::{Error, Result};

/// Decodes the group of a tile from `row` on.
///
/// # Errors
/// If there are too few words.
pub(super) fn decode(stream: &mut Stream<'_>, row: usize) -> Result<()> {
    let Stream { code, run, trellis, group, lowest, levels, .. } = stream;
    let (cols, caps) = (code.cols[*group], code.caps(*group));
    let mut words = run.words();
    for (row, (&term, levels)) in code.rows.iter().zip(levels.iter_mut()).enumerate().skip(row) {
        // The words of a whole step, as many of them as there are.
        let mut window = [[0; 2]; LANES];
        let there = words.len().min(LANES);
        window[..there].copy_from_slice(&words[..there]);
        let mut taken = 0;
        for lane in 0..LANES {
            let class = (term + cols[lane]).clamp(0, caps[lane]) as usize;
            let set = trellis[lane].set();
            let (symbol, state) = code.tables[2 * class + set].step(run.states[lane]);
            // The word is read whether the lane takes it or not: a branch here would be guessed wrong at every fourth
            // symbol or so.
            let refilled = state << 16 | u32::from(u16::from_le_bytes(window[taken % LANES]));
            let low = state < LOW;
            run.states[lane] = if low { refilled } else { state };
            taken += usize::from(low);
            trellis[lane] = trellis[lane].next(code.taps, symbol.into());
            levels[lane] = level_of(set, symbol) as i16;
            *lowest = levels[lane].min(*lowest);
        }
        let Some(left) = words.get(taken..) else {
            return Err(Error::corruption("P51", format!("entropy-coded run: no word left in row {row}")));
        };
        words = left;
    }
    let taken = run.words().len() - words.len();
    run.take(taken);
    Ok(())
}
