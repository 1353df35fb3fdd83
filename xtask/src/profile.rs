//! `cargo xtask profile`: runs the release build of `lsb` and says where the time went, by kind of work and, where `perf` is
//! installed and allowed, by function.

use anyhow::{Context, Result, ensure};
use cargo_metadata::MetadataCommand;
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Options of `cargo xtask profile`.
///
/// `cargo xtask profile compress models/llama -o /tmp/out --overwrite`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kinds of work only, without `perf`
    #[arg(long)]
    no_perf: bool,

    /// Functions with less than so many percent of the time are left out
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    least: f64,

    /// The verb of `lsb` (such as compress, run, eval) and its arguments
    #[arg(value_name = "ARGS", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Samples per second; no divisor of what timers do.
const FREQUENCY: &str = "997";

/// Builds, runs, and prints.
///
/// # Errors
/// If `lsb` cannot be built, or fails.
pub fn run(args: &Args) -> Result<()> {
    let lsb = build()?;
    let folder = tempfile::tempdir()?;
    let (phases, samples) = (folder.path().join("phases.json"), folder.path().join("perf.data"));
    let with_perf = !args.no_perf && perf_works();
    let mut command = if with_perf {
        let mut perf = Command::new("perf");
        perf.args(["record", "--quiet", "--freq", FREQUENCY, "--output"]).arg(&samples).arg("--").arg(&lsb);
        perf
    } else {
        Command::new(&lsb)
    };
    let status = command.args(&args.command).env("LSB_PHASES", &phases).status();
    let status = status.with_context(|| lsb.display().to_string())?;
    ensure!(phases.is_file(), "lsb ended with {status} before it had begun");
    print!("\n{}", by_work(&serde_json::from_slice(&fs::read(&phases)?)?));
    if with_perf {
        print!("\n{}", by_function(&samples, args.least)?);
    } else if !args.no_perf {
        println!("\nperf is not installed or not allowed here: no times by function");
    }
    ensure!(status.success(), "lsb ended with {status}");
    Ok(())
}

/// The release build of the command.
fn build() -> Result<PathBuf> {
    let root = crate::repository_root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = Command::new(cargo)
        .current_dir(&root)
        .args(["build", "--quiet", "--release", "--package", "lsb-cli", "--bin", "lsb"])
        .status()
        .context("cargo build")?;
    ensure!(build.success(), "lsb cannot be built");
    let metadata = MetadataCommand::new().current_dir(&root).no_deps().exec()?;
    Ok(metadata.target_directory.into_std_path_buf().join("release/lsb"))
}

/// Whether this machine lets `perf` take samples.
fn perf_works() -> bool {
    let attempt = Command::new("perf")
        .args(["record", "--quiet", "--output", "/dev/null", "--", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    attempt.is_ok_and(|status| status.success())
}

/// Name and share lines of a table whose first column is as wide as it has to be.
fn table(lines: &[(String, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// What `lsb` recorded: thread seconds of every kind of work, most first.
fn by_work(document: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let mut phases: Vec<(&str, f64)> = document["phases"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, seconds)| (name.as_str(), number(seconds)))
        .collect();
    phases.sort_by(|a, b| b.1.total_cmp(&a.1));
    let total: f64 = phases.iter().map(|(_, seconds)| seconds).sum();
    let mut lines = vec![("kind of work".to_owned(), "thread seconds    share".to_owned())];
    lines.extend(phases.iter().map(|(name, seconds)| {
        (
            (*name).to_owned(),
            format!("{seconds:14.3}  {:5.1} %", 100.0 * seconds / total.max(f64::MIN_POSITIVE)),
        )
    }));
    lines.push(("all of these".to_owned(), format!("{total:14.3}")));
    lines.push(("on the clock".to_owned(), format!("{:14.3}", number(&document["seconds"]))));
    lines.push(("peak memory".to_owned(), format!("{:11.1} MB", number(&document["peak_rss_bytes"]) / 1e6)));
    table(&lines)
}

/// The functions that samples were taken in, most first.
fn by_function(samples: &Path, least: f64) -> Result<String> {
    let output = Command::new("perf")
        .args(["report", "--stdio", "--quiet", "--fields", "overhead,sym", "--percent-limit"])
        .arg(least.to_string())
        .arg("--input")
        .arg(samples)
        .output()
        .context("perf report")?;
    ensure!(output.status.success(), "perf report: {}", String::from_utf8_lossy(&output.stderr).trim());
    let mut lines = vec![("share".to_owned(), "function".to_owned())];
    lines.extend(functions(&String::from_utf8_lossy(&output.stdout)));
    Ok(table(&lines))
}

/// Reads lines such as `    12.34%  [.] lsb_quant::decode`.
fn functions(report: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (share, function) = line.trim().split_once('%')?;
        let share: f64 = share.trim().parse().ok()?;
        Some((format!("{share:5.1} %"), function.trim().to_owned()))
    };
    report.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_listed_by_what_it_took() {
        let document = serde_json::json!({
            "seconds": 2.0, "peak_rss_bytes": 300_000_000u64, "phases": {"reading": 1.0, "search": 3.0},
        });
        let text = by_work(&document);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("search") && lines[1].ends_with("75.0 %"), "{text}");
        assert!(lines[2].starts_with("reading") && lines[2].ends_with("25.0 %"), "{text}");
        assert!(lines[3].ends_with("4.000") && lines[4].ends_with("2.000"), "{text}");
        assert!(lines[5].ends_with("300.0 MB"), "{text}");
    }

    #[test]
    fn a_command_that_recorded_nothing_has_an_empty_table() {
        assert_eq!(by_work(&serde_json::json!({})).lines().count(), 4);
    }

    #[test]
    fn functions_are_read_from_what_perf_prints() {
        let report =
            "# Samples\n\n    12.34%  [.] lsb_quant::codec::decode\n     3.00%  [k] 0xffff\nnonsense\n";
        let expected = [(" 12.3 %", "[.] lsb_quant::codec::decode"), ("  3.0 %", "[k] 0xffff")];
        assert_eq!(functions(report), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
