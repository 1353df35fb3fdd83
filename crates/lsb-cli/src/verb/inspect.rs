//! `lsb inspect`

use crate::Common;
use crate::exit::Outcome;
use crate::render::number::{bytes, count};
use crate::render::table::Table;
use crate::render::{print, print_json};
use lsb_format::package::{Content, MANIFEST_FILE, Manifest};
use lsb_model::ModelConfig;
use lsb_quant::MatrixInfo;
use lsb_stream::layers::{LayerId, layer_of};
use lsb_stream::package::Package;
use lsb_stream::source::{Model, OpenOptions};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Show what a package or a model holds
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb inspect out/llama --full")]
pub(crate) struct Args {
    /// Package directory, model directory, .safetensors file, or id in the local Hub cache
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// List every tensor
    #[arg(long)]
    full: bool,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    if args.path.join(MANIFEST_FILE).exists() {
        let package = Package::open(&args.path)?;
        let all = package_json(&package)?;
        return if common.json {
            print_json(&all)
        } else {
            print(&package_text(package.manifest(), &all, args.full))
        };
    }
    let model = Model::open(&args.path, &OpenOptions::default())?;
    let config = model.config_json().map(ModelConfig::parse).transpose().map_err(lsb_stream::Error::from)?;
    let all = model_json(&model, config.as_ref());
    if common.json { print_json(&all) } else { print(&model_text(&model, &all, args.full)) }
}

fn package_json(package: &Package) -> Result<Value, lsb_stream::Error> {
    let manifest = package.manifest();
    let mut tensors = Vec::with_capacity(manifest.tensors.len());
    for (i, record) in manifest.tensors.iter().enumerate() {
        tensors.push(match &record.content {
            Content::SameAs(other) => json!({"name": record.name, "same_as": other}),
            Content::Stored(stored) => {
                let open = package.tensor_at(i)?;
                let weights = MatrixInfo::of_shape(&stored.shape, stored.dtype).weights();
                let codec = &manifest.codecs[stored.codec];
                json!({
                    "name": record.name, "dtype": stored.dtype, "shape": stored.shape,
                    "codec": codec.id, "parameters": codec.parameters,
                    "shard": manifest.shards[stored.shard].file, "bytes": open.stored_bytes(),
                    "bpw": if weights == 0 { Value::Null } else { json!(8.0 * open.stored_bytes() as f64 / weights as f64) },
                    "tiles": open.tiling().len(), "parts": open.tiling().parts(),
                    "blake3": stored.blake3,
                })
            }
        });
    }
    let manifest_bytes = manifest.render()?.len() as u64;
    let package_bytes = manifest_bytes + manifest.shards.iter().map(|s| s.bytes).sum::<u64>();
    Ok(json!({
        "kind": "package", "path": package.path(), "format_version": lsb_format::package::FORMAT_VERSION,
        "tool": manifest.tool, "fingerprint": manifest.fingerprint, "features": manifest.features,
        "weights": manifest.weights, "source": manifest.source,
        "package_bytes": package_bytes, "manifest_bytes": manifest_bytes,
        "bpw": 8.0 * package_bytes as f64 / manifest.weights.max(1) as f64,
        "ratio": manifest.source.weight_bytes as f64 / package_bytes as f64,
        "codecs": manifest.codecs, "shards": manifest.shards, "files": manifest.files, "tensors": tensors,
    }))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => lsb_format::escape(s),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn parameters(value: &Value) -> String {
    let Some(map) = value.as_object() else { return String::new() };
    map.iter().map(|(k, v)| format!("{k}={}", text(v))).collect::<Vec<_>>().join(",")
}

fn package_text(manifest: &Manifest, all: &Value, full: bool) -> String {
    let number = |key: &str| all[key].as_u64().unwrap_or(0);
    let mut out = format!(
        "package of format {} by {}, fingerprint {}\n{} weights in {}: {:.3} bits per weight, ratio {:.2}\n",
        all["format_version"],
        lsb_format::escape(&manifest.tool),
        &text(&all["fingerprint"])[..16],
        count(manifest.weights),
        bytes(number("package_bytes")),
        all["bpw"].as_f64().unwrap_or(0.0),
        all["ratio"].as_f64().unwrap_or(0.0)
    );
    for shard in &manifest.shards {
        out += &format!("  {} {}\n", shard.file, bytes(shard.bytes));
    }
    for file in &manifest.files {
        out += &format!("  {} {}\n", lsb_format::escape(&file.file), bytes(file.bytes));
    }
    let tensors = all["tensors"].as_array().map_or(&[][..], Vec::as_slice);
    let mut table = Table::new(&["codec", "parameters", ">tensors", ">bytes"]);
    for codec in &manifest.codecs {
        let parameters_value = json!(codec.parameters);
        let of = |t: &&Value| t["codec"] == codec.id.as_str() && t["parameters"] == parameters_value;
        let stored: u64 = tensors.iter().filter(of).filter_map(|t| t["bytes"].as_u64()).sum();
        let n = tensors.iter().filter(of).count();
        table.row(vec![codec.id.clone(), parameters(&parameters_value), n.to_string(), bytes(stored)]);
    }
    out += &table.render();
    if full {
        let mut table =
            Table::new(&["tensor", "type", "shape", "codec", "parameters", ">bytes", ">bits/weight"]);
        for t in tensors {
            let codec = t["same_as"]
                .as_str()
                .map_or_else(|| text(&t["codec"]), |o| format!("same as {}", lsb_format::escape(o)));
            table.row(vec![
                text(&t["name"]),
                text(&t["dtype"]),
                text(&t["shape"]),
                codec,
                parameters(&t["parameters"]),
                text(&t["bytes"]),
                t["bpw"].as_f64().map_or("-".into(), |b| format!("{b:.3}")),
            ]);
        }
        out += "\n";
        out += &table.render();
    }
    out
}

fn model_json(model: &Model, config: Option<&ModelConfig>) -> Value {
    let layers = model.tensors().iter().filter_map(|t| match layer_of(&t.name) {
        LayerId::Layer(n) => Some(n + 1),
        _ => None,
    });
    let tensors: Vec<Value> = model
        .tensors()
        .iter()
        .map(|t| {
            json!({"name": t.name, "dtype": t.dtype, "shape": t.shape, "bytes": t.bytes,
                "file": model.files()[t.file].name, "offset": t.offset})
        })
        .collect();
    let files: Vec<Value> = model.files().iter().map(|f| json!({"file": f.name, "bytes": f.bytes})).collect();
    json!({
        "kind": "model", "name": model.name(), "weight_bytes": model.weight_bytes(),
        "weights": model.tensors().iter().map(|t| t.elements()).sum::<u64>(),
        "layers": layers.max().unwrap_or(0), "files": files,
        "architecture": config.map(|c| c.architecture.name().to_owned()),
        "warnings": model.warnings().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "tensors": tensors,
    })
}

fn model_text(model: &Model, all: &Value, full: bool) -> String {
    let mut out = format!(
        "model {}, architecture {}, {} layers, {} elements in {} tensors, {}\n",
        lsb_format::escape(model.name()),
        text(&all["architecture"]),
        all["layers"],
        count(all["weights"].as_u64().unwrap_or(0)),
        model.tensors().len(),
        bytes(model.weight_bytes())
    );
    for file in model.files() {
        out += &format!("  {} {}\n", lsb_format::escape(&file.name), bytes(file.bytes));
    }
    for file in model.other_files() {
        out += &format!("  {} {}\n", lsb_format::escape(&file.name), bytes(file.bytes));
    }
    for warning in model.warnings() {
        out += &format!("warning: {warning}\n");
    }
    let mut table = Table::new(&["tensor", "type", "shape", ">bytes"]);
    // Without --full, what stands outside the layers and the first layer: the others repeat it.
    let shown = |name: &str| full || !matches!(layer_of(name), LayerId::Layer(n) if n > 0);
    for t in model.tensors().iter().filter(|t| shown(&t.name)) {
        table.row(vec![
            lsb_format::escape(&t.name),
            t.dtype.to_string(),
            format!("{:?}", t.shape),
            t.bytes.to_string(),
        ]);
    }
    out += &table.render();
    if !full && all["layers"].as_u64().unwrap_or(0) > 1 {
        out += "  (layers after the first are left out; --full lists them)\n";
    }
    out
}
