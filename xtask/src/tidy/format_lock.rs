//! `docs/format.md` and the code of the bytes it describes change together.
//!
//! `docs/format.lock` records the hash of the page and of every wire file. When a wire file changes, the page must be
//! read again and both hashes renewed with `cargo xtask tidy --bless`: the diff then shows a reviewer which changed.

use super::{Tree, Violation};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/format.md";
const LOCK: &str = "docs/format.lock";

/// Files and folders that decide bytes.
const WIRE: &[&str] = &[
    "crates/lsb-format/src/package/",
    "crates/lsb-format/src/entropy/",
    "crates/lsb-format/src/bits/",
    "crates/lsb-format/src/tiling.rs",
    "crates/lsb-format/src/dtype.rs",
];

/// Whether a file decides bytes of the format.
fn is_wire(path: &str) -> bool {
    let source = path.ends_with(".rs") && !path.ends_with("/tests.rs") && !path.contains("/tests/");
    // Kernels are held to the scalar code by their tests.
    source && !path.contains("/kernel/") && WIRE.iter().any(|prefix| path.starts_with(prefix))
}

/// The hash of a file's code: comments and unit tests may change freely.
fn code_hash(path: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let hash = if path.ends_with(".rs") {
        let code = text.split("#[cfg(test)]").next().unwrap_or("");
        let mut hasher = blake3::Hasher::new();
        for line in code.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//")) {
            hasher.update(line.as_bytes()).update(b"\n");
        }
        hasher.finalize()
    } else {
        blake3::hash(bytes)
    };
    hash.to_hex()[..32].to_owned()
}

fn current(tree: &Tree) -> BTreeMap<String, String> {
    tree.files()
        .filter(|(path, _)| *path == PAGE || is_wire(path))
        .map(|(path, bytes)| (path.to_owned(), code_hash(path, bytes)))
        .collect()
}

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    // Until the page exists there is nothing that could disagree with the code.
    if tree.get(PAGE).is_none() {
        return Vec::new();
    }
    let Some(lock) = tree.text(LOCK) else {
        let message = "missing: run `cargo xtask tidy --bless` and commit it";
        return vec![Violation::new(LOCK, 0, "format-lock", message)];
    };
    let recorded: BTreeMap<&str, &str> =
        lock.lines().filter_map(|l| l.split_once("  ")).map(|(hash, path)| (path, hash)).collect();
    let current = current(tree);
    let mut out = Vec::new();
    for (path, hash) in &current {
        if recorded.get(path.as_str()) != Some(&hash.as_str()) {
            let message = if path == PAGE {
                "the page has changed since it was locked: run `cargo xtask tidy --bless`".to_owned()
            } else {
                format!("wire code has changed: bring {PAGE} up to date, then run `cargo xtask tidy --bless`")
            };
            out.push(Violation::new(path, 0, "format-lock", message));
        }
    }
    for path in recorded.keys().filter(|path| !current.contains_key(**path)) {
        let message =
            format!("locked and gone: bring {PAGE} up to date, then run `cargo xtask tidy --bless`");
        out.push(Violation::new(path, 0, "format-lock", message));
    }
    out
}

pub(super) fn blessed(tree: &Tree) -> String {
    current(tree).into_iter().map(|(path, hash)| format!("{hash}  {path}\n")).collect()
}

pub(super) fn bless(root: &Path, tree: &Tree) -> Result<()> {
    if tree.get(PAGE).is_none() {
        return Ok(());
    }
    fs::write(root.join(LOCK), blessed(tree)).with_context(|| format!("cannot write {LOCK}"))
}
