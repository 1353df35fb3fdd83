//! The threads a verb computes on.

use super::value;
use crate::exit::{Failure, Outcome};
use lsb_stream::threads_or_default;

/// The option, for verbs that have no other of its kind.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Threads {
    /// Number of threads; 0 for one per physical core
    #[arg(long, value_name = "N", value_parser = value::threads, default_value_t = 0)]
    threads: usize,
}

impl Threads {
    /// Starts them. Called once, before any work.
    pub(crate) fn start(self) -> Outcome {
        start(self.threads)
    }
}

/// Starts so many threads for everything that runs on the pool of the process; 0 for as many as are worth it.
pub(crate) fn start(threads: usize) -> Outcome {
    let threads = threads_or_default(threads);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|e| Failure::refused(format!("cannot start {threads} threads: {e}")))
}
