//! `cargo xtask tidy`: the rules a reviewer should not have to remember.
//!
//! Every check is a function from a [`Tree`] (paths and bytes) or the crate graph to [`Violation`]s, so each is
//! tested on small trees in memory. One file per subject; the list in `check_tree` is the only place that names
//! them all.

mod codecs_doc;
mod fixtures;
mod format_lock;
mod graph;
mod lexer;
mod rust;
mod text;
mod tree;

#[cfg(test)]
mod tests;

pub use tree::Tree;

use anyhow::{Result, bail};
use std::fmt;

/// Options of `cargo xtask tidy`.
#[derive(clap::Args)]
pub struct Args {
    /// Renew docs/format.lock and fixtures/frozen.txt (only adds; a changed frozen file stays an error).
    #[arg(long)]
    bless: bool,
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path from the root of the repository.
    pub file: String,
    /// Line, counted from 1; zero where the rule is about the whole file.
    pub line: usize,
    /// Short name of the rule, as in `docs/style.md`.
    pub rule: &'static str,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Violation {
    fn new(file: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Violation { file: file.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}: {}", self.rule, self.message)
    }
}

/// Every check that needs nothing but files.
fn check_tree(tree: &Tree) -> Vec<Violation> {
    let checks: &[fn(&Tree) -> Vec<Violation>] =
        &[rust::check, text::check, fixtures::check, format_lock::check, codecs_doc::check];
    checks.iter().flat_map(|check| check(tree)).collect()
}

/// Runs every check on the repository.
///
/// # Errors
/// If a rule is broken, or the repository cannot be read.
pub fn run(args: &Args) -> Result<()> {
    let root = crate::repository_root();
    if args.bless {
        let tree = Tree::read(&root)?;
        format_lock::bless(&root, &tree)?;
        fixtures::bless(&root, &tree)?;
    }
    let tree = Tree::read(&root)?;
    let mut violations = check_tree(&tree);
    violations.extend(graph::check(&graph::Graph::read(&root)?));
    violations.sort();
    for violation in &violations {
        println!("{violation}");
    }
    match violations.len() {
        0 => {
            println!("tidy: {} files, no rule broken", tree.len());
            Ok(())
        }
        n => bail!("tidy: {n} rules broken; docs/style.md explains them"),
    }
}
