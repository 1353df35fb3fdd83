//! Every codec of the registry is explained in `docs/codecs.md`.

use super::{Tree, Violation};
use lsb_quant::Registry;

const PAGE: &str = "docs/codecs.md";

pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let ids: Vec<_> = Registry::standard().entries().iter().map(|e| e.id).collect();
    check_ids(tree, &ids)
}

pub(super) fn check_ids(tree: &Tree, ids: &[&str]) -> Vec<Violation> {
    // The rule begins with the page.
    let Some(page) = tree.text(PAGE) else { return Vec::new() };
    let missing = |id: &&&str| !page.contains(&format!("`{id}`"));
    ids.iter()
        .filter(missing)
        .map(|id| {
            let message =
                format!("codec `{id}` is not explained: add what it does, its bytes and its figures");
            Violation::new(PAGE, 0, "codec-doc", message)
        })
        .collect()
}
