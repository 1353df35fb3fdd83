//! Buffers that are reserved from the budget and used again.

use crate::{Budget, Reservation, Result};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
struct Memory {
    bytes: Vec<u8>,
    _reservation: Reservation,
}

#[derive(Debug)]
struct Inner {
    budget: Budget,
    reuse: bool,
    idle: Mutex<Vec<Memory>>,
}

/// Makes buffers and keeps returned ones for the next request. Idle buffers stay reserved; they are given
/// up when a request of another size would otherwise not fit.
#[derive(Clone, Debug)]
pub struct BufferPool(Arc<Inner>);

impl BufferPool {
    /// A pool that reserves from `budget`; without `reuse` every buffer is given back when dropped.
    pub fn new(budget: Budget, reuse: bool) -> Self {
        BufferPool(Arc::new(Inner { budget, reuse, idle: Mutex::default() }))
    }

    /// A buffer of `len` bytes whose memory is at least `capacity` long, waiting for the budget where
    /// necessary. The content is unspecified.
    ///
    /// # Errors
    /// If `capacity` is above the budget's limit, or the budget was closed.
    pub fn take(&self, len: usize, capacity: usize) -> Result<Buffer> {
        let capacity = capacity.max(len);
        let budget = &self.0.budget;
        if capacity as u64 > budget.limit() {
            return Err(budget.over(capacity as u64, budget.limit(), "a read buffer"));
        }
        let memory = loop {
            let seen = budget.changes();
            if let Some(memory) = self.reuse_idle(capacity) {
                break memory;
            }
            if let Ok(reservation) = budget.reserve(capacity as u64, "a read buffer") {
                break Memory { bytes: vec![0; capacity], _reservation: reservation };
            }
            budget.wait_past(seen)?;
        };
        Ok(Buffer { memory: Some(memory), len, pool: self.clone() })
    }

    fn reuse_idle(&self, capacity: usize) -> Option<Memory> {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = idle.iter().position(|m| m.bytes.len() == capacity) {
            return Some(idle.swap_remove(at));
        }
        // None of this size: give up idle memory if that is what stands in the way.
        while !idle.is_empty() && self.0.budget.limit() - self.0.budget.used() < capacity as u64 {
            idle.pop();
        }
        None
    }
}

/// Bytes reserved from the budget; returned to the pool on drop.
#[derive(Debug)]
pub struct Buffer {
    memory: Option<Memory>,
    len: usize,
    pool: BufferPool,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |m| &m.bytes[..self.len])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.memory.as_mut().map_or(&mut [], |m| &mut m.bytes[..len])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take()
            && self.pool.0.reuse
        {
            self.pool.0.idle.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
            // Wake a reader that waits for memory: it may use this buffer, or have it given up.
            self.pool.0.budget.notify();
        }
    }
}
