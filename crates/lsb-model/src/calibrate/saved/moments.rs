//! Second moments that lie in a file of statistics.

use super::read::StatisticsFile;
use super::record::row_start;
use lsb_quant::calibrate::Moments;
use std::ops::Range;
use std::sync::Arc;

/// The moments of one input: mean squares in memory, the rest read when it is asked for.
#[derive(Debug)]
pub(super) struct SavedMoments {
    file: Arc<StatisticsFile>,
    input: usize,
    diagonal: Vec<f32>,
    block_limit: usize,
}

impl SavedMoments {
    /// The moments of input number `input`, with blocks of at most `block_limit` inputs.
    ///
    /// # Errors
    /// If the mean squares cannot be read or are none.
    pub(super) fn new(
        file: Arc<StatisticsFile>,
        input: usize,
        block_limit: usize,
    ) -> lsb_stream::Result<Self> {
        let diagonal = file.diagonal(input)?;
        Ok(SavedMoments { file, input, diagonal, block_limit })
    }

    fn read(&self, first: u64, out: &mut [f32]) -> lsb_quant::Result<()> {
        self.file.moments(self.input, first, out).map_err(|e| {
            lsb_quant::Error::Payload(match e {
                lsb_stream::Error::Input(e) => e,
                other => lsb_format::Error::argument(other.to_string()),
            })
        })
    }
}

impl Moments for SavedMoments {
    fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }

    fn block(&self, columns: &[usize]) -> lsb_quant::Result<Vec<f32>> {
        let (n, m) = (self.diagonal.len(), columns.len());
        let last = columns.iter().copied().max().unwrap_or(0);
        if last >= n && m > 0 {
            let message = format!("input {last} of {n}");
            return Err(lsb_quant::Error::Payload(lsb_format::Error::argument(message)));
        }
        let mut out = vec![0.0; m * m];
        let mut row = Vec::new();
        for (a, &i) in columns.iter().enumerate() {
            row.resize(last - i + 1, 0.0);
            self.read(row_start(n as u64, i as u64), &mut row)?;
            for (b, &j) in columns.iter().enumerate().filter(|(_, j)| **j >= i) {
                out[a * m + b] = row[j - i];
                out[b * m + a] = row[j - i];
            }
        }
        Ok(out)
    }

    fn upper(&self, rows: Range<usize>) -> lsb_quant::Result<Vec<f32>> {
        let n = self.diagonal.len() as u64;
        let (first, end) = (row_start(n, rows.start as u64), row_start(n, rows.end as u64));
        let mut out = vec![0.0; end.saturating_sub(first) as usize];
        self.read(first, &mut out)?;
        Ok(out)
    }

    fn block_limit(&self) -> usize {
        self.block_limit
    }
}
