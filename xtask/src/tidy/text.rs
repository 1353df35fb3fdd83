//! Whitespace in files that people edit.

use super::{Tree, Violation};

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut out = Vec::new();
    for extension in ["rs", "md", "toml"] {
        for (path, text) in tree.texts(extension) {
            // A model's card or licence that came with a fixture stays as it came.
            if path.starts_with("fixtures/") && path != "fixtures/README.md" {
                continue;
            }
            for (i, line) in text.lines().enumerate() {
                if line.ends_with([' ', '\t', '\r']) {
                    out.push(Violation::new(
                        path,
                        i + 1,
                        "whitespace",
                        "trailing whitespace or a carriage return: remove it",
                    ));
                } else if line.contains('\t') {
                    out.push(Violation::new(path, i + 1, "whitespace", "a tab: indent with spaces"));
                }
            }
            if !text.is_empty() && !text.ends_with('\n') {
                out.push(Violation::new(
                    path,
                    text.lines().count(),
                    "whitespace",
                    "the last line has no newline: add one",
                ));
            }
        }
    }
    out
}
