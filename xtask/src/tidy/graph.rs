//! The one-way rule between crates, and which crates outside the repository each may name.

use super::Violation;
use anyhow::{Context, Result};
use cargo_metadata::{CargoOpt, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The library crates, lowest first. A crate may use any before it and none after it.
const ORDER: &[&str] = &["lsb-format", "lsb-quant", "lsb-stream", "lsb-model", "lsb-validate", "lsb-cli"];

/// Crates that must build without a tensor framework.
const WITHOUT_CANDLE: &[&str] = &["lsb-format", "lsb-quant", "lsb-stream"];

/// Crates for programs with a terminal, and who may name them.
const TERMINAL: &[&str] = &["anyhow", "clap", "indicatif"];
const MAY_USE_TERMINAL: &[&str] = &["lsb-cli", "xtask", "lsb-examples", "lsb-benches"];

/// Who depends on whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    /// For each member, the manifest's path and every dependency it names, whatever its kind.
    pub(super) members: BTreeMap<String, (String, BTreeSet<String>)>,
    /// For every package of the build, the packages it is built with (development dependencies apart).
    pub(super) builds_with: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Asks cargo.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(root.join("Cargo.toml"))
            .features(CargoOpt::AllFeatures)
            .other_options(vec!["--locked".to_owned()])
            .exec()
            .context("cargo metadata failed")?;
        let mut graph = Graph::default();
        for package in metadata.workspace_packages() {
            let path = package.manifest_path.strip_prefix(&metadata.workspace_root)?;
            let named = package.dependencies.iter().map(|d| d.name.clone()).collect();
            graph.members.insert(package.name.to_string(), (path.to_string(), named));
        }
        let names: BTreeMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.to_string())).collect();
        for node in metadata.resolve.iter().flat_map(|r| &r.nodes) {
            let Some(name) = names.get(&node.id) else { continue };
            let edges = graph.builds_with.entry(name.clone()).or_default();
            for dep in &node.deps {
                let shipped =
                    dep.dep_kinds.iter().any(|k| k.kind != cargo_metadata::DependencyKind::Development);
                if let Some(to) = names.get(&dep.pkg).filter(|_| shipped) {
                    edges.insert(to.clone());
                }
            }
        }
        Ok(graph)
    }

    /// A path of packages from `from` to the first one whose name starts with `prefix`.
    fn path_to(&self, from: &str, prefix: &str) -> Option<Vec<String>> {
        let mut paths = vec![vec![from.to_owned()]];
        let mut seen = BTreeSet::new();
        while let Some(path) = paths.pop() {
            let Some(last) = path.last().cloned() else { continue };
            if last.starts_with(prefix) {
                return Some(path);
            }
            if seen.insert(last.clone()) {
                for next in self.builds_with.get(&last).into_iter().flatten() {
                    paths.push(path.iter().cloned().chain([next.clone()]).collect());
                }
            }
        }
        None
    }
}

pub(super) fn check(graph: &Graph) -> Vec<Violation> {
    let mut out = Vec::new();
    let rank = |name: &str| ORDER.iter().position(|o| *o == name);
    for (name, (path, dependencies)) in &graph.members {
        for dependency in dependencies {
            if let (Some(own), Some(other)) = (rank(name), rank(dependency))
                && other >= own
            {
                let message = format!(
                    "{name} must not use {dependency}, which stands above it: define a trait in {name} and implement it there"
                );
                out.push(Violation::new(path, 0, "crate-arrow", message));
            }
            if rank(name).is_some() && graph.members.contains_key(dependency) && rank(dependency).is_none() {
                let message = format!("{name} must not use {dependency}, which is not a library crate");
                out.push(Violation::new(path, 0, "crate-arrow", message));
            }
            if TERMINAL.contains(&dependency.as_str()) && !MAY_USE_TERMINAL.contains(&name.as_str()) {
                let message = format!(
                    "{name} names {dependency}, which only {} may: return data and let the command print it",
                    MAY_USE_TERMINAL.join(", ")
                );
                out.push(Violation::new(path, 0, "terminal-crate", message));
            }
        }
        if rank(name).is_none() && path.starts_with("crates/") {
            let message =
                format!("{name} has no place in the order of crates: add it to xtask/src/tidy/graph.rs");
            out.push(Violation::new(path, 0, "crate-arrow", message));
        }
        if WITHOUT_CANDLE.contains(&name.as_str())
            && let Some(chain) = graph.path_to(name, "candle")
        {
            let message = format!("candle is reachable: {}; keep it in lsb-model", chain.join(" -> "));
            out.push(Violation::new(path, 0, "candle", message));
        }
    }
    out
}
