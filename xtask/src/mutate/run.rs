//! The parent: one process per target, findings collected from those that ended badly.

use super::child::{self, Layout};
use super::{Args, TARGETS, Target};
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Command;
use std::sync::Mutex;

/// Runs the mutator.
///
/// # Errors
/// If any target panicked, hung, allocated too much or died; the inputs are in `fuzz/findings`.
pub fn run(args: &Args) -> Result<()> {
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|t| args.target.as_ref().is_none_or(|name| t.name == name)).collect();
    let Some(first) = chosen.first() else {
        let names: Vec<_> = TARGETS.iter().map(|t| t.name).collect();
        bail!("no target of that name; there are {}", names.join(", "));
    };
    let layout = Layout::new(&crate::repository_root());
    if let Some(file) = &args.replay {
        let data = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        println!("{}: {}", first.name, (first.run)(&data));
        return Ok(());
    }
    if args.child {
        return child::run(first, args, &layout);
    }
    fs::create_dir_all(&layout.findings)?;
    let jobs = args
        .jobs
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .clamp(1, chosen.len());
    let seconds = (args.seconds * jobs as u64 / chosen.len() as u64).max(1);
    println!("mutate: {} targets, {seconds} s each, {jobs} at a time, seed {}", chosen.len(), args.seed);
    let queue = Mutex::new(chosen.into_iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    // The guard ends with the statement, so that the others may go on.
                    let next = queue.lock().ok().and_then(|mut q| q.next());
                    let Some(target) = next else { break };
                    let result = run_child(target, args, seconds, &layout);
                    if let (Err(e), Ok(mut failed)) = (result, failed.lock()) {
                        println!("{}: {e:#}", target.name);
                        failed.push(target.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    if !failed.is_empty() {
        bail!("mutate: {} found faults; inputs are in {}", failed.join(", "), layout.findings.display());
    }
    Ok(())
}

fn run_child(target: &Target, args: &Args, seconds: u64, layout: &Layout) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["mutate", "--child", "--target", target.name]);
    command.args(["--seconds", &seconds.to_string(), "--seed", &args.seed.to_string()]);
    // One thread per target: the targets themselves are the parallel work.
    command.env("RAYON_NUM_THREADS", "1");
    if args.keep {
        command.arg("--keep");
    }
    let output = command.output().context("cannot start a process for the target")?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    let running = layout.running(target);
    if output.status.success() {
        let _ = fs::remove_file(running);
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<_> = stderr.lines().rev().take(12).collect();
    for line in tail.iter().rev() {
        println!("  | {line}");
    }
    // What it was working on when it died, if it did not say so itself.
    if let Some(data) = layout.read_running(target) {
        let path = layout.save_finding(target, &data)?;
        let _ = fs::remove_file(running);
        bail!("died ({}) on {}", output.status, path.display());
    }
    bail!("{}", output.status)
}
