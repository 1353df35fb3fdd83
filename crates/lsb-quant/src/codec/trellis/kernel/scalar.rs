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
        // What waits for nothing, and what only waits for its own lane, goes through all lanes at once.
        let mut which = [0; LANES];
        for lane in 0..LANES {
            let class = (term + cols[lane]).min(caps[lane]).max(0);
            which[lane] = 2 * class as u16 + trellis[lane].set();
        }
        let mut symbols = [0; LANES];
        let mut taken = 0;
        for lane in 0..LANES {
            let which = usize::from(which[lane]);
            let (symbol, state) = code.tables[which].step(run.states[lane], || &code.alphabets[which]);
            symbols[lane] = u16::from(symbol);
            // The word is read whether the lane takes it or not: a branch here would be guessed wrong at every fourth
            // symbol or so.
            let refilled = state << 16 | u32::from(u16::from_le_bytes(window[taken % LANES]));
            let low = state < LOW;
            run.states[lane] = if low { refilled } else { state };
            taken += usize::from(low);
        }
        let mut least = 0;
        for lane in 0..LANES {
            let level = level_of(trellis[lane].set(), symbols[lane]);
            levels[lane] = level;
            least = level.min(least);
            trellis[lane] = trellis[lane].next(code.taps, symbols[lane]);
        }
        *lowest = least.min(*lowest);
        let Some(left) = words.get(taken..) else {
            return Err(Error::corruption("P51", format!("entropy-coded run: no word left in row {row}")));
        };
        words = left;
    }
    let taken = run.words().len() - words.len();
    run.take(taken);
    Ok(())
}
