//! The thread that holds tensors before they are asked for.

use super::state::{Ahead, Shared};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// Starts the reader. Without a thread the stream works all the same, reading what is asked for.
pub(super) fn spawn(shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let name = "lsb-weights".to_owned();
    let thread = Builder::new().name(name).spawn({
        let shared = Arc::clone(shared);
        move || run(&shared)
    });
    if let Err(e) = &thread {
        tracing::warn!("no thread could be started ({e}); reading on demand instead of ahead");
    }
    thread.ok()
}

/// Everything that may let the reader go on (memory given back, a request, the end) counts as a change of the
/// budget, so that there is one thing to wait for.
fn run(shared: &Arc<Shared>) {
    loop {
        let seen = shared.budget.changes();
        match shared.next_ahead() {
            Ahead::Read { claim, position, memory } => shared.read_ahead(claim, position, memory),
            Ahead::Wait => {
                if shared.budget.wait_past(seen).is_err() {
                    return;
                }
            }
            Ahead::Finished => return,
        }
    }
}
