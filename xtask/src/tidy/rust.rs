//! House rules for `.rs` files.

use super::lexer::{blank, find_word};
use super::{Tree, Violation};

/// Lines a file may have; tests apart.
const MAX_LINES: usize = 800;

/// Names that attract everything and say nothing.
const FORBIDDEN_MODULES: &[&str] = &["utils", "util", "helpers", "helper", "common", "ops", "misc"];

/// Files outside `kernel/` folders that may hold `unsafe`, each for a reason written in the file.
const UNSAFE_FILES: &[&str] = &[
    "benches/performance/htscodecs.rs",
    "crates/lsb-stream/src/allocator.rs",
    "xtask/src/mutate/allocator.rs",
];

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut out = Vec::new();
    for (path, text) in tree.texts("rs") {
        check_header(path, text, &mut out);
        check_length(path, text, &mut out);
        check_name(path, tree, &mut out);
        check_code(path, text, &mut out);
    }
    out
}

fn check_header(path: &str, text: &str, out: &mut Vec<Violation>) {
    if !text.starts_with("//! ") {
        let message = "the file does not start with `//! `: say in one sentence what lives here";
        out.push(Violation::new(path, 1, "header", message));
    }
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn check_length(path: &str, text: &str, out: &mut Vec<Violation>) {
    let lines = text.lines().count();
    if lines > MAX_LINES && !is_test(path) {
        let message =
            format!("{lines} lines, at most {MAX_LINES}: split it by subject, or move tests to tests.rs");
        out.push(Violation::new(path, lines, "length", message));
    }
}

fn check_name(path: &str, tree: &Tree, out: &mut Vec<Violation>) {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let module = stem.strip_suffix("/mod").unwrap_or(stem);
    let name = module.rsplit('/').next().unwrap_or(module);
    if FORBIDDEN_MODULES.contains(&name) {
        let message =
            format!("a module called `{name}` becomes the place for everything: name what it is about");
        out.push(Violation::new(path, 0, "module-name", message));
    }
    if tree.get(&format!("{stem}/mod.rs")).is_some()
        || (!matches!(name, "lib" | "main" | "mod" | "tests")
            && tree
                .files()
                .any(|(other, _)| other.starts_with(&format!("{stem}/")) && other.ends_with(".rs")))
    {
        let message = format!("{name}.rs beside a folder {name}/: move it to {name}/mod.rs");
        out.push(Violation::new(path, 0, "module-file", message));
    }
}

fn check_code(path: &str, text: &str, out: &mut Vec<Violation>) {
    let may_unsafe = path.contains("/kernel/") || UNSAFE_FILES.contains(&path);
    for (i, line) in blank(text).lines().enumerate() {
        if !may_unsafe && find_word(line, "unsafe").is_some() {
            let message = "`unsafe` outside a kernel/ folder: write it safely, or move it to a kernel file";
            out.push(Violation::new(path, i + 1, "unsafe", message));
        }
        for name in ["todo", "unimplemented", "dbg"] {
            let called = find_word(line, name).is_some_and(|at| line[at + name.len()..].starts_with('!'));
            if called {
                let message =
                    format!("{name}! in committed code: finish it, or return an error that says so");
                out.push(Violation::new(path, i + 1, "unfinished", message));
            }
        }
    }
}
