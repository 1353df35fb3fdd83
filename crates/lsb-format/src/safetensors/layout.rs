//! Do the tensors of a header cover its data exactly once?

use super::header::Header;
use crate::{Error, ErrorKind, Result, escape};

impl Header {
    /// Checks that the byte ranges, in order, begin at 0, follow each other and end with the data.
    pub(super) fn check_layout(&mut self, data_len: u64) -> Result<()> {
        let mut order: Vec<u32> = (0..self.records.len() as u32).collect();
        order.sort_unstable_by_key(|&i| {
            let r = &self.records[i as usize];
            (r.begin, r.end, i)
        });
        let mut next = 0;
        let mut before = None;
        for &i in &order {
            let record = &self.records[i as usize];
            if record.begin != next {
                let previous = before.map(|i: u32| self.name(&self.records[i as usize]));
                let error = if record.begin < next {
                    overlap(record.begin, previous, next)
                } else {
                    hole(record.begin, previous, next)
                };
                return Err(error.in_tensor(self.name(record)).at(u64::from(record.header_at)));
            }
            next = record.end;
            before = Some(i);
        }
        if next > data_len {
            return Err(self.truncated(&order, next, data_len));
        }
        if next < data_len {
            let message = format!("{} bytes follow the last tensor, which ends the file", data_len - next);
            return Err(Error::corruption("B10", message)
                .at(self.data_start().saturating_add(next))
                .advise("the file is damaged or carries something else; download it again"));
        }
        self.by_offset = order;
        Ok(())
    }

    fn truncated(&self, order: &[u32], needed: u64, data_len: u64) -> Error {
        // The first tensor whose data is not all there tells how far a download came.
        let cut = order.iter().map(|&i| &self.records[i as usize]).find(|r| r.end > data_len);
        let name = cut.map(|r| self.name(r)).unwrap_or_default();
        let message = format!(
            "the file is {} bytes short (its tensors take {needed}, {data_len} are there); \
             the first incomplete tensor is \"{}\"",
            needed - data_len,
            escape(name)
        );
        Error::new(ErrorKind::Truncated, "B8", message)
            .in_tensor(name)
            .at(self.data_start().saturating_add(data_len))
            .advise("download it again")
    }
}

fn overlap(begin: u64, previous: Option<&str>, next: u64) -> Error {
    let previous = previous.map(escape).unwrap_or_default();
    let message = format!("data begins at {begin}, inside tensor \"{previous}\", which ends at {next}");
    Error::corruption("B33", message)
}

fn hole(begin: u64, previous: Option<&str>, next: u64) -> Error {
    let message = match previous {
        None => format!("the first tensor's data begins at {begin}, not at 0"),
        Some(name) => {
            let name = escape(name);
            format!("data begins at {begin} and tensor \"{name}\" before it ends at {next}: a hole")
        }
    };
    Error::corruption("B34", message)
}
