//! Every codec, one folder each. The list in [`all`] is the only place that names them all.

use crate::CodecEntry;

/// One line per codec.
pub(crate) fn all() -> Vec<CodecEntry> {
    Vec::new()
}
