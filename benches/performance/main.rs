//! One table: every stage beside another program or a limit of the machine, measured in the same run.
//!
//! `cargo xtask bench` runs this and writes `docs/performance.md`. One file for each kind of stage; what libraries of other
//! languages are held against is in files of their own.

mod calibrated;
mod decode;
mod encode;
#[path = "../../crates/lsb-quant/tests/harness/mod.rs"]
#[allow(dead_code)]
mod harness;
#[cfg(feature = "htscodecs")]
mod htscodecs;
mod layers;
mod machine;
mod measure;
mod memory;
mod product;
mod table;
mod tensor;
mod widths;
mod zstd;

use clap::Parser;
use measure::Effort;
use std::path::PathBuf;
use std::process::ExitCode;
use table::{Figure, Limit, Row, Table, Yardstick};

/// Why something could not be measured.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T = ()> = Result<T, Failure>;

/// Measures every stage beside a yardstick.
#[derive(Debug, Parser)]
struct Args {
    /// Three short runs instead of at least five
    #[arg(long)]
    quick: bool,

    /// Only rows whose stage has this in its name; no document is written then
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,

    /// Threads of rows that are not of one core; 0 for one per physical core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,

    /// Document to write
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// What `cargo bench` tells every benchmark
    #[arg(long, hide = true)]
    bench: bool,

    /// Compress this model into the folder that follows, and say what it took
    #[arg(long, hide = true, num_args = 2, value_names = ["MODEL", "PACKAGE"])]
    compress: Option<Vec<PathBuf>>,
}

/// What stages measure with, and where their rows go.
struct Bench {
    effort: Effort,
    quick: bool,
    only: Option<String>,
    /// One thread.
    one: rayon::ThreadPool,
    /// As many as were asked for.
    all: rayon::ThreadPool,
    table: Table,
}

impl Bench {
    /// Whether a row of this name is to be measured.
    fn wants(&self, stage: &str) -> bool {
        self.only.as_ref().is_none_or(|only| stage.to_lowercase().contains(&only.to_lowercase()))
    }

    fn threads(&self) -> usize {
        self.all.current_num_threads()
    }

    /// Adds a row, and says on stderr that it is there.
    fn row(&mut self, stage: &str, ours: Figure, yardstick: Yardstick, limit: Limit, protocol: &str) {
        if self.wants(stage) {
            eprintln!("{stage}: {ours}");
            let (stage, protocol) = (stage.to_owned(), protocol.to_owned());
            self.table.push(Row { stage, ours, yardstick, limit, protocol });
        }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome {
    if let Some([model, package]) = args.compress.as_deref() {
        return layers::compress(model, package);
    }
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let mut bench = Bench {
        effort: Effort::new(args.quick),
        quick: args.quick,
        only: args.only.clone(),
        one: pool(1)?,
        all: pool(lsb_stream::threads_or_default(args.threads))?,
        table: Table::default(),
    };
    memory::measure(&mut bench)?;
    decode::measure(&mut bench)?;
    product::measure(&mut bench)?;
    encode::measure(&mut bench)?;
    calibrated::measure(&mut bench)?;
    widths::measure(&mut bench)?;
    layers::measure(&mut bench)?;
    if bench.table.is_empty() {
        return Err("no stage has such a name".into());
    }
    let machine = machine::describe(bench.threads());
    for (name, value) in &machine {
        println!("{name}: {value}");
    }
    println!("\n{}", bench.table.text());
    for advice in bench.table.missing() {
        println!("missing: {advice}");
    }
    match &args.output {
        Some(path) if args.only.is_none() => {
            std::fs::write(path, document(&bench, &machine))?;
            println!("wrote {}", path.display());
        }
        _ => {}
    }
    Ok(())
}

/// `docs/performance.md`.
fn document(bench: &Bench, machine: &[(&str, String)]) -> String {
    let mut out = String::from(
        "# Measured speed\n\n\
         Written by `cargo xtask bench --features htscodecs`; nothing here is typed by hand. *Ratio* is ours over the yardstick,\n\
         more is better; where it has to be near 1, cost must neither grow nor fall. Yardsticks are measured in the same run, on\n\
         the same cores, in turns with what they are held against.\n\n\
         ## Machine\n\n|  |  |\n|---|---|\n",
    );
    for (name, value) in machine {
        out += &format!("| {name} | {value} |\n");
    }
    let runs = bench.effort.runs;
    out += &format!(
        "\n## Table\n\nMedians of {runs} runs, of {} where one takes seconds. The last column says how.\n\n",
        bench.effort.long().runs
    );
    if bench.quick {
        out += "Measured in a hurry (`--quick`): not to be relied on.\n\n";
    }
    out += &bench.table.markdown();
    for advice in bench.table.missing() {
        out += &format!("\nMissing: {advice}.\n");
    }
    out
}
