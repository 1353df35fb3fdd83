//! What can go wrong between weights and layers, and whose fault it is.

use std::io;
use std::path::{Path, PathBuf};

/// Result of a streaming operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of reading, compressing, writing or publishing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that was read is damaged, hostile, cut short or something else.
    #[error(transparent)]
    Input(#[from] lsb_format::Error),
    /// A codec refused a tensor or a payload.
    #[error("tensor \"{}\": {source}", lsb_format::escape(tensor))]
    Codec {
        /// The tensor.
        tensor: String,
        /// What the codec says.
        source: lsb_quant::Error,
    },
    /// The operating system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "write", "open".
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The work does not fit into the memory budget.
    #[error(
        "{what} needs {:.1} MB of memory and the budget leaves {:.1}; {advice}",
        *needed as f64 / 1e6,
        *available as f64 / 1e6
    )]
    OverBudget {
        /// What was to be held.
        what: String,
        /// Bytes it needs.
        needed: u64,
        /// Bytes that are there.
        available: u64,
        /// What would fit.
        advice: String,
    },
    /// Another process is working on this output.
    #[error("{} is in use by another lsb process; wait for it, or choose another output", path.display())]
    InUse {
        /// The output.
        path: PathBuf,
    },
    /// Unfinished work is there, but it was started differently.
    #[error("{} holds unfinished work that was started with another {field} ({then}; now {now}); use the same, or --restart to discard it", path.display())]
    Resume {
        /// The staging directory.
        path: PathBuf,
        /// Which part of the fingerprint differs.
        field: String,
        /// What it was.
        then: String,
        /// What it is now.
        now: String,
    },
    /// The request is refused before anything was written.
    #[error("{message}")]
    Refused {
        /// Why, and what to do instead.
        message: String,
    },
    /// A setting is not possible.
    #[error("{0}")]
    Config(String),
    /// Stopped on request; the work can be resumed.
    #[error("interrupted; run the same command again to resume")]
    Interrupted,
}

impl Error {
    /// An operating-system error on `path`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// A codec error on `tensor`.
    pub fn codec(tensor: &str) -> impl FnOnce(lsb_quant::Error) -> Error {
        move |source| match source {
            lsb_quant::Error::Payload(e) => Error::Input(e.in_tensor(tensor)),
            source => Error::Codec { tensor: tensor.to_owned(), source },
        }
    }
}
