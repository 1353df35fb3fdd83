//! What is odd about a model without making it unreadable.

use lsb_format::{Error, Result, escape};
use std::collections::BTreeMap;
use std::fmt;

/// Warnings kept under one rule; the rest are counted.
const KEPT_PER_RULE: u64 = 8;

/// Something that was accepted and should be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule of `docs/bad-inputs.md`, such as `B70`.
    pub rule: &'static str,
    /// The file, relative to the model.
    pub file: Option<String>,
    /// The tensor (unescaped: use [`lsb_format::escape`] before printing).
    pub tensor: Option<String>,
    /// What it is.
    pub message: String,
}

impl Warning {
    /// A warning under `rule`.
    pub fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Warning { rule, file: None, tensor: None, message: message.into() }
    }

    /// Names the file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Names the tensor.
    #[must_use]
    pub fn in_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.tensor = Some(tensor.into());
        self
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] ", self.rule)?;
        let tensor = self.tensor.as_ref().map(|t| format!("tensor \"{}\"", escape(t)));
        let places: Vec<String> = self.file.as_deref().map(escape).into_iter().chain(tensor).collect();
        if !places.is_empty() {
            write!(f, "{}: ", places.join(", "))?;
        }
        f.write_str(&self.message)
    }
}

/// Gathers warnings, a bounded number per rule, or turns the first into an error.
#[derive(Debug)]
pub(super) struct Warnings {
    list: Vec<Warning>,
    counts: BTreeMap<&'static str, u64>,
    strict: bool,
}

impl Warnings {
    pub(super) fn new(strict: bool) -> Self {
        Warnings { list: Vec::new(), counts: BTreeMap::new(), strict }
    }

    pub(super) fn add(&mut self, warning: Warning) -> Result<()> {
        if self.strict {
            let mut error = Error::corruption(warning.rule, warning.message)
                .advise("this is a warning that strict mode refuses");
            if let Some(file) = warning.file {
                error = error.in_file(file);
            }
            if let Some(tensor) = warning.tensor {
                error = error.in_tensor(tensor);
            }
            return Err(error);
        }
        let count = self.counts.entry(warning.rule).or_insert(0);
        *count += 1;
        if *count <= KEPT_PER_RULE {
            self.list.push(warning);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Vec<Warning> {
        for (rule, count) in self.counts {
            if count > KEPT_PER_RULE {
                self.list.push(Warning::new(rule, format!("and {} more like these", count - KEPT_PER_RULE)));
            }
        }
        self.list
    }
}
