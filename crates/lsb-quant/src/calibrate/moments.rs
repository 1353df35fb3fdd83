//! Second moments of inputs, wherever they lie.

use super::{InputsId, LastFactor};
use crate::Result;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// The second moments `H = mean(x x^T)` of a linear map's inputs `x`.
pub trait Moments: Debug + Send + Sync {
    /// Mean squares of the inputs: the diagonal of `H`.
    fn diagonal(&self) -> &[f32];

    /// `H` restricted to the inputs `columns`, row-major, both triangles.
    ///
    /// # Errors
    /// If they cannot be read or computed.
    fn block(&self, columns: &[usize]) -> Result<Vec<f32>>;

    /// Rows `rows` of the upper triangle of `H`, one after the other, each from its diagonal to its end.
    ///
    /// # Errors
    /// If they cannot be read or computed.
    fn upper(&self, rows: Range<usize>) -> Result<Vec<f32>>;

    /// How far the original map's inputs `x` are from the inputs `x'` these moments are of, `mean((x - x') x'^T)` for the
    /// inputs `columns`, row-major, as far as weights should make up for it; `None` where nothing is known of that.
    ///
    /// # Errors
    /// If they cannot be read or computed.
    fn drift(&self, columns: &[usize]) -> Result<Option<Vec<f32>>> {
        let _ = columns;
        Ok(None)
    }

    /// Where the factor is kept for other maps with the same inputs, and what these are known by there; `None` where every map
    /// makes its own.
    fn last_factor(&self) -> Option<(&LastFactor, InputsId)> {
        None
    }

    /// Inputs whose moments and factor fit into memory together; more are taken in blocks that know nothing of each other.
    fn block_limit(&self) -> usize {
        usize::MAX
    }
}

/// Second moments in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseMoments {
    n: usize,
    values: Vec<f32>,
    diagonal: Vec<f32>,
    drift: Option<Vec<f32>>,
    block_limit: usize,
}

impl DenseMoments {
    /// Moments `values`, symmetric, `n` x `n`, row-major.
    ///
    /// # Panics
    /// If there are not `n * n` values.
    pub fn new(values: Vec<f32>, n: usize) -> Self {
        assert_eq!(values.len(), n * n, "a square matrix");
        let diagonal = values.iter().step_by(n + 1).copied().collect();
        DenseMoments { n, values, diagonal, drift: None, block_limit: usize::MAX }
    }

    /// With blocks of at most `limit` inputs.
    #[must_use]
    pub fn with_block_limit(mut self, limit: usize) -> Self {
        self.block_limit = limit.max(1);
        self
    }

    /// With the drift of the inputs, `n` x `n`, row-major.
    ///
    /// # Panics
    /// If there are not `n * n` values.
    #[must_use]
    pub fn with_drift(mut self, drift: Vec<f32>) -> Self {
        assert_eq!(drift.len(), self.n * self.n, "a square matrix");
        self.drift = Some(drift);
        self
    }
}

impl Moments for DenseMoments {
    fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }

    fn block(&self, columns: &[usize]) -> Result<Vec<f32>> {
        let row = |&i: &usize| columns.iter().map(move |&j| self.values[i * self.n + j]);
        Ok(columns.iter().flat_map(row).collect())
    }

    fn upper(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        Ok(rows.flat_map(|i| &self.values[i * self.n + i..(i + 1) * self.n]).copied().collect())
    }

    fn drift(&self, columns: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some(drift) = &self.drift else { return Ok(None) };
        let row = |&i: &usize| columns.iter().map(move |&j| drift[i * self.n + j]);
        Ok(Some(columns.iter().flat_map(row).collect()))
    }

    fn block_limit(&self) -> usize {
        self.block_limit
    }
}

/// What calibration knows of one linear map y = W x, W of shape `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// Second moments of its inputs.
    pub inputs: Arc<dyn Moments>,
    /// What a unit of squared error of each output costs, in any common unit; all the same where absent.
    pub outputs: Option<Arc<[f64]>>,
    /// Whether these costs are those of errors in units of the map's mean squared output.
    pub relative: bool,
}
