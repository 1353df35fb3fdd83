//! The memory budget: every large allocation reserves from it and gives back on drop.

use crate::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

#[derive(Debug, Default)]
struct State {
    used: u64,
    peak: u64,
    closed: bool,
    /// Grows with everything a waiter may be waiting for.
    changes: u64,
}

#[derive(Debug)]
struct Inner {
    limit: u64,
    state: Mutex<State>,
    changed: Condvar,
}

/// A number of bytes that may be held at once. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Budget(Arc::new(Inner { limit, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// The budget for a process that may use `target_ram_mb` MB in all: what the program itself, its
    /// stacks and its small allocations need is set aside first.
    pub fn for_process(target_ram_mb: u64) -> Self {
        Budget::new(target_ram_mb.saturating_mul(1_000_000).saturating_sub(Self::PROCESS_BYTES))
    }

    /// Set aside for code, stacks, small allocations and allocator slack.
    pub const PROCESS_BYTES: u64 = 28_000_000;

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Bytes reserved now.
    pub fn used(&self) -> u64 {
        self.lock().used
    }

    /// Most bytes that were reserved at once.
    pub fn peak(&self) -> u64 {
        self.lock().peak
    }

    /// Reserves `bytes` for `what`, or says that they are not there.
    ///
    /// # Errors
    /// [`Error::OverBudget`] if less than `bytes` is left.
    pub fn reserve(&self, bytes: u64, what: &str) -> Result<Reservation> {
        let mut state = self.lock();
        let available = self.0.limit - state.used;
        if bytes > available {
            return Err(self.over(bytes, available, what));
        }
        Ok(self.take(&mut state, bytes))
    }

    /// Counts what a waiter may be waiting for: reservations given back, and [`Budget::notify`].
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Waits until [`Budget::changes`] differs from `seen`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once [`Budget::close`] was called.
    pub(crate) fn wait_past(&self, seen: u64) -> Result<()> {
        let mut state = self.lock();
        while state.changes == seen && !state.closed {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Wakes all waiters: something they may use instead of fresh memory has come back.
    pub(crate) fn notify(&self) {
        self.lock().changes += 1;
        self.0.changed.notify_all();
    }

    /// Ends all waiting, now and later, with [`Error::Interrupted`]: the work was given up.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere leaves the counters valid: they change in one step.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, state: &mut State, bytes: u64) -> Reservation {
        state.used += bytes;
        state.peak = state.peak.max(state.used);
        Reservation { budget: self.clone(), bytes }
    }

    pub(crate) fn over(&self, needed: u64, available: u64, what: &str) -> Error {
        Error::OverBudget {
            what: what.to_owned(),
            needed,
            available,
            advice: format!(
                "raise --target-ram-mb to {} or more",
                (needed + Self::PROCESS_BYTES + (self.0.limit - available)).div_ceil(1_000_000)
            ),
        }
    }
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Reservation {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.lock().used -= self.bytes;
        self.budget.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_come_back_on_drop_and_the_peak_stays() {
        let budget = Budget::new(100);
        let a = budget.reserve(60, "a").unwrap();
        let e = budget.reserve(50, "b").unwrap_err();
        assert!(matches!(e, Error::OverBudget { needed: 50, available: 40, .. }), "{e}");
        drop(a);
        let _b = budget.reserve(50, "b").unwrap();
        assert_eq!((budget.used(), budget.peak()), (50, 60));
    }

    #[test]
    fn waiting_ends_when_room_appears_or_the_budget_closes() {
        let budget = Budget::new(10);
        let held = budget.reserve(10, "a").unwrap();
        let seen = budget.changes();
        let other = budget.clone();
        let waiter = std::thread::spawn(move || other.wait_past(seen));
        drop(held);
        waiter.join().unwrap().unwrap();
        assert_eq!(budget.used(), 0);
        let other = budget.clone();
        let seen = budget.changes();
        let waiter = std::thread::spawn(move || other.wait_past(seen));
        budget.close();
        assert!(matches!(waiter.join().unwrap(), Err(Error::Interrupted)));
    }
}
