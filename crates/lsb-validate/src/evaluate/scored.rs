//! Where the tokens that count lie among those that are fed.

use crate::protocol::Window;
use lsb_model::Batch;
use std::ops::Range;

/// The scored tokens of all windows.
pub(super) struct Scored {
    /// For each window, its scored positions.
    windows: Vec<Range<usize>>,
    /// The ids that are to be predicted, window by window.
    pub(super) targets: Vec<u32>,
}

/// Scored tokens that lie side by side in one chunk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    /// The chunk.
    pub(super) chunk: usize,
    /// Its rows.
    pub(super) rows: Range<usize>,
    /// Their numbers among all scored tokens.
    pub(super) tokens: Range<usize>,
}

impl Scored {
    pub(super) fn new(windows: &[Window]) -> Scored {
        Scored {
            windows: windows.iter().map(|w| w.score.clone()).collect(),
            targets: windows.iter().flat_map(|w| w.targets.iter().copied()).collect(),
        }
    }

    /// The scored tokens in pieces of at most `most` tokens.
    pub(super) fn pieces(&self, batch: &Batch<'_>, most: usize) -> Vec<Piece> {
        pieces(&self.windows, batch.windows(), &batch.chunks(), most)
    }
}

/// `scored` are positions in windows; `windows` and `chunks` are ranges among all fed tokens.
fn pieces(
    scored: &[Range<usize>],
    windows: &[Range<usize>],
    chunks: &[Range<usize>],
    most: usize,
) -> Vec<Piece> {
    let mut out = Vec::new();
    for (chunk, fed) in chunks.iter().enumerate() {
        let mut before = 0;
        for (score, window) in scored.iter().zip(windows) {
            let all = window.start + score.start..window.start + score.end;
            let mut start = all.start.max(fed.start);
            let end = all.end.min(fed.end);
            while start < end {
                let n = most.min(end - start);
                let first = before + start - all.start;
                let row = start - fed.start;
                out.push(Piece { chunk, rows: row..row + n, tokens: first..first + n });
                start += n;
            }
            before += score.len();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scored_token_is_in_one_piece() {
        // Two windows in one chunk, one cut into two chunks.
        let scored = [1..3, 0..2, 2..9];
        let windows = [0..3, 3..6, 6..15];
        let chunks = [0..6, 6..12, 12..15];
        let found = pieces(&scored, &windows, &chunks, 3);
        let piece = |chunk, rows, tokens| Piece { chunk, rows, tokens };
        assert_eq!(
            found,
            [
                piece(0, 1..3, 0..2),
                piece(0, 3..5, 2..4),
                piece(1, 2..5, 4..7),
                piece(1, 5..6, 7..8),
                piece(2, 0..3, 8..11),
            ]
        );
    }
}
