//! What can go wrong between weights and activations.

use std::fmt::Display;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is damaged, contradicts another, or an argument is out of range: it names file, rule and advice.
    #[error(transparent)]
    Input(#[from] lsb_format::Error),
    /// Weights could not be read, or do not fit the budget.
    #[error(transparent)]
    Stream(#[from] lsb_stream::Error),
    /// There is no forward pass for this architecture.
    #[error(
        "there is no forward pass for the architecture \"{found}\"; there is one for {}",
        crate::Architecture::names().collect::<Vec<_>>().join(", ")
    )]
    Unsupported {
        /// What `config.json` says.
        found: String,
    },
    /// A tensor operation failed.
    #[error("{what}: {source}")]
    Compute {
        /// What was being computed.
        what: String,
        /// The failure.
        source: candle_core::Error,
    },
    /// A tap wanted nothing more of some tokens where all had to be computed.
    #[error("an observer ended a pass that has to be run to its end")]
    Ended,
    /// The tokenizer or chat template cannot be used, or refused a text.
    #[error("{0}")]
    Text(String),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Turns the failure of a tensor operation into an error that says what was being computed.
    pub(crate) fn compute(what: impl Display) -> impl FnOnce(candle_core::Error) -> Error {
        move |source| Error::Compute { what: what.to_string(), source }
    }
}
