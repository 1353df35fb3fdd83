//! Codecs in tables: the id, the parameters that tell two configurations apart, and a legend with the rest.

use lsb_quant::Parameters;
use std::collections::BTreeMap;

/// Short names for the codecs of one table.
#[derive(Debug, Default)]
pub(crate) struct CodecLabels<'a> {
    /// Configurations of each codec, in the order in which they first appear.
    seen: BTreeMap<&'a str, Vec<&'a Parameters>>,
}

impl<'a> CodecLabels<'a> {
    /// Labels for these configured codecs.
    pub(crate) fn new(codecs: impl IntoIterator<Item = (&'a str, &'a Parameters)>) -> Self {
        let mut seen: BTreeMap<&str, Vec<&Parameters>> = BTreeMap::new();
        for (id, parameters) in codecs {
            let known = seen.entry(id).or_default();
            if !known.contains(&parameters) {
                known.push(parameters);
            }
        }
        CodecLabels { seen }
    }

    /// The id, with those parameters that differ between the configurations of that codec.
    pub(crate) fn label(&self, id: &str, parameters: &Parameters) -> String {
        let varies: Vec<String> = parameters
            .iter()
            .filter(|(name, _)| self.varies(id, name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if varies.is_empty() { id.to_owned() } else { format!("{id} {}", varies.join(",")) }
    }

    /// One line per codec that has parameters which all its configurations share.
    pub(crate) fn legend(&self) -> String {
        let mut out = String::new();
        for (id, configurations) in &self.seen {
            let shared: Vec<String> = configurations
                .first()
                .into_iter()
                .flat_map(|p| p.iter())
                .filter(|(name, _)| !self.varies(id, name))
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            if !shared.is_empty() {
                out += &format!("  {id}: {}\n", shared.join(","));
            }
        }
        out
    }

    fn varies(&self, id: &str, name: &str) -> bool {
        let Some(configurations) = self.seen.get(id) else { return true };
        configurations.windows(2).any(|pair| pair[0].get(name) != pair[1].get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_show_what_differs_and_the_legend_the_rest() {
        let four = Parameters::new().with("bits", 4i64).with("group", 128i64);
        let eight = Parameters::new().with("bits", 8i64).with("group", 128i64);
        let none = Parameters::new();
        let labels = CodecLabels::new([("rtn", &four), ("raw", &none), ("rtn", &eight), ("rtn", &four)]);
        assert_eq!(labels.label("rtn", &four), "rtn bits=4");
        assert_eq!(labels.label("rtn", &eight), "rtn bits=8");
        assert_eq!(labels.label("raw", &none), "raw");
        assert_eq!(labels.legend(), "  rtn: group=128\n");
        let alone = CodecLabels::new([("rtn", &four)]);
        assert_eq!(alone.label("rtn", &four), "rtn");
        assert_eq!(alone.legend(), "  rtn: bits=4,group=128\n");
    }
}
