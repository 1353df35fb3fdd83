//! What the threads of a stream share: which tensors are there, being read, or wanted next.

use super::order::Order;
use super::{StreamFigures, StreamOptions};
use crate::weights::{ReservedWeights, TensorWeights, WeightSource};
use crate::{Budget, Error, Reservation, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

type Weights = Arc<dyn TensorWeights>;

pub(super) struct Shared {
    pub(super) source: Arc<dyn WeightSource>,
    pub(super) budget: Budget,
    order: Order,
    /// Layers beyond the one last asked for that may be held.
    layers_ahead: u64,
    /// Memory for the whole order, where all of it stays.
    resident: Option<Arc<Reservation>>,
    state: Mutex<State>,
    /// A tensor was read, or could not be.
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    /// The position behind the last one asked for in order.
    cursor: u64,
    /// The position behind the last one looked at by the reader.
    reached: u64,
    /// The position last asked for that is not what comes next.
    astray: Option<u64>,
    /// Another pass follows the current one.
    repeats: bool,
    closed: bool,
    /// Read ahead and not asked for yet, by position.
    ready: BTreeMap<u64, Result<Weights>>,
    /// Kept for good.
    kept: Vec<Weights>,
    /// Everything that may still be in memory, by tensor. Only looked up in.
    alive: HashMap<usize, Weak<dyn TensorWeights>>,
    /// Tensors that some thread is reading.
    reading: BTreeSet<usize>,
    reading_time: Duration,
    waiting_time: Duration,
    not_held: u64,
}

/// The right, and the duty, to read a tensor; others wait until it is dropped.
pub(super) struct Claim {
    shared: Arc<Shared>,
    tensor: usize,
}

/// Also when reading panics: nobody must wait for a tensor that nobody reads.
impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.lock().reading.remove(&self.tensor);
        self.shared.arrived.notify_all();
        self.shared.budget.notify();
    }
}

/// The answer to a request.
pub(super) enum Found {
    Ready(Result<Weights>),
    /// It is to be read, into this memory if there is any.
    Missing(Claim, Option<Arc<Reservation>>),
}

/// What the reader is to do.
pub(super) enum Ahead {
    Read { claim: Claim, position: u64, memory: Arc<Reservation> },
    Wait,
    Finished,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("source", &self.source)
            .field("resident", &self.resident)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        source: Arc<dyn WeightSource>,
        order: Order,
        budget: Budget,
        options: StreamOptions,
    ) -> Self {
        let total = order.tensors().iter().try_fold(0u64, |sum, &t| sum.checked_add(source.held_bytes(t)));
        let fits = |bytes: &u64| options.caching && has_room(&budget, *bytes);
        let resident = total.filter(fits).and_then(|bytes| budget.reserve(bytes, "the weights").ok());
        let layers_ahead = match options.max_layers_in_ram {
            0 => u64::MAX,
            n => n as u64,
        };
        Shared {
            source,
            budget,
            order,
            layers_ahead,
            resident: resident.map(Arc::new),
            state: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state valid: it changes in single steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> StreamFigures {
        let state = self.lock();
        StreamFigures {
            bytes_read: 0,
            seconds_reading: state.reading_time.as_secs_f64(),
            seconds_waited: state.waiting_time.as_secs_f64(),
            resident: self.resident.is_some(),
            not_held: state.not_held,
        }
    }

    pub(super) fn waited(&self, time: Duration) {
        self.lock().waiting_time += time;
    }

    pub(super) fn expect_another_pass(&self, expected: bool) {
        self.lock().repeats = expected;
        self.budget.notify();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.budget.notify();
    }

    /// The tensor if it is in memory, else the right to read it. Waits for a thread that is reading it.
    pub(super) fn find(self: &Arc<Self>, tensor: usize) -> Found {
        let mut state = self.lock();
        let moved = state.request(&self.order, tensor);
        let start = Instant::now();
        let mut waited = false;
        let found = loop {
            if let Some(result) = state.take(&self.order, tensor) {
                break Found::Ready(result);
            }
            if state.reading.insert(tensor) {
                // Reserved before the reader sees that the pass has moved on: what is needed now goes first.
                let kept = self.resident.clone().filter(|_| self.order.contains(tensor));
                let memory = kept.or_else(|| self.reserve(self.source.held_bytes(tensor)));
                break Found::Missing(Claim { shared: Arc::clone(self), tensor }, memory);
            }
            waited = true;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        if waited {
            state.waiting_time += start.elapsed();
        }
        drop(state);
        if moved {
            self.budget.notify();
        }
        found
    }

    /// Holds a tensor that was asked for, or opens it where there is no memory.
    pub(super) fn read_now(&self, claim: Claim, memory: Option<Arc<Reservation>>) -> Result<Weights> {
        let held = memory.is_some();
        let weights: Weights = match memory {
            Some(memory) => self.hold(claim.tensor, memory)?,
            None => Arc::from(self.named(claim.tensor, self.source.open(claim.tensor))?),
        };
        let mut state = self.lock();
        state.alive.insert(claim.tensor, Arc::downgrade(&weights));
        state.not_held += u64::from(!held);
        if self.resident.is_some() && self.order.contains(claim.tensor) {
            state.kept.push(Arc::clone(&weights));
        }
        Ok(weights)
    }

    /// Holds the tensor of a position that nobody has asked for yet.
    pub(super) fn read_ahead(&self, claim: Claim, position: u64, memory: Arc<Reservation>) {
        let result = self.hold(claim.tensor, memory);
        let mut state = self.lock();
        if let Ok(weights) = &result {
            state.alive.insert(claim.tensor, Arc::downgrade(weights));
        }
        match (result, &self.resident) {
            (Ok(weights), Some(_)) => state.kept.push(weights),
            (result, _) => drop(state.ready.insert(position, result)),
        }
    }

    /// What the reader is to do next.
    pub(super) fn next_ahead(self: &Arc<Self>) -> Ahead {
        let mut state = self.lock();
        state.reached = state.reached.max(if self.resident.is_some() { 0 } else { state.cursor });
        loop {
            let position = state.reached;
            let Some(tensor) = self.order.tensor(position).filter(|_| !state.closed) else {
                return Ahead::Finished;
            };
            if self.resident.is_some() && position >= self.order.len() {
                return Ahead::Finished;
            }
            if self.resident.is_none() && !state.may_read(&self.order, self.layers_ahead, position) {
                return Ahead::Wait;
            }
            if state.reading.contains(&tensor) {
                return Ahead::Wait;
            }
            if let Some(weights) = state.alive.get(&tensor).and_then(Weak::upgrade) {
                // In use, and wanted again: it need not be read for that.
                if self.resident.is_none() {
                    state.ready.insert(position, Ok(weights));
                }
                state.reached += 1;
                continue;
            }
            let memory = match &self.resident {
                Some(all) => Arc::clone(all),
                None => {
                    let bytes = self.source.held_bytes(tensor);
                    if is_too_large(&self.budget, bytes) {
                        state.reached += 1;
                        continue;
                    }
                    let Some(memory) = self.reserve(bytes) else { return Ahead::Wait };
                    memory
                }
            };
            state.reading.insert(tensor);
            state.reached += 1;
            return Ahead::Read { claim: Claim { shared: Arc::clone(self), tensor }, position, memory };
        }
    }

    fn hold(&self, tensor: usize, memory: Arc<Reservation>) -> Result<Weights> {
        let start = Instant::now();
        let result = self.named(tensor, self.source.hold(tensor));
        self.lock().reading_time += start.elapsed();
        Ok(Arc::new(ReservedWeights::new(result?, memory)))
    }

    /// Memory for a tensor that is not kept.
    fn reserve(&self, bytes: u64) -> Option<Arc<Reservation>> {
        if is_too_large(&self.budget, bytes) || !has_room(&self.budget, bytes) {
            return None;
        }
        self.budget.reserve(bytes, "a tensor").ok().map(Arc::new)
    }

    /// Whatever goes wrong may be told long after it happened: it says which tensor it is about.
    fn named<T>(&self, tensor: usize, result: Result<T>) -> Result<T> {
        let name = || self.source.tensors().get(tensor).map(|facts| facts.name.as_str()).unwrap_or_default();
        result.map_err(|error| match error {
            Error::Input(e) => Error::Input(e.in_tensor(name())),
            error => error,
        })
    }
}

/// A share of the budget that weights leave to those who reserve while a pass is under way.
const FREE_SHARE: u64 = 8;

fn has_room(budget: &Budget, bytes: u64) -> bool {
    let free = budget.limit().saturating_sub(budget.limit() / FREE_SHARE).saturating_sub(budget.used());
    bytes <= free
}

/// Holding it would leave no room for what is used with it and after it.
fn is_too_large(budget: &Budget, bytes: u64) -> bool {
    bytes > budget.limit() / 2
}

impl State {
    /// Notes a request for `tensor`; true if it is the next one of the pass.
    fn request(&mut self, order: &Order, tensor: usize) -> bool {
        let Some(position) = order.next(tensor, self.cursor) else { return false };
        // Somebody who leaves the order is followed from the second step on: a single request out of turn,
        // such as for a matrix that serves twice, must not make the reader give up what comes next.
        let follows = self.astray.is_some_and(|astray| astray + 1 == position);
        if position != self.cursor && !self.ready.contains_key(&position) && !follows {
            self.astray = Some(position);
            return false;
        }
        self.astray = None;
        self.cursor = position + 1;
        // Skipped tensors of this layer may still be asked for, those of layers before are left behind.
        let layer = order.layer(position);
        while let Some(entry) = self.ready.first_entry()
            && order.layer(*entry.key()) < layer
        {
            drop(entry.remove());
        }
        true
    }

    /// The tensor, if it is in memory; or why reading it ahead failed.
    fn take(&mut self, order: &Order, tensor: usize) -> Option<Result<Weights>> {
        let passed = self.ready.range(..self.cursor).map(|(position, _)| *position);
        let position = passed.into_iter().find(|position| order.tensor(*position) == Some(tensor));
        if let Some(result) = position.and_then(|position| self.ready.remove(&position)) {
            return Some(result);
        }
        self.alive.get(&tensor)?.upgrade().map(Ok)
    }

    /// Whether the position is near enough to be read ahead.
    fn may_read(&self, order: &Order, layers_ahead: u64, position: u64) -> bool {
        let current = self.cursor.saturating_sub(1);
        let in_pass = self.repeats || position < order.end_of_pass(current);
        let in_layers = order.layer(position) - order.layer(current) <= layers_ahead;
        // Never a whole pass ahead: that would be the tensor in use.
        in_pass && in_layers && position - current < order.len()
    }
}
