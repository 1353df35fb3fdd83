//! Activations between the layers of a pass: in memory where the budget has room, else in a temporary file.

mod file;
#[cfg(test)]
mod tests;

use crate::{Budget, Error, Reservation, Result};
use file::SpillFile;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Slots of f32 values, each of a fixed length, written and read whole. Any number of threads may use
/// different slots at once.
#[derive(Debug)]
pub struct ActivationStore {
    slots: Slots,
    written: AtomicU64,
    read: AtomicU64,
}

#[derive(Debug)]
enum Slots {
    Memory { slots: Vec<Mutex<MemorySlot>>, _memory: Reservation },
    File { slots: Vec<Mutex<FileSlot>>, file: SpillFile },
}

#[derive(Debug)]
struct MemorySlot {
    len: usize,
    /// `None` until something was put in.
    values: Option<Vec<f32>>,
}

#[derive(Debug)]
struct FileSlot {
    len: usize,
    /// First byte in the file.
    at: u64,
    filled: bool,
}

impl ActivationStore {
    /// A store of slots with these numbers of values. All of it is reserved from `budget` if that has room;
    /// else a file without a name is made in `dir`, by default the system's folder for temporary files, and
    /// its space claimed now. The file goes with the store, however that ends.
    ///
    /// # Errors
    /// [`Error::Refused`] if the disk has no room, naming the directory and the bytes needed; [`Error::Io`] if
    /// no file can be made there.
    pub fn new(budget: &Budget, slots: Vec<usize>, dir: Option<&Path>) -> Result<Self> {
        let mut bytes = 0u64;
        let mut places = Vec::with_capacity(slots.len());
        for len in slots {
            places.push((len, bytes));
            let end = (len as u64).checked_mul(size_of::<f32>() as u64).and_then(|n| n.checked_add(bytes));
            bytes =
                end.ok_or_else(|| Error::Config("activations of more bytes than can be counted".into()))?;
        }
        let slots = match budget.reserve(bytes, "activations") {
            Ok(memory) => {
                let slot = |(len, _)| Mutex::new(MemorySlot { len, values: None });
                Slots::Memory { slots: places.into_iter().map(slot).collect(), _memory: memory }
            }
            Err(_) => {
                let temporary = std::env::temp_dir();
                let file = SpillFile::new(dir.unwrap_or(&temporary), bytes)?;
                let slot = |(len, at)| Mutex::new(FileSlot { len, at, filled: false });
                Slots::File { slots: places.into_iter().map(slot).collect(), file }
            }
        };
        Ok(ActivationStore { slots, written: AtomicU64::new(0), read: AtomicU64::new(0) })
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        match &self.slots {
            Slots::Memory { slots, .. } => slots.len(),
            Slots::File { slots, .. } => slots.len(),
        }
    }

    /// True if there are no slots.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `values` into slot `slot`, in place of what was there.
    ///
    /// # Errors
    /// If there is no such slot or its length is another one, or [`Error::Io`] if the file cannot be written.
    pub fn put(&self, slot: usize, values: &[f32]) -> Result<()> {
        match &self.slots {
            Slots::Memory { slots, .. } => {
                let mut place = self.slot(slots, slot)?;
                check_len(slot, place.len, values)?;
                let stored = place.values.get_or_insert_with(|| Vec::with_capacity(values.len()));
                stored.clear();
                stored.extend_from_slice(values);
            }
            Slots::File { slots, file } => {
                let mut place = self.slot(slots, slot)?;
                check_len(slot, place.len, values)?;
                // Half of a new value and half of an old one is no value.
                place.filled = false;
                file.write(place.at, values)?;
                place.filled = true;
                self.written.fetch_add(size_of_val(values) as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Reads slot `slot` into `out`, which takes its length.
    ///
    /// # Errors
    /// If there is no such slot or nothing was put into it, or [`Error::Io`] if the file cannot be read.
    pub fn get(&self, slot: usize, out: &mut Vec<f32>) -> Result<()> {
        let empty =
            || Error::Config(format!("activation slot {slot} is read before anything was put into it"));
        match &self.slots {
            Slots::Memory { slots, .. } => {
                let place = self.slot(slots, slot)?;
                let values = place.values.as_ref().ok_or_else(empty)?;
                out.clear();
                out.extend_from_slice(values);
            }
            Slots::File { slots, file } => {
                let place = self.slot(slots, slot)?;
                if !place.filled {
                    return Err(empty());
                }
                out.resize(place.len, 0.0);
                file.read(place.at, out)?;
                self.read.fetch_add(size_of_val(&**out) as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// True if the values are in a file.
    pub fn is_spilled(&self) -> bool {
        matches!(self.slots, Slots::File { .. })
    }

    /// Bytes written to the file so far.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes read from the file so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn slot<'s, T>(&self, slots: &'s [Mutex<T>], slot: usize) -> Result<MutexGuard<'s, T>> {
        let missing = || Error::Config(format!("activation slot {slot} of {}", slots.len()));
        let slot = slots.get(slot).ok_or_else(missing)?;
        Ok(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn check_len(slot: usize, len: usize, values: &[f32]) -> Result<()> {
    if values.len() == len {
        return Ok(());
    }
    Err(Error::Config(format!("{} values for activation slot {slot}, which holds {len}", values.len())))
}
