//! `cargo xtask <command>`: parse the command line, call the command.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use xtask::{bench, fixtures, minilm, mutate, profile, results, synth, tidy};

// Every allocation of a mutation run is measured; the other commands do not notice.
#[global_allocator]
static ALLOCATOR: mutate::Watched = mutate::Watched;

/// Developer commands of the lsb repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the crate arrows and the house rules.
    Tidy(tidy::Args),
    /// Regenerate every generated fixture, or check that none has changed.
    Fixtures(fixtures::Args),
    /// Write a model of a known shape with random heavy-tailed weights.
    SynthModel(synth::Args),
    /// Fetch all-MiniLM-L6-v2, a real sentence encoder, into the data folder.
    Minilm(minilm::Args),
    /// Feed mutated inputs to every reader and decoder.
    Mutate(mutate::Args),
    /// Measure every codec and write docs/results.md.
    Results(results::Args),
    /// Measure every stage beside a yardstick and write docs/performance.md.
    Bench(bench::Args),
    /// Run the release build of lsb and say where the time went.
    Profile(profile::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Tidy(args) => tidy::run(&args),
        Command::Fixtures(args) => fixtures::run(&args),
        Command::SynthModel(args) => synth::run(&args),
        Command::Minilm(args) => minilm::run(&args),
        Command::Mutate(args) => mutate::run(&args),
        Command::Results(args) => results::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Profile(args) => profile::run(&args),
    }
}
