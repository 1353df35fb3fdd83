//! `lsb bench`

use super::options::Calibration;
use super::text::Cut;
use super::threads::Threads;
use super::value::ram_mb;
use crate::Common;
use crate::exit::Outcome;
use crate::render::number::bytes;
use crate::render::progress::{Progress, Unit};
use crate::render::table::Table;
use crate::render::{print, print_json};
use lsb_model::Tokenizer;
use lsb_stream::CompressConfig;
use lsb_validate::benchmark::{csv, markdown};
use lsb_validate::{BenchmarkReport, CompressionBenchmark, Metric};
use serde_json::json;
use std::path::PathBuf;

/// Compare compression methods on one model: size, quality and cost in one table
///
/// Each method compresses the model, and its package is run beside the original on the same text. Methods are codecs
/// with their parameters (see `lsb codecs`). Finished rows are kept in the work folder, so that the same command goes
/// on after an interruption.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb bench fixtures/reflm --text fixtures/text/eval.txt \\\n    \
    --methods outlier-binary,residual-binary:3,ternary,rtn:4 --metrics perplexity,kl,top1,bleu,rouge,snr")]
pub(crate) struct Args {
    /// Model
    #[arg(value_name = "MODEL")]
    model: PathBuf,

    /// Text to predict and to continue: a UTF-8 file
    #[arg(long, value_name = "FILE")]
    text: PathBuf,

    /// Methods, separated by commas; a codec with several parameters is written id:key=value;key=value
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "outlier-binary,residual-binary:2,residual-binary:3,ternary,rtn:3,rtn:4"
    )]
    methods: Vec<String>,

    /// Metrics, separated by commas: perplexity, kl, top1, top5, logits, correlation, bleu, rouge, divergence, snr
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "perplexity,kl,top1,snr")]
    metrics: Vec<Metric>,

    #[command(flatten)]
    cut: Cut,

    #[command(flatten)]
    calibration: Calibration,

    /// How the table is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Folder for packages and finished rows [default: lsb-bench in the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,

    /// Keep the packages
    #[arg(long)]
    keep: bool,

    /// Memory the process may use, in MB
    #[arg(long, value_name = "MB", value_parser = ram_mb, default_value_t = 400)]
    target_ram_mb: u64,

    #[command(flatten)]
    threads: Threads,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Table,
    Csv,
    Markdown,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    args.threads.start()?;
    let config = std::fs::read(args.model.join("config.json")).ok();
    let context = config.and_then(|bytes| lsb_model::ModelConfig::parse(&bytes).ok()?.sizes?.context);
    let tokenizer = Tokenizer::open(&args.model)?;
    let protocol = args.cut.protocol(&tokenizer, context.and_then(|n| usize::try_from(n).ok()))?;
    drop(tokenizer);
    let mut config = CompressConfig::default();
    args.calibration.lay_over(&mut config);
    let mut benchmark = CompressionBenchmark::new(&args.model, &args.text)
        .methods(args.methods.iter().map(|m| m.replace(';', ",")))
        .metrics(args.metrics.iter().copied())
        .protocol(protocol)
        .target_ram_mb(args.target_ram_mb)
        .calibration(config)
        .keep(args.keep);
    if let Some(work) = &args.work {
        benchmark = benchmark.work(work);
    }
    let progress = Progress::new(common, Unit::Steps);
    let report = benchmark.run(&mut |step| {
        progress.set(step.done, step.total, &format!("{}: {}", step.method, step.what));
    });
    progress.finish();
    let report = report?;
    match (common.json, args.format) {
        (true, _) => print_json(&json!(report)),
        (false, Format::Table) => print(&table(&report)),
        (false, Format::Csv) => print(&csv(&report)),
        (false, Format::Markdown) => print(&markdown(&report)),
    }
}

fn table(report: &BenchmarkReport) -> String {
    let names: Vec<&String> = report.rows.first().map_or(Vec::new(), |row| row.metrics.keys().collect());
    let mut titles = vec!["method".to_owned(), ">bpw".to_owned(), ">ratio".to_owned()];
    titles.extend(names.iter().map(|name| format!(">{}", name.replace('_', " "))));
    titles.extend([">seconds".to_owned(), ">peak memory".to_owned()]);
    let mut table = Table::new(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    for row in &report.rows {
        let mut cells = vec![row.method.clone(), format!("{:.3}", row.bpw), format!("{:.2}", row.ratio)];
        let number = |x: f64| if x.abs() < 10.0 { format!("{x:.4}") } else { format!("{x:.2}") };
        cells.extend(
            names.iter().map(|n| row.metrics.get(*n).copied().flatten().map_or("-".to_owned(), number)),
        );
        cells.extend([format!("{:.2}", row.seconds), bytes(row.peak_rss_bytes)]);
        table.row(cells);
    }
    let resumed = match report.resumed {
        0 => String::new(),
        n => format!("{n} rows are from an earlier run\n"),
    };
    format!("{}\n{}\n{resumed}", table.render(), report.protocol)
}
