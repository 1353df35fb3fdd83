//! The factor of all inputs of a map: in one piece, or in blocks where memory is short.

use super::drift::Change;
use super::{FactorReport, Moments, UpperFactor};
use crate::Result;
use half::bf16;
use std::ops::Range;
use std::sync::Arc;

/// The order in which error feedback takes columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColumnOrder {
    /// As they are stored.
    Stored,
    /// Inputs with the largest mean squares first (`act-order`).
    #[default]
    Falling,
}

/// The factors of blocks of inputs, in the order in which columns are taken.
///
/// Between blocks nothing is fed back: the fewer, the better.
#[derive(Clone, Debug, PartialEq)]
pub struct InputFactor {
    order: Vec<usize>,
    blocks: Vec<(usize, UpperFactor)>,
    /// Number of the block of each place.
    block_of: Vec<u32>,
    /// How weights make up for drifted inputs, block by block; empty where they do not.
    changes: Vec<Change>,
    report: FactorReport,
}

impl InputFactor {
    /// Every column counts the same and nothing is fed back.
    pub fn identity(n: usize) -> Self {
        let blocks = (0..n).map(|i| (i, UpperFactor::identity(1))).collect();
        let report = FactorReport { damping: 0.0, dead: 0, blocks: n };
        InputFactor {
            order: (0..n).collect(),
            blocks,
            block_of: (0..n as u32).collect(),
            changes: Vec::new(),
            report,
        }
    }

    /// One factor of inputs as they are stored.
    pub fn whole(factor: UpperFactor) -> Self {
        let n = factor.len();
        let report = FactorReport { damping: 0.0, dead: 0, blocks: 1 };
        InputFactor {
            order: (0..n).collect(),
            blocks: vec![(0, factor)],
            block_of: vec![0; n],
            changes: Vec::new(),
            report,
        }
    }

    /// Factors `moments` with columns in `order`, in blocks of equal size, as few as their memory allows. `damping` as
    /// for [`UpperFactor::new`]. Where all inputs were zero it is the identity.
    ///
    /// # Errors
    /// As [`UpperFactor::new`], and where moments cannot be had.
    pub fn new(moments: &dyn Moments, damping: f64, order: ColumnOrder) -> Result<Self> {
        let _phase = tracing::debug_span!("factorization").entered();
        let diagonal = moments.diagonal();
        let n = diagonal.len();
        let mut columns: Vec<usize> = (0..n).collect();
        if order == ColumnOrder::Falling {
            columns.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]).then(a.cmp(&b)));
        }
        let count = n.div_ceil(moments.block_limit().max(1)).max(1);
        let size = n.div_ceil(count).max(1);
        let mut out = InputFactor {
            order: columns,
            blocks: Vec::with_capacity(count),
            block_of: Vec::with_capacity(n),
            changes: Vec::new(),
            report: FactorReport { damping, dead: 0, blocks: count },
        };
        // A block of faint inputs is damped as the whole is.
        let mean = diagonal.iter().map(|&d| f64::from(d)).sum::<f64>() / n.max(1) as f64;
        if mean == 0.0 {
            // Inputs that were zero throughout tell nothing: each is taken to count the same.
            let identity = Self::identity(n);
            return Ok(InputFactor { report: FactorReport { dead: n, ..identity.report }, ..identity });
        }
        for (i, columns) in out.order.chunks(size).enumerate() {
            let (factor, report) =
                UpperFactor::with_mean(moments.block(columns)?, columns.len(), damping, mean)?;
            out.report.damping = out.report.damping.max(report.damping);
            out.report.dead += report.dead;
            if let Some(drift) = moments.drift(columns)? {
                out.changes.push(Change::new(&drift, &factor));
            }
            out.block_of.resize(out.block_of.len() + columns.len(), i as u32);
            out.blocks.push((i * size, factor));
        }
        Ok(out)
    }

    /// The same, or the factor that a map with the same inputs has just left.
    ///
    /// # Errors
    /// As [`InputFactor::new`].
    pub fn shared(moments: &dyn Moments, damping: f64, order: ColumnOrder) -> Result<Arc<Self>> {
        let make = || Self::new(moments, damping, order);
        match moments.last_factor() {
            Some((last, id)) => last.or_make(id, damping, order, make),
            None => Ok(Arc::new(make()?)),
        }
    }

    /// Inputs.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True where there are no inputs.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Columns in the order they are taken.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// What it took.
    pub fn report(&self) -> FactorReport {
        self.report
    }

    /// `U_ii` of the column at place `i` of the order.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn diagonal(&self, i: usize) -> f32 {
        let (first, factor) = &self.blocks[self.block_of[i] as usize];
        factor.diagonal(i - first)
    }

    /// `U_ij` for all places `j` of the block of place `i`, zero before `i`.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn row(&self, i: usize) -> &[f32] {
        let (first, factor) = &self.blocks[self.block_of[i] as usize];
        factor.row(i - first)
    }

    /// How much of the weights of each input of its block is added to those of the input at place `i`, so that drifted inputs
    /// give the outputs of the original; `None` where weights stay what they are.
    ///
    /// # Panics
    /// If there is no such place.
    pub(crate) fn change(&self, i: usize) -> Option<&[bf16]> {
        let block = self.block_of[i] as usize;
        Some(self.changes.get(block)?.column(i - self.blocks[block].0))
    }

    /// `w H w^T` with the damped moments `H` of which this is the factor: the mean square of the output of a row `w`, whose
    /// weights come as they are stored.
    ///
    /// # Panics
    /// If there is not a weight for each input.
    pub fn power(&self, row: &[f32]) -> f64 {
        assert_eq!(row.len(), self.len(), "a weight for each input");
        self.blocks
            .iter()
            .map(|(first, factor)| {
                // With H = U^-1 U^-T it is the square of the solution of U^T z = w.
                let mut z: Vec<f64> =
                    self.order[*first..first + factor.len()].iter().map(|&c| f64::from(row[c])).collect();
                let mut sum = 0.0;
                for i in 0..z.len() {
                    let u = factor.row(i);
                    z[i] /= f64::from(u[i]);
                    let at = z[i];
                    sum += at * at;
                    z[i + 1..].iter_mut().zip(&u[i + 1..]).for_each(|(z, &u)| *z -= at * f64::from(u));
                }
                sum
            })
            .sum()
    }

    /// The places of each block, in order.
    pub fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        self.blocks.iter().map(|(first, factor)| *first..first + factor.len())
    }
}
