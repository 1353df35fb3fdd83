//! The factor that was made last, for the next map that is fed with the same inputs.

use super::{ColumnOrder, InputFactor};
use crate::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps one factor: maps that share their inputs (queries, keys and values; gates and ups) come one after the other.
#[derive(Debug, Default)]
pub struct LastFactor(Mutex<Option<Last>>);

/// Tells inputs from others, also from those that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputsId(u64);

#[derive(Debug)]
struct Last {
    made_of: (InputsId, u64, ColumnOrder),
    factor: Arc<InputFactor>,
}

impl InputsId {
    /// One that no other inputs have.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        InputsId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl LastFactor {
    /// The factor that was made of these inputs, if it was the last, else the one that `make` makes, before which the last
    /// is given up.
    pub(super) fn or_make(
        &self,
        id: InputsId,
        damping: f64,
        order: ColumnOrder,
        make: impl FnOnce() -> Result<InputFactor>,
    ) -> Result<Arc<InputFactor>> {
        let made_of = (id, damping.to_bits(), order);
        if let Some(last) = self.lock().take_if(|last| last.made_of != made_of) {
            drop(last);
        }
        if let Some(last) = self.lock().as_ref().filter(|last| last.made_of == made_of) {
            return Ok(Arc::clone(&last.factor));
        }
        // Not under the lock: whoever waits for it may have to help making the factor.
        let factor = Arc::new(make()?);
        *self.lock() = Some(Last { made_of, factor: Arc::clone(&factor) });
        Ok(factor)
    }

    /// Gives up the factor.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_factor_is_found_again() {
        let (last, a, b) = (LastFactor::default(), InputsId::unique(), InputsId::unique());
        let get = |id, damping| {
            last.or_make(id, damping, ColumnOrder::Stored, || Ok(InputFactor::identity(3))).unwrap()
        };
        let first = get(a, 0.01);
        assert!(Arc::ptr_eq(&first, &get(a, 0.01)));
        assert!(!Arc::ptr_eq(&first, &get(a, 0.1)));
        let other = get(b, 0.1);
        assert!(!Arc::ptr_eq(&first, &get(a, 0.01)) && Arc::strong_count(&other) == 1);
        last.clear();
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
