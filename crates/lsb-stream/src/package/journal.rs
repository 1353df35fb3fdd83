//! The journal of a staging directory: one line for each tensor whose bytes are known to be on disk.
//!
//! A line is the CRC32C of its JSON in eight hexadecimal digits, a space, the JSON, a line feed. The first line
//! holds the fingerprint; the checksums of all others start from it, so lines of another run never count.

use crate::Result;
use crate::error::Error;
use crate::store::{OpenMode, Store, StoreFile};
use lsb_format::package::{CodecRecord, Fingerprint, ShortDigest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

/// A tensor that is completely written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishedTensor {
    /// Its number among the stored tensors.
    pub(super) seq: usize,
    /// Its name.
    pub name: String,
    /// The shard that holds it, counted from zero.
    pub(super) shard: usize,
    /// Where its bytes start in the file.
    pub(super) offset: u64,
    /// Its stored bytes: tiles and tile table.
    pub bytes: u64,
    /// Hash of the stored bytes.
    pub(super) blake3: ShortDigest,
    /// The codec that was used.
    pub codec: CodecRecord,
    /// What the caller wanted to remember.
    pub facts: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstLine {
    lsb_journal: u32,
    fingerprint: Fingerprint,
}

/// What a journal proves: the part in front of its first bad line.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) fingerprint: Fingerprint,
    /// The lines, each with its end in the file.
    pub(super) tensors: Vec<(FinishedTensor, u64)>,
    /// End of the first line.
    pub(super) start: u64,
}

/// A journal that is being written.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Box<dyn StoreFile>,
    seed: u32,
    end: u64,
}

impl Journal {
    /// Starts a journal with its first line and makes its content durable (not its name).
    pub(super) fn create(store: &dyn Store, path: &Path, fingerprint: &Fingerprint) -> Result<Self> {
        let file = store.open(path, OpenMode::Create).map_err(Error::io("create", path))?;
        let mut journal = Journal { path: path.to_owned(), file, seed: 0, end: 0 };
        journal.append(&[FirstLine { lsb_journal: 1, fingerprint: fingerprint.clone() }])?;
        journal.seed = seed(fingerprint);
        Ok(journal)
    }

    /// Continues a journal behind what it proves, forgetting everything after `end`.
    pub(super) fn resume(
        store: &dyn Store,
        path: &Path,
        fingerprint: &Fingerprint,
        end: u64,
    ) -> Result<Self> {
        let file = store.open(path, OpenMode::Update).map_err(Error::io("open", path))?;
        file.set_size(end).map_err(Error::io("cut", path))?;
        file.sync_data().map_err(Error::io("sync", path))?;
        Ok(Journal { path: path.to_owned(), file, seed: seed(fingerprint), end })
    }

    /// Appends lines and makes them durable.
    pub(super) fn append<T: Serialize>(&mut self, records: &[T]) -> Result<()> {
        let mut lines = Vec::new();
        for record in records {
            let json = serde_json::to_vec(record)
                .map_err(|e| Error::io("write", &self.path)(io::Error::other(e)))?;
            lines.extend(format!("{:08x} ", crc32c::crc32c_append(self.seed, &json)).as_bytes());
            lines.extend(&json);
            lines.push(b'\n');
        }
        self.file.write_all_at(&lines, self.end).map_err(Error::io("write", &self.path))?;
        self.file.sync_data().map_err(Error::io("sync", &self.path))?;
        self.end += lines.len() as u64;
        Ok(())
    }

    /// Reads the journal at `path`: `None` where its first line proves nothing.
    pub(super) fn read(store: &dyn Store, path: &Path) -> Result<Option<Proven>> {
        let file = store.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
        let size = file.size().map_err(Error::io("read", path))?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0).map_err(Error::io("read", path))?;

        let mut lines = bytes.split_inclusive(|b| *b == b'\n');
        let Some(line) = lines.next() else { return Ok(None) };
        let Some(first) = parse::<FirstLine>(line, 0).filter(|f| f.lsb_journal == 1) else {
            return Ok(None);
        };
        let start = line.len() as u64;
        let mut proven = Proven { fingerprint: first.fingerprint, tensors: Vec::new(), start };
        let seed = seed(&proven.fingerprint);
        let mut end = start;
        for line in lines {
            let Some(record) = parse::<FinishedTensor>(line, seed) else { break };
            if record.seq != proven.tensors.len() {
                break;
            }
            end += line.len() as u64;
            proven.tensors.push((record, end));
        }
        Ok(Some(proven))
    }
}

fn seed(fingerprint: &Fingerprint) -> u32 {
    crc32c::crc32c(fingerprint.digest().as_bytes())
}

fn parse<T: for<'de> Deserialize<'de>>(line: &[u8], seed: u32) -> Option<T> {
    let (crc, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let expected = format!("{:08x} ", crc32c::crc32c_append(seed, json));
    if crc != expected.as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use serde_json::json;

    fn finished(seq: usize) -> FinishedTensor {
        FinishedTensor {
            seq,
            name: format!("tensor {seq}"),
            shard: 0,
            offset: 64,
            bytes: 9,
            blake3: ShortDigest::of(b"x"),
            codec: CodecRecord { id: "raw".to_owned(), parameters: Default::default() },
            facts: json!({"sum": 0.1 + 0.2, "n": 7}),
        }
    }

    fn proven(store: &MemoryStore, path: &Path) -> usize {
        Journal::read(store, path).unwrap().map_or(0, |p| p.tensors.len())
    }

    #[test]
    fn a_journal_proves_its_lines_up_to_the_first_bad_byte() {
        let (store, path) = (MemoryStore::new(), Path::new("/journal"));
        let fingerprint = Fingerprint::new().with("codec", "raw");
        let mut journal = Journal::create(&store, path, &fingerprint).unwrap();
        journal.append(&[finished(0), finished(1)]).unwrap();
        journal.append(&[finished(2)]).unwrap();
        let read = Journal::read(&store, path).unwrap().unwrap();
        assert_eq!(read.fingerprint, fingerprint);
        assert_eq!(read.tensors.iter().map(|t| t.0.clone()).collect::<Vec<_>>(), [0, 1, 2].map(finished));

        let bytes = store.read(path).unwrap();
        let ends: Vec<usize> = read.tensors.iter().map(|t| t.1 as usize).collect();
        for i in 0..bytes.len() {
            let expected = ends.iter().filter(|end| **end <= i).count();
            store.put(path, &bytes[..i]).unwrap();
            assert_eq!(proven(&store, path), expected, "cut at {i}");
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            store.put(path, &damaged).unwrap();
            assert_eq!(proven(&store, path), expected, "flipped at {i}");
        }
    }

    #[test]
    fn lines_of_another_run_do_not_count() {
        let (store, a, b) = (MemoryStore::new(), Path::new("/a"), Path::new("/b"));
        Journal::create(&store, a, &Fingerprint::new().with("bits", "3")).unwrap();
        let mut journal = Journal::create(&store, b, &Fingerprint::new().with("bits", "4")).unwrap();
        let start = store.read(b).unwrap().len();
        journal.append(&[finished(0)]).unwrap();
        let mixed = [store.read(a).unwrap(), store.read(b).unwrap().split_off(start)].concat();
        store.put(a, &mixed).unwrap();
        assert_eq!(proven(&store, a), 0);
        assert_eq!(proven(&store, b), 1);
    }

    #[test]
    fn resuming_forgets_what_is_behind_the_end() {
        let (store, path) = (MemoryStore::new(), Path::new("/journal"));
        let fingerprint = Fingerprint::new();
        let mut journal = Journal::create(&store, path, &fingerprint).unwrap();
        journal.append(&[finished(0), finished(1)]).unwrap();
        let end = Journal::read(&store, path).unwrap().unwrap().tensors[0].1;
        let mut journal = Journal::resume(&store, path, &fingerprint, end).unwrap();
        assert_eq!(proven(&store, path), 1);
        journal.append(&[finished(1)]).unwrap();
        assert_eq!(proven(&store, path), 2);
    }
}
