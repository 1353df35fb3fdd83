//! `lsb codecs`

use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::table::Table;
use crate::render::{print, print_json};
use lsb_quant::Registry;
use serde_json::{Value, json};

/// List the codecs, or explain one
///
/// Without an id: every codec and what it stores. With one: its parameters, their defaults and ranges.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb codecs outlier-binary")]
pub(crate) struct Args {
    /// Codec to explain
    #[arg(value_name = "ID")]
    id: Option<String>,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let registry = Registry::standard();
    let entries: Vec<_> = match &args.id {
        None => registry.entries().iter().collect(),
        Some(id) => vec![registry.entry(id).map_err(|e| Failure::usage(e.to_string()))?],
    };
    if common.json {
        let list: Vec<Value> = entries
            .iter()
            .map(|e| {
                let parameters: Vec<Value> = e
                    .parameters
                    .iter()
                    .map(|p| json!({"name": p.name, "values": p.values, "summary": p.summary}))
                    .collect();
                json!({"id": e.id, "summary": e.summary, "main_parameter": e.main_parameter,
                    "parameters": parameters})
            })
            .collect();
        return print_json(&json!({ "codecs": list }));
    }
    let mut out = String::new();
    if args.id.is_none() {
        let mut table = Table::new(&["id", "what it stores"]);
        entries.iter().for_each(|e| table.row(vec![e.id.into(), e.summary.into()]));
        out += &table.render();
        out += "\n`lsb codecs ID` lists a codec's parameters; write them as ID:key=value,key=value.\n";
    }
    for entry in entries.iter().filter(|_| args.id.is_some()) {
        out += &format!("{}: {}\n", entry.id, entry.summary);
        let mut table = Table::new(&["parameter", "default and range", "meaning"]);
        for p in entry.parameters {
            table.row(vec![p.name.into(), p.values.into(), p.summary.into()]);
        }
        if entry.parameters.is_empty() {
            out += "  no parameters\n";
        } else {
            out += &table.render();
        }
        if let Some(main) = entry.main_parameter {
            out += &format!("{}:VALUE is short for {}:{main}=VALUE\n", entry.id, entry.id);
        }
    }
    print(&out)
}
