//! `cargo xtask mutate`: every reader and decoder fed with broken inputs, on a stable toolchain.
//!
//! [`one`] runs one input on one target; the fuzz targets in `fuzz/` call it too. A target must return on every input:
//! no panic, no hang, no allocation larger than its input justifies. What it returns is a short word for what
//! happened (the rule of the error, as a rule), by which the mutator tells new inputs from known ones.
//!
//! Each target runs in a process of its own, which writes the input it is about to try into a file: what kills the
//! process is never lost.

mod allocator;
mod child;
mod mutator;
mod run;
mod target;

#[cfg(test)]
mod tests;

pub use allocator::Watched;
pub use run::run;
pub use target::{Seeds, TARGETS, Target};

/// Options of `cargo xtask mutate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Time for all targets together.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u64,
    /// Only this target.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Which random changes.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Add inputs that did something new to fuzz/corpus, up to 16 KiB a target.
    #[arg(long)]
    keep: bool,
    /// Targets that run at the same time; one per CPU where not given.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Run this input once and say what happens.
    #[arg(long, value_name = "FILE", requires = "target")]
    replay: Option<std::path::PathBuf>,
    /// Set by the command itself in the process it starts for one target.
    #[arg(long, hide = true)]
    child: bool,
}

/// Runs one input on the target of that name and says in a word what happened.
///
/// # Panics
/// If there is no such target, or the code under test is wrong.
pub fn one(target: &str, data: &[u8]) -> String {
    match TARGETS.iter().find(|t| t.name == target) {
        Some(target) => (target.run)(data),
        None => panic!("no target is called {target}"),
    }
}
