//! The program `zstd`, as a yardstick of coding without loss.

use crate::Outcome;
use crate::measure::median;
use std::path::Path;
use std::process::Command;

pub(crate) const MISSING: &str = "zstd, a general compressor: install the program `zstd`";

/// What `zstd -3` does with a file in memory on one thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Speed {
    /// Source bytes over stored bytes.
    pub(crate) ratio: f64,
    /// Source bytes per second.
    pub(crate) encode: f64,
    pub(crate) decode: f64,
}

/// Measures it so many times, a second each, and takes medians; `None` where there is no such program.
pub(crate) fn measure(file: &Path, runs: usize) -> Outcome<Option<Speed>> {
    let mut all = Vec::with_capacity(runs);
    for _ in 0..runs {
        let run = Command::new("zstd").args(["-b3", "-i1", "-q", "--single-thread"]).arg(file).output();
        match run {
            Ok(output) => all.extend(parse(&String::from_utf8_lossy(&output.stdout))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
    let middle = |of: fn(&Speed) -> f64| median(all.iter().map(of).collect());
    Ok((!all.is_empty()).then(|| Speed {
        ratio: middle(|s| s.ratio),
        encode: middle(|s| s.encode),
        decode: middle(|s| s.decode),
    }))
}

/// Reads `-3  26123456 (1.284)  310.2 MB/s  905.1 MB/s  NAME`.
fn parse(text: &str) -> Option<Speed> {
    let line = text.lines().rfind(|line| line.matches("MB/s").count() == 2)?;
    let (ratio, speeds) = line.split_once('(')?.1.split_once(')')?;
    let mut speeds = speeds.split("MB/s").map(|speed| speed.trim().parse::<f64>().ok());
    let (encode, decode) = (speeds.next()??, speeds.next()??);
    Some(Speed { ratio: ratio.trim().parse().ok()?, encode: encode * 1e6, decode: decode * 1e6 })
}
