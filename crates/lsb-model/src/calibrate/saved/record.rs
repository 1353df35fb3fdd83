//! What the header of a file of statistics says, and how its tensors are called.

use serde::{Deserialize, Serialize};

/// The entry of a header's metadata that tells files of statistics from all others; its value is a [`Record`] in JSON.
pub(super) const KEY: &str = "lsb.calibration";

/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// What the statistics are of, and which tensor belongs to what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// [`VERSION`] of whoever wrote it.
    pub(super) version: u32,
    /// Fingerprint of the model.
    pub(super) model: String,
    /// BLAKE3 of the text.
    pub(super) text: String,
    /// Tokens of it that were used.
    pub(super) tokens: usize,
    /// Tokens of the longest sequence.
    pub(super) seqlen: usize,
    /// Seed of everything random.
    pub(super) seed: u64,
    /// What a reader of a report should know.
    pub(super) notes: Vec<String>,
    /// Every different input, in the order of the data.
    pub(super) inputs: Vec<InputRecord>,
    /// Every tensor that is calibrated, in the order a pass uses them.
    pub(super) maps: Vec<MapRecord>,
}

/// An input that one or more maps share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct InputRecord {
    /// The map it is called after.
    pub(super) name: String,
    /// BLAKE3 of its moments' bytes.
    pub(super) moments: String,
    /// BLAKE3 of its mean squares' bytes.
    pub(super) diagonal: String,
}

/// A linear map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct MapRecord {
    /// Its tensor in the model.
    pub(super) tensor: String,
    /// Number of its input in [`Record::inputs`].
    pub(super) input: usize,
    /// Whether costs are those of errors in units of the map's mean squared output.
    pub(super) relative: bool,
    /// BLAKE3 of the costs' bytes; `None` where all outputs count the same.
    pub(super) outputs: Option<String>,
}

impl InputRecord {
    /// The tensor of the packed upper triangle of `H`, f32, `[n (n + 1) / 2]`.
    pub(super) fn moments_tensor(&self) -> String {
        format!("moments.{}", self.name)
    }

    /// The tensor of mean squares, f32, `[n]`.
    pub(super) fn diagonal_tensor(&self) -> String {
        format!("diagonal.{}", self.name)
    }
}

impl MapRecord {
    /// The tensor of what errors of outputs cost, f64, `[rows]`.
    pub(super) fn outputs_tensor(&self) -> String {
        format!("outputs.{}", self.tensor)
    }
}

/// Entries of the upper triangle of an `n` x `n` matrix; `None` where that cannot be counted.
pub(super) fn triangle(n: u64) -> Option<u64> {
    n.checked_mul(n.checked_add(1)?).map(|x| x / 2)
}

/// Where row `i` of the packed upper triangle of an `n` x `n` matrix begins, for `i <= n`.
pub(super) fn row_start(n: u64, i: u64) -> u64 {
    // Rows before it have n, n - 1, ... entries; of `i` and `2 n + 1 - i` one is even.
    i * (2 * n + 1 - i) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_triangle_lie_one_behind_the_other() {
        let n = 7;
        let mut at = 0;
        for i in 0..=n {
            assert_eq!(row_start(n, i), at);
            at += n - i;
        }
        assert_eq!(triangle(n), Some(row_start(n, n)));
        assert_eq!((triangle(0), triangle(u64::MAX)), (Some(0), None));
    }
}
