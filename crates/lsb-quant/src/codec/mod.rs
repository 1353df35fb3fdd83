//! Every codec, one folder each. The list in [`all`] is the only place that names them all.

pub mod lossless;
pub mod raw;

use crate::CodecEntry;

/// One line per codec.
pub(crate) fn all() -> Vec<CodecEntry> {
    vec![raw::entry(), lossless::entry()]
}
