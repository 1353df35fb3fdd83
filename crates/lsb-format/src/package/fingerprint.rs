//! What decides the bytes of a package, so that unfinished work is only ever continued with the same.

use super::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Named facts that decide the bytes of a package: tool version, options, hashes of the source.
///
/// Threads, memory and paths do not belong here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// No facts.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more fact; a later value replaces an earlier one of the same name.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<String>) -> Self {
        self.set(field, value);
        self
    }

    /// Sets a fact.
    pub fn set(&mut self, field: &str, value: impl Into<String>) {
        self.0.insert(field.to_owned(), value.into());
    }

    /// All facts in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The hash of all facts, which the manifest stores.
    pub fn digest(&self) -> Digest {
        // Lengths in front keep {"a": "bc"} and {"ab": "c"} apart.
        let mut hasher = blake3::Hasher::new();
        for text in self.0.iter().flat_map(|(k, v)| [k, v]) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        Digest::from_blake3(&hasher.finalize())
    }

    /// The id of a package with these facts, which its shards and checksums carry.
    pub fn package_id(&self) -> String {
        super::manifest::package_id(&self.digest())
    }

    /// The first fact, in name order, that differs: its name, the value here and the value there. A missing
    /// fact reads `nothing`.
    pub fn first_difference(&self, other: &Fingerprint) -> Option<(String, String, String)> {
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let show = |f: &Fingerprint, name| f.0.get(name).map_or_else(|| "nothing".to_owned(), String::clone);
        names
            .into_iter()
            .find(|name| self.0.get(*name) != other.0.get(*name))
            .map(|name| (name.clone(), show(self, name), show(other, name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_separate_names_from_values() {
        let a = Fingerprint::new().with("a", "bc");
        let b = Fingerprint::new().with("ab", "c");
        assert_ne!(a.digest(), b.digest());
        assert_eq!(a.digest(), a.clone().digest());
    }

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let a = Fingerprint::new().with("codec", "rtn").with("tool", "1");
        let b = Fingerprint::new().with("codec", "rtn").with("tool", "2").with("zeta", "3");
        assert_eq!(a.first_difference(&a), None);
        assert_eq!(a.first_difference(&b), Some(("tool".into(), "1".into(), "2".into())));
        let c = Fingerprint::new().with("codec", "rtn");
        assert_eq!(c.first_difference(&a), Some(("tool".into(), "nothing".into(), "1".into())));
    }
}
