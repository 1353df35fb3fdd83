//! Reads the JSON of a header in one pass, entry by entry.

use super::header::{Header, Note, Record};
use super::{MAX_HEADER_LIMIT, MAX_NAME_LEN, MAX_RANK, PREFIX_LEN};
use crate::json::{Reader, Rules};
use crate::{DType, Error, Result, escape};
use std::borrow::Cow;

const RULES: Rules = Rules {
    encoding: "B22",
    syntax: "B23",
    kind: "B30",
    depth: "B44",
    surrogate: "B45",
    number: "B31",
    duplicate: "B28",
};

/// Notes kept of one header; a hostile one could otherwise fill memory and screen with them.
const MAX_NOTES: usize = 32;

const METADATA: &str = "__metadata__";

impl Header {
    /// Reads the JSON text of a header (without the 8 bytes before it), for a file with `data_len` bytes
    /// after the header.
    ///
    /// # Errors
    /// The first rule of `docs/bad-inputs.md`, `B8` to `B49`, that the header breaks, with the tensor and
    /// the offset in the file.
    pub fn parse(header_bytes: &[u8], data_len: u64) -> Result<Header> {
        let header_len = header_bytes.len() as u64;
        if header_len > MAX_HEADER_LIMIT {
            let message = format!("the header has {header_len} bytes, the limit is {MAX_HEADER_LIMIT}");
            return Err(Error::corruption("B20", message).at(0));
        }
        let mut header = Header { header_len, ..Header::default() };
        let mut reader = Reader::new(header_bytes, PREFIX_LEN, RULES)?;
        match reader.peek() {
            Some(b'{') => {}
            Some(b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                let message = "the header is JSON, but not an object";
                return Err(Error::corruption("B24", message).at(reader.offset()));
            }
            Some(0) => return Err(nul(&mut reader)),
            _ => {
                let message = "the header does not begin with '{'";
                return Err(Error::corruption("B23", message).at(reader.offset()));
            }
        }
        let mut metadata_at = None;
        reader.object(|reader, name, at| {
            if name != METADATA {
                return header.read_entry(reader, &name, at);
            }
            if let Some(first) = metadata_at.replace(at) {
                return Err(twice(METADATA, first, at));
            }
            header.read_metadata(reader)
        })?;
        if reader.peek() == Some(0) {
            return Err(nul(&mut reader));
        }
        reader.end()?;
        header.sort_names(header_bytes)?;
        header.check_layout(data_len)?;
        Ok(header)
    }

    fn read_entry(&mut self, reader: &mut Reader<'_>, name: &str, at: u64) -> Result<()> {
        if name.len() > MAX_NAME_LEN {
            let message = format!(
                "a tensor name of {} bytes, the limit is {MAX_NAME_LEN}: \"{}\"",
                name.len(),
                escape(name)
            );
            return Err(Error::corruption("B42", message).at(at));
        }
        self.read_fields(reader, name, at).map_err(|e| e.in_tensor(name).at(at))
    }

    fn read_fields(&mut self, reader: &mut Reader<'_>, name: &str, at: u64) -> Result<()> {
        let mut dtype: Option<(DType, u64)> = None;
        let mut shape_at = None;
        let mut range: Option<([u64; 2], u64)> = None;
        let dims_at = self.dims.len();
        reader.object(|reader, field, at| {
            match &*field {
                "dtype" => {
                    if let Some((_, first)) = dtype.replace((read_dtype(reader)?, at)) {
                        return Err(twice(&field, first, at));
                    }
                }
                "shape" => {
                    if let Some(first) = shape_at.replace(at) {
                        return Err(twice(&field, first, at));
                    }
                    self.read_shape(reader)?;
                }
                "data_offsets" => {
                    if let Some((_, first)) = range.replace((read_range(reader)?, at)) {
                        return Err(twice(&field, first, at));
                    }
                }
                _ => {
                    reader.skip()?;
                    self.note_field(name, &field, at);
                }
            }
            Ok(())
        })?;
        let missing = |field| Error::corruption("B30", format!("the entry has no \"{field}\""));
        let (dtype, _) = dtype.ok_or_else(|| missing("dtype"))?;
        shape_at.ok_or_else(|| missing("shape"))?;
        let ([begin, end], _) = range.ok_or_else(|| missing("data_offsets"))?;
        let shape = self.dims.get(dims_at..).unwrap_or(&[]);
        let rank = shape.len() as u8;
        check_range(dtype, shape, begin, end)?;
        let narrow =
            |n: u64| u32::try_from(n).map_err(|_| Error::corruption("B20", "the header is too large"));
        let record = Record {
            begin,
            end,
            name_at: narrow(self.names.len() as u64)?,
            dims_at: narrow(dims_at as u64)?,
            header_at: narrow(at)?,
            name_len: name.len() as u16,
            rank,
            dtype,
        };
        self.names.push_str(name);
        self.records.push(record);
        Ok(())
    }

    fn read_shape(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let mut rank = 0;
        reader.array(|reader| {
            let at = reader.offset();
            if rank == MAX_RANK {
                let message = format!("the shape has more than {MAX_RANK} dimensions");
                return Err(Error::corruption("B41", message).at(at));
            }
            rank += 1;
            let Some(dim) = reader.unsigned()? else {
                let message = "a dimension of the shape is not a whole number from 0 to 2^64-1";
                return Err(Error::corruption("B31", message).at(at));
            };
            self.dims.push(dim);
            Ok(())
        })
    }

    fn read_metadata(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let wrong =
            |at| Error::corruption("B29", format!("{METADATA} is not a map of strings to strings")).at(at);
        if reader.peek() != Some(b'{') {
            return Err(wrong(reader.offset()));
        }
        let mut offsets = Vec::new();
        reader.object(|reader, key, at| {
            if reader.peek() != Some(b'"') {
                return Err(wrong(reader.offset()));
            }
            let value = reader.string()?;
            self.metadata.push((key.into_owned(), value.into_owned()));
            offsets.push(at);
            Ok(())
        })?;
        let mut order: Vec<usize> = (0..self.metadata.len()).collect();
        order.sort_by(|&a, &b| self.metadata[a].0.cmp(&self.metadata[b].0));
        match order.windows(2).find(|w| self.metadata[w[0]].0 == self.metadata[w[1]].0) {
            Some(w) => Err(twice(&self.metadata[w[0]].0, offsets[w[0]], offsets[w[1]])),
            None => Ok(()),
        }
    }

    /// Sorts the names and refuses equal ones, which a map would silently merge.
    fn sort_names(&mut self, json: &[u8]) -> Result<()> {
        let mut order: Vec<u32> = (0..self.records.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| {
            let key = |i: u32| self.name(&self.records[i as usize]);
            key(a).cmp(key(b)).then(a.cmp(&b))
        });
        for pair in order.windows(2) {
            let (a, b) = (&self.records[pair[0] as usize], &self.records[pair[1] as usize]);
            let name = self.name(a);
            if name == self.name(b) {
                // Escapes can spell one name in two ways, which hides the second from a search for the first.
                let rule =
                    if spelled_alike(json, a, name) && spelled_alike(json, b, name) { "B26" } else { "B27" };
                let message =
                    format!("the tensor is there twice, at bytes {} and {}", a.header_at, b.header_at);
                return Err(Error::corruption(rule, message).in_tensor(name).at(u64::from(b.header_at)));
            }
        }
        self.by_name = order;
        Ok(())
    }

    fn note_field(&mut self, tensor: &str, field: &str, offset: u64) {
        if self.notes.len() < MAX_NOTES {
            let message = format!("unknown field \"{}\" is ignored", escape(field));
            self.notes.push(Note { rule: "B30", tensor: Some(tensor.to_owned()), offset, message });
        }
    }
}

/// True where the header spells the name without escapes.
fn spelled_alike(json: &[u8], record: &Record, name: &str) -> bool {
    let at = (u64::from(record.header_at) - PREFIX_LEN + 1) as usize;
    json.get(at..)
        .is_some_and(|rest| rest.strip_prefix(name.as_bytes()).is_some_and(|r| r.starts_with(b"\"")))
}

fn read_dtype(reader: &mut Reader<'_>) -> Result<DType> {
    let at = reader.offset();
    let name: Cow<'_, str> = reader.string()?;
    DType::from_name(&name).ok_or_else(|| {
        let known: Vec<_> = DType::ALL.iter().map(|d| d.name()).collect();
        let message = format!("unknown dtype \"{}\"; known are {}", escape(&name), known.join(", "));
        Error::corruption("B47", message).at(at)
    })
}

fn read_range(reader: &mut Reader<'_>) -> Result<[u64; 2]> {
    let at = reader.offset();
    let wrong = || {
        let message = "data_offsets is not a pair of whole numbers from 0 to 2^64-1";
        Error::corruption("B31", message).at(at)
    };
    if reader.peek() != Some(b'[') {
        return Err(wrong());
    }
    let mut values = Vec::with_capacity(2);
    reader.array(|reader| {
        let value = reader.unsigned()?.filter(|_| values.len() < 2).ok_or_else(wrong)?;
        values.push(value);
        Ok(())
    })?;
    <[u64; 2]>::try_from(values).map_err(|_| wrong())
}

/// Checks a byte range against a shape. The verdict does not depend on the order of the dimensions: zeros are
/// left out of the product that must not overflow.
fn check_range(dtype: DType, shape: &[u64], begin: u64, end: u64) -> Result<()> {
    if begin > end {
        let message = format!("data_offsets begin at {begin} and end before it at {end}");
        return Err(Error::corruption("B32", message));
    }
    let damaged = "the file is damaged or hostile; download it again";
    let empty = shape.contains(&0);
    let product = shape.iter().filter(|&&d| d != 0).try_fold(1u64, |n, &d| n.checked_mul(d));
    let Some(product) = product else {
        let rule = if empty { "B40" } else { "B35" };
        return Err(Error::corruption(rule, format!("shape {shape:?} overflows 64 bits")).advise(damaged));
    };
    if product.checked_mul(dtype.bits()).is_none() {
        let rule = if empty { "B40" } else { "B36" };
        let message = format!("shape {shape:?} of {dtype} overflows 64 bits");
        return Err(Error::corruption(rule, message).advise(damaged));
    }
    let elements = if empty { 0 } else { product };
    let Some(bytes) = dtype.byte_len(elements) else {
        let message =
            format!("shape {shape:?} of {dtype} is {elements} elements, which do not fill whole bytes");
        return Err(Error::corruption("B49", message));
    };
    if bytes != end - begin {
        let message = format!(
            "shape {shape:?} of {dtype} takes {bytes} bytes and data_offsets [{begin}, {end}] give {}",
            end - begin
        );
        return Err(Error::corruption("B37", message).advise(damaged));
    }
    Ok(())
}

fn twice(field: &str, first: u64, at: u64) -> Error {
    Error::corruption("B28", format!("\"{}\" is there twice, at bytes {first} and {at}", escape(field)))
        .at(at)
}

fn nul(reader: &mut Reader<'_>) -> Error {
    Error::corruption("B25", "the header is padded with NUL bytes; only spaces are allowed")
        .at(reader.offset())
}
