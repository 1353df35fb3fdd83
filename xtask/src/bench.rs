//! `cargo xtask bench`: builds and runs the benchmark that holds every stage against a yardstick, and writes
//! `docs/performance.md`. What measures is in `benches/performance/`, so that this command stays quick to build.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Three short runs instead of at least five; what is written says so
    #[arg(long)]
    quick: bool,

    /// Only rows whose stage has this in its name; no document is written then
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,

    /// Threads of rows that are not of one core; 0 for one per physical core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,

    /// Yardsticks that must be installed: `htscodecs` (Debian: libhtscodecs-dev)
    #[arg(long, value_name = "NAMES")]
    features: Option<String>,

    /// Document to write
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    output: PathBuf,
}

/// Measures, prints the table, and writes it.
///
/// # Errors
/// If the benchmark cannot be built, or fails.
pub fn run(args: &Args) -> Result<()> {
    let output = std::path::absolute(&args.output)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::repository_root());
    command.args(["bench", "--quiet", "--package", "lsb-benches", "--bench", "performance"]);
    if let Some(features) = &args.features {
        command.args(["--features", features]);
    }
    command.args(["--", "--threads", &args.threads.to_string(), "--output"]).arg(output);
    if args.quick {
        command.arg("--quick");
    }
    if let Some(only) = &args.only {
        command.args(["--only", only]);
    }
    let status = command.status().context("cargo bench")?;
    ensure!(status.success(), "the benchmark did not finish");
    Ok(())
}
