//! What can go wrong between integers and weights.

use std::fmt;

/// Result of a codec operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a codec.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The payload is damaged, or not what its records say.
    Payload(lsb_format::Error),
    /// A codec id nobody registered.
    UnknownCodec {
        /// The id asked for.
        id: String,
        /// The ids that exist.
        known: Vec<String>,
    },
    /// A parameter does not exist, or its value is out of range.
    Parameter {
        /// Codec the parameter was given to.
        codec: String,
        /// Parameter name.
        name: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The codec cannot hold this tensor.
    NotApplicable {
        /// The codec.
        codec: String,
        /// Why not, and what to use instead.
        message: String,
    },
    /// A weight is NaN or infinite, and the codec is lossy.
    NonFinite {
        /// Index of the first such weight, counted over the whole tensor.
        index: u64,
        /// The value.
        value: f32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Payload(e) => e.fmt(f),
            Error::UnknownCodec { id, known } => {
                write!(f, "no codec is called \"{id}\"; there are {}", known.join(", "))
            }
            Error::Parameter { codec, name, message } => write!(f, "{codec}: parameter {name}: {message}"),
            Error::NotApplicable { codec, message } => write!(f, "{codec}: {message}"),
            Error::NonFinite { index, value } => write!(f, "weight {index} is {value}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Payload(e) => Some(e),
            _ => None,
        }
    }
}

impl From<lsb_format::Error> for Error {
    fn from(e: lsb_format::Error) -> Self {
        Error::Payload(e)
    }
}
