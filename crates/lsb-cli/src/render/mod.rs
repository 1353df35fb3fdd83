//! Plain data, shown to people and machines.

pub(crate) mod number;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod table;

use crate::exit::Outcome;
use std::io::Write;

/// Prints a finished text on stdout.
pub(crate) fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints one JSON document on stdout.
pub(crate) fn print_json(value: &serde_json::Value) -> Outcome {
    print(&format!("{value:#}\n"))
}
