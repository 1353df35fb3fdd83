//! The specification.

use super::{Code, Escape, Progress};
use crate::codec::trellis::shape::level_of;
use lsb_format::Result;
use lsb_format::entropy::{Context, LANES, RunDecoder};

/// Decodes all steps that are left.
///
/// # Errors
/// If there are too few words.
pub(super) fn decode(run: &mut RunDecoder<'_>, code: &Code<'_>, progress: &mut Progress<'_>) -> Result<()> {
    let first = LANES * progress.step;
    let restart = code.restart.saturating_mul(LANES);
    // The end of the column that is being decoded.
    let end = (first / restart + 1).saturating_mul(restart);
    let mut symbols = vec![0; LANES * code.map.len() - first];
    let mut lanes = Lanes { code, end, restart, progress };
    run.decode(code.tables, &mut lanes, first, &mut symbols)?;
    progress.step = code.map.len();
    Ok(())
}

/// What the trellis knows while symbols are decoded.
struct Lanes<'a, 'c, 'p> {
    code: &'a Code<'c>,
    /// The symbol before which all lanes start again.
    end: usize,
    restart: usize,
    progress: &'a mut Progress<'p>,
}

impl Context for Lanes<'_, '_, '_> {
    #[inline(always)]
    fn table(&self, i: usize) -> usize {
        let class = self.code.map[i / LANES][i % LANES];
        2 * usize::from(class) + self.code.machine.set(self.progress.states[i % LANES])
    }

    #[inline(always)]
    fn update(&mut self, i: usize, symbol: u8) {
        let machine = self.code.machine;
        let state = &mut self.progress.states[i % LANES];
        let set = machine.set(*state);
        self.progress.levels[i / LANES][i % LANES] = level_of(set, symbol);
        if symbol < 2 {
            self.progress.escapes.push(Escape { at: i, set: set as u8, symbol });
        }
        *state = machine.next(*state, symbol & 1);
        if i + 1 == self.end {
            self.progress.states = [0; LANES];
            self.end = self.end.saturating_add(self.restart);
        }
    }
}
