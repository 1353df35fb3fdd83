//! What a package holds, from its manifest and shard headers.

use super::codec::CodecLabels;
use super::compress::bits;
use super::kind::groups;
use super::model::shape;
use super::number::{bytes, count};
use super::table::Table;
use super::{bpw, finite};
use lsb_format::package::{Content, FORMAT_VERSION, FileRole, Manifest, StoredTensor};
use lsb_format::{DType, escape};
use lsb_quant::Parameters;
use lsb_stream::Result;
use lsb_stream::package::Package;
use serde_json::{Value, json};

/// A stored tensor.
#[derive(Debug)]
struct Stored<'a> {
    name: &'a str,
    codec: &'a str,
    parameters: &'a Parameters,
    record: &'a StoredTensor,
    bytes: u64,
}

/// A package's facts.
#[derive(Debug)]
pub(crate) struct PackageFacts<'a> {
    package: &'a Package,
    manifest: &'a Manifest,
    manifest_bytes: u64,
    /// Parameters of the manifest's codecs, in its order.
    parameters: Vec<Parameters>,
}

/// Bytes of every file a decoder needs, and of the manifest alone.
///
/// # Errors
/// If the manifest cannot be written in its one form.
pub(crate) fn package_bytes(manifest: &Manifest) -> Result<(u64, u64)> {
    let own = manifest.render()?.len() as u64;
    Ok((own + manifest.shards.iter().map(|s| s.bytes).sum::<u64>(), own))
}

impl<'a> PackageFacts<'a> {
    /// Gathers the facts; reads no weights.
    ///
    /// # Errors
    /// If the manifest cannot be written in its one form.
    pub(crate) fn of(package: &'a Package) -> Result<Self> {
        let manifest = package.manifest();
        // Values that are no parameters cannot be shown as such; the JSON output has them as they are.
        let read = |p| serde_json::from_value(json!(p)).unwrap_or_default();
        Ok(PackageFacts {
            package,
            manifest,
            manifest_bytes: package_bytes(manifest)?.1,
            parameters: manifest.codecs.iter().map(|c| read(&c.parameters)).collect(),
        })
    }

    fn bytes(&self) -> u64 {
        self.manifest_bytes + self.manifest.shards.iter().map(|s| s.bytes).sum::<u64>()
    }

    /// Bytes of the source's weight files, which is what ratios are measured against.
    fn source_bytes(&self) -> u64 {
        self.manifest.source.files.iter().map(|f| f.bytes).fold(0, u64::saturating_add)
    }

    fn ratio(&self) -> f64 {
        self.source_bytes() as f64 / self.bytes() as f64
    }

    fn stored(&self) -> Vec<Stored<'_>> {
        let tensors = self.manifest.tensors.iter().enumerate();
        let found = tensors.filter_map(|(i, t)| match &t.content {
            Content::SameAs(_) => None,
            Content::Stored(record) => Some(Stored {
                name: &t.name,
                codec: &self.manifest.codecs.get(record.codec)?.id,
                parameters: self.parameters.get(record.codec)?,
                record,
                bytes: self.package.stored_bytes(i).unwrap_or(0),
            }),
        });
        found.collect()
    }

    /// The JSON of `lsb inspect` on a package.
    pub(crate) fn json(&self) -> Value {
        let m = self.manifest;
        let stored = self.stored().into_iter().map(|t| {
            let shard = m.shards.get(t.record.shard).map(|s| s.file.as_str());
            json!({
                "name": t.name, "dtype": t.record.dtype, "shape": t.record.shape, "weights": t.record.weights(),
                "codec": t.codec, "parameters": m.codecs.get(t.record.codec).map(|c| &c.parameters),
                "shard": shard, "bytes": t.bytes, "bpw": bpw(t.bytes, t.record.weights()),
                "blake3": t.record.blake3, "same_as": null,
            })
        });
        let shared = m.tensors.iter().filter_map(|t| match &t.content {
            Content::SameAs(other) => Some(json!({"name": t.name, "same_as": other})),
            Content::Stored(_) => None,
        });
        json!({
            "kind": "package", "path": self.package.path(), "format_version": FORMAT_VERSION,
            "tool": m.tool, "fingerprint": m.fingerprint, "features": m.features,
            "weights": m.weights, "source": m.source, "source_bytes": self.source_bytes(),
            "package_bytes": self.bytes(), "manifest_bytes": self.manifest_bytes,
            "bpw": bpw(self.bytes(), m.weights), "ratio": finite(self.ratio()),
            "codecs": m.codecs, "shards": m.shards, "files": m.files,
            "tensors": stored.chain(shared).collect::<Vec<_>>(),
        })
    }

    /// What a person sees.
    pub(crate) fn text(&self, full: bool) -> String {
        let m = self.manifest;
        let mut out = format!(
            "package {} of format {FORMAT_VERSION}, made by {}\n\
             {} weights in {}: {} bits per weight, ratio {:.2} against {} of source\n\
             fingerprint {}\n\n",
            self.package.path().display(),
            escape(&m.tool),
            count(m.weights),
            bytes(self.bytes()),
            bits(self.bytes(), m.weights),
            self.ratio(),
            bytes(self.source_bytes()),
            m.fingerprint,
        );
        out += &self.files();
        out += "\n";
        let stored = self.stored();
        let labels = CodecLabels::new(stored.iter().map(|t| (t.codec, t.parameters)));
        let label = |t: &Stored<'_>| labels.label(t.codec, t.parameters);
        if full {
            let titles = ["tensor", "type", "shape", "codec", ">bytes", ">bits/weight"];
            let mut table = Table::new(&titles);
            for t in &stored {
                let start = [escape(t.name), t.record.dtype.to_string(), shape(&t.record.shape), label(t)];
                table.row([&start[..], &[t.bytes.to_string(), bits(t.bytes, t.record.weights())]].concat());
            }
            out += &table.render();
        } else {
            let titles = ["tensors", ">count", ">weights", "type", "codec", ">size", ">bits/weight"];
            let mut table = Table::new(&titles);
            let kind = |t: &Stored<'_>| format!("{} {}", t.record.dtype, label(t));
            for group in groups(&stored, |t| t.name, kind) {
                let Some(first) = group.members.first() else { continue };
                let weights = group.members.iter().map(|t| t.record.weights()).sum();
                let size = group.members.iter().map(|t| t.bytes).sum();
                let dtype: DType = first.record.dtype;
                table.row(vec![
                    escape(&group.title),
                    group.members.len().to_string(),
                    count(weights),
                    dtype.to_string(),
                    label(first),
                    bytes(size),
                    bits(size, weights),
                ]);
            }
            out += &table.render();
        }
        out += &labels.legend();
        for t in &m.tensors {
            if let Content::SameAs(other) = &t.content {
                out += &format!("  {} is stored once, as {}\n", escape(&t.name), escape(other));
            }
        }
        out
    }

    fn files(&self) -> String {
        let mut table = Table::new(&["file", ">size", "holds"]);
        let manifest = lsb_format::package::MANIFEST_FILE;
        table.row(vec![manifest.to_owned(), bytes(self.manifest_bytes), "manifest".into()]);
        for shard in &self.manifest.shards {
            table.row(vec![escape(&shard.file), bytes(shard.bytes), "tensors".into()]);
        }
        for file in &self.manifest.files {
            let holds = match file.role {
                FileRole::Copied => "copied from the source",
                FileRole::Document => "what was measured",
            };
            table.row(vec![escape(&file.file), bytes(file.bytes), holds.into()]);
        }
        table.render()
    }
}
