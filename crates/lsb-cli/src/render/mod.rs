//! Plain data, shown to people and machines.

pub(crate) mod codec;
pub(crate) mod compress;
pub(crate) mod embeddings;
pub(crate) mod evaluation;
pub(crate) mod figures;
pub(crate) mod kind;
pub(crate) mod model;
pub(crate) mod number;
pub(crate) mod package;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod tune;

use crate::exit::Outcome;
use lsb_stream::Error;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Prints a finished text on stdout. A reader that went away is no failure of the work.
pub(crate) fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", Path::new("stdout"))(e).into()),
        _ => Ok(()),
    }
}

/// Prints one JSON document on stdout.
pub(crate) fn print_json(value: &Value) -> Outcome {
    print(&format!("{value:#}\n"))
}

/// Prints a line on stderr. Unlike `eprintln!` it goes on where stderr is closed.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A finite number, or `null`.
pub(crate) fn finite(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}

/// Bits per weight, or `null` where there are no weights.
pub(crate) fn bpw(bytes: u64, weights: u64) -> Value {
    if weights == 0 { Value::Null } else { json!(8.0 * bytes as f64 / weights as f64) }
}
