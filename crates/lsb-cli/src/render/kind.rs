//! Kinds of tensors: those whose names differ only in their numbers share a row.

use std::collections::BTreeMap;

/// Tensors of one kind.
#[derive(Debug)]
pub(crate) struct Group<'a, T> {
    /// What to call them: the name behind the layer's number, or the whole name where that is not enough.
    pub(crate) title: String,
    /// The tensors, in their order.
    pub(crate) members: Vec<&'a T>,
}

/// Groups `items` by the kind of `name` and by `label`, in the order in which groups first appear.
pub(crate) fn groups<'a, T>(
    items: impl IntoIterator<Item = &'a T>,
    name: impl Fn(&T) -> &str,
    label: impl Fn(&T) -> String,
) -> Vec<Group<'a, T>> {
    let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut out: Vec<Group<'a, T>> = Vec::new();
    for item in items {
        let kind = kind_of(name(item));
        let place = *places.entry((kind.clone(), label(item))).or_insert_with(|| {
            out.push(Group { title: kind, members: Vec::new() });
            out.len() - 1
        });
        if let Some(group) = out.get_mut(place) {
            group.members.push(item);
        }
    }
    // Two towers of a model may both have a `q_proj`: those keep their whole names.
    let mut kinds_of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for group in &out {
        let kinds = kinds_of.entry(short(&group.title).to_owned()).or_default();
        if !kinds.contains(&group.title) {
            kinds.push(group.title.clone());
        }
    }
    for group in &mut out {
        let brief = short(&group.title);
        if kinds_of.get(brief).is_some_and(|kinds| kinds.len() == 1) {
            group.title = brief.to_owned();
        }
    }
    out
}

/// The name with `*` for every number between dots.
fn kind_of(name: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = name.split('.').map(|p| if is_number(p) { "*" } else { p }).collect();
    parts.join(".")
}

/// What stands behind the first number.
fn short(kind: &str) -> &str {
    kind.split_once(".*.").map_or(kind, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(names: &[&str]) -> Vec<(String, usize)> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let groups = groups(&names, |n| n.as_str(), |_| String::new());
        groups.into_iter().map(|g| (g.title, g.members.len())).collect()
    }

    #[test]
    fn layers_share_a_row_and_keep_the_order_of_the_first() {
        let found = titles(&[
            "model.embed_tokens.weight",
            "model.layers.0.mlp.experts.0.w1.weight",
            "model.layers.0.mlp.experts.1.w1.weight",
            "model.layers.0.norm.weight",
            "model.layers.11.norm.weight",
        ]);
        let expected = [("model.embed_tokens.weight", 1), ("mlp.experts.*.w1.weight", 2), ("norm.weight", 2)];
        assert_eq!(found, expected.map(|(t, n)| (t.to_owned(), n)));
    }

    #[test]
    fn towers_with_equal_parts_keep_their_names() {
        let found =
            titles(&["text.layers.0.q.weight", "vision.layers.0.q.weight", "vision.layers.1.v.weight"]);
        let names: Vec<&str> = found.iter().map(|(t, _)| t.as_str()).collect();
        assert_eq!(names, ["text.layers.*.q.weight", "vision.layers.*.q.weight", "v.weight"]);
    }
}
