//! The `lsb` command: parse, one `match`, exit codes.

#![forbid(unsafe_code)]

mod exit;
mod phases;
mod render;
mod verb;

use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Make large language models small, and say exactly what was gained and lost
///
/// lsb reads a Hugging Face safetensors model, compresses it layer by layer in less than 400 MB of memory,
/// and writes a package that can be verified, inspected and turned back into safetensors.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 a quality or integrity check said no, 130 interrupted.\n\
    Machine-readable output (--json) goes to stdout; logs and progress go to stderr."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    common: Common,
}

/// Options every verb takes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Common {
    /// Print one JSON document on stdout instead of tables; an error becomes one JSON line on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say more on stderr: -v what is done, -vv every step (RUST_LOG, where set, decides instead)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Print neither progress nor warnings on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Compress(verb::compress::Args),
    Plan(verb::plan::Args),
    Calibrate(verb::calibrate::Args),
    Tune(verb::tune::Args),
    Inspect(verb::inspect::Args),
    Verify(verb::verify::Args),
    Validate(verb::validate::Args),
    Eval(verb::eval::Args),
    Bench(verb::bench::Args),
    Run(verb::run::Args),
    Embed(verb::embed::Args),
    Decompress(verb::decompress::Args),
    Diff(verb::diff::Args),
    Codecs(verb::codecs::Args),
}

fn log_to_stderr(common: Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let coloured =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(coloured)
        .with_target(false)
        .with_filter(filter);
    tracing_subscriber::registry().with(lines).with(phases::Phases.with_filter(phases::Counted)).init();
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return exit::unparsable(&e, std::env::args_os().any(|a| a == "--json")),
    };
    let start = Instant::now();
    lsb_stream::give_freed_memory_back();
    let common = cli.common;
    log_to_stderr(common);
    let result = match cli.verb {
        Verb::Compress(args) => verb::compress::run(&args, common),
        Verb::Plan(args) => verb::plan::run(&args, common),
        Verb::Calibrate(args) => verb::calibrate::run(&args, common),
        Verb::Tune(args) => verb::tune::run(&args, common),
        Verb::Inspect(args) => verb::inspect::run(&args, common),
        Verb::Verify(args) => verb::verify::run(&args, common),
        Verb::Validate(args) => verb::validate::run(&args, common),
        Verb::Eval(args) => verb::eval::run(&args, common),
        Verb::Bench(args) => verb::bench::run(&args, common),
        Verb::Run(args) => verb::run::run(&args, common),
        Verb::Embed(args) => verb::embed::run(&args, common),
        Verb::Decompress(args) => verb::decompress::run(&args, common),
        Verb::Diff(args) => verb::diff::run(&args, common),
        Verb::Codecs(args) => verb::codecs::run(&args, common),
    };
    if let Err(e) = phases::record(start.elapsed()) {
        tracing::warn!("where the time went could not be written: {e}");
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(common.json),
    }
}
