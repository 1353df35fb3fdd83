//! The checked header: names and shapes in two arenas, 40 bytes a tensor beside them.

use crate::DType;

/// The header of one safetensors file. Every entry has been checked: shapes do not overflow, byte ranges
/// match them, and together they cover the data once without holes.
#[derive(Clone, Debug, Default)]
pub struct Header {
    pub(super) names: String,
    pub(super) dims: Vec<u64>,
    pub(super) records: Vec<Record>,
    /// Record numbers in order of name.
    pub(super) by_name: Vec<u32>,
    /// Record numbers in order of data.
    pub(super) by_offset: Vec<u32>,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) notes: Vec<Note>,
    pub(super) header_len: u64,
}

/// One entry, with its name and shape inside the arenas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) name_at: u32,
    pub(super) dims_at: u32,
    pub(super) header_at: u32,
    pub(super) name_len: u16,
    pub(super) rank: u8,
    pub(super) dtype: DType,
}

/// Something unusual that does not make the file unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The rule, such as `B30`.
    pub rule: &'static str,
    /// The tensor it is about.
    pub tensor: Option<String>,
    /// Where it is in the file, in bytes.
    pub offset: u64,
    /// What it is.
    pub message: String,
}

/// One tensor as a header describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name, as it reads after unescaping. Never to be used as a path, and escaped before printing.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: &'a [u64],
    /// First byte, counted from the start of the data.
    pub begin: u64,
    /// Byte after the last, counted from the start of the data.
    pub end: u64,
    /// Where the entry stands in the file (its name's first quote), in bytes from the start of the file.
    pub header_offset: u64,
}

impl Entry<'_> {
    /// Bytes of data.
    pub fn bytes(&self) -> u64 {
        self.end - self.begin
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl Header {
    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True for a file without tensors.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The tensors in the order of the header.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.records.iter().map(|r| self.entry(r))
    }

    /// The tensors in the order of their data; tensors without data come before the one that begins there.
    pub fn entries_by_offset(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.by_offset.iter().map(|&i| self.entry(&self.records[i as usize]))
    }

    /// The tensor of that name.
    pub fn find(&self, name: &str) -> Option<Entry<'_>> {
        let at = self.by_name.binary_search_by(|&i| self.name(&self.records[i as usize]).cmp(name)).ok()?;
        Some(self.entry(&self.records[self.by_name[at] as usize]))
    }

    /// The `__metadata__` entries, in the order of the header.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// What is unusual about this header, at most a few dozen notes.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Bytes before the data: the length field and the JSON text with its padding.
    pub fn data_start(&self) -> u64 {
        super::PREFIX_LEN + self.header_len
    }

    pub(super) fn name(&self, record: &Record) -> &str {
        let at = record.name_at as usize;
        &self.names[at..at + usize::from(record.name_len)]
    }

    pub(super) fn entry(&self, record: &Record) -> Entry<'_> {
        let at = record.dims_at as usize;
        Entry {
            name: self.name(record),
            dtype: record.dtype,
            shape: &self.dims[at..at + usize::from(record.rank)],
            begin: record.begin,
            end: record.end,
            header_offset: u64::from(record.header_at),
        }
    }
}
