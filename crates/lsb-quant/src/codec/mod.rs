//! Every codec, one folder each. The list in `all` is the only place that names them all.

mod bitstream;
mod divided;
mod feedback;
#[cfg(test)]
mod frozen;
mod gaussian_table;
pub mod gptq;
mod grouped;
mod kernel;
mod least_squares;
pub mod lossless;
pub mod outlier_binary;
mod payload;
pub mod raw;
pub mod residual_binary;
pub mod rtn;
mod signs;
mod sums;
pub mod ternary;
pub mod trellis;

use crate::{CodecEntry, Error, MatrixInfo, Result};

/// One line per codec.
pub(crate) fn all() -> Vec<CodecEntry> {
    vec![
        raw::entry(),
        lossless::entry(),
        outlier_binary::entry(),
        residual_binary::entry(),
        ternary::entry(),
        rtn::entry(),
        gptq::entry(),
        trellis::entry(),
    ]
}

/// Refuses matrices whose elements are not real numbers.
fn float_only(codec: &str, matrix: &MatrixInfo) -> Result<()> {
    if matrix.dtype.is_float() {
        return Ok(());
    }
    let message = format!("{} is not a float type; use raw", matrix.dtype);
    Err(Error::NotApplicable { codec: codec.to_owned(), message })
}
