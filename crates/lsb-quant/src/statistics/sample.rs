//! Some rows of a matrix, kept while it passes by.

use crate::{Error, MatrixInfo, Result, Span, to_f32};

/// Evenly spaced rows of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct RowSample {
    /// Numbers of the rows, rising.
    pub rows: Vec<u64>,
    /// Their weights, row-major.
    pub weights: Vec<f32>,
}

impl RowSample {
    /// An empty sample of about `weights` weights, at least one row.
    pub(super) fn new(matrix: &MatrixInfo, weights: usize) -> Self {
        let wanted = (weights as u64 / matrix.cols.max(1)).clamp(1, matrix.rows.max(1));
        // Rows in the middle of equal parts.
        let rows = (0..wanted).map(|i| (2 * i + 1) * matrix.rows / (2 * wanted));
        let rows: Vec<u64> = if matrix.rows == 0 { Vec::new() } else { rows.collect() };
        RowSample { weights: Vec::with_capacity(rows.len() * matrix.cols as usize), rows }
    }

    pub(super) fn observe(&mut self, span: &Span<'_>) -> Result<()> {
        let cols = span.matrix().cols.max(1);
        let elements = span.tiling().elements(span.tiles());
        let bits = span.matrix().dtype.bits();
        let byte = |element: u64| ((element - elements.start) * bits / 8) as usize;
        // A row may begin in one span and end in the next.
        let first = self.rows.partition_point(|&r| (r + 1) * cols <= elements.start);
        for &row in self.rows[first..].iter().take_while(|&&r| r * cols < elements.end) {
            let from = (row * cols).max(elements.start);
            let to = ((row + 1) * cols).min(elements.end);
            let values = to_f32(span.matrix().dtype, &span.bytes()[byte(from)..byte(to)]);
            if let Some(at) = values.iter().position(|x| !x.is_finite()) {
                return Err(Error::NonFinite { index: from + at as u64, value: values[at] });
            }
            self.weights.extend_from_slice(&values);
        }
        Ok(())
    }
}
