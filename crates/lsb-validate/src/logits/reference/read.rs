//! Reading a reference, which may come from anywhere: sizes before memory, the checksum before trust.

use super::{
    MAGIC, MAX_HEADER, MAX_TOP, PREFIX, Reference, ReferenceHeader, ReferenceRow, ReferenceRows, TRAILER,
    VERSION,
};
use lsb_format::{Error, ErrorKind};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

const MAKE_AGAIN: &str = "make the reference again from the original";
const OTHER_FILE: &str = "give a file that lsb saved as a reference";

/// Rounding that a log-probability may stand above zero.
const SLACK: f64 = 1e-4;

impl Reference {
    /// Reads a reference file. Takes the memory of its rows once its size agrees with its header.
    ///
    /// # Errors
    /// Rules `R1` to `R6` of `docs/bad-inputs.md`, with the file; or if the system refuses.
    pub fn open(path: &Path) -> lsb_stream::Result<Self> {
        let io = |action| move |source| lsb_stream::Error::Io { action, path: path.to_owned(), source };
        let file = File::open(path).map_err(io("open"))?;
        let metadata = file.metadata().map_err(io("read"))?;
        let result = if metadata.is_file() {
            Self::read(BufReader::new(file), metadata.len())
        } else {
            Err(Failure::Bad(Error::new(ErrorKind::Compatibility, "R1", "not a file").advise(OTHER_FILE)))
        };
        result.map_err(|failure| match failure {
            Failure::Bad(error) => error.in_file(path.display().to_string()).into(),
            Failure::Io(source) => io("read")(source),
        })
    }

    /// Reads `length` bytes.
    fn read(reader: impl Read, length: u64) -> Result<Self, Failure> {
        let mut bytes = Hashed { reader, hasher: blake3::Hasher::new() };
        if length < (PREFIX + TRAILER) as u64 {
            let message = format!("the file has {length} bytes, too few for a reference");
            return Err(Error::new(ErrorKind::Truncated, "R1", message).advise(OTHER_FILE).into());
        }
        let mut prefix = [0; PREFIX];
        bytes.take(&mut prefix)?;
        let [magic @ .., _, _, _, _, _, _, _, _] = prefix;
        let [.., v0, v1, v2, v3, l0, l1, l2, l3] = prefix;
        if magic != MAGIC {
            let message = "the file does not begin as a reference";
            return Err(Error::new(ErrorKind::Compatibility, "R1", message).advise(OTHER_FILE).into());
        }
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if version != VERSION {
            let message = format!("the reference has version {version}, this build reads {VERSION}");
            return Err(Error::new(ErrorKind::Compatibility, "R2", message).advise(MAKE_AGAIN).into());
        }
        let header = read_header(&mut bytes, u32::from_le_bytes([l0, l1, l2, l3]), length)?;
        let rows = read_rows(&mut bytes, &header)?;
        let expected = bytes.hasher.finalize();
        let mut trailer = [0; TRAILER];
        bytes.take(&mut trailer)?;
        if expected != trailer {
            return Err(Error::corruption("R5", "the checksum does not agree").advise(MAKE_AGAIN).into());
        }
        check_rows(&rows)?;
        Ok(Reference { header, rows })
    }
}

/// Why reading failed.
enum Failure {
    Bad(Error),
    Io(std::io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Bad(error)
    }
}

/// A reader whose bytes pass through the checksum.
struct Hashed<R> {
    reader: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Hashed<R> {
    fn take(&mut self, out: &mut [u8]) -> Result<(), Failure> {
        self.reader.read_exact(out).map_err(Failure::Io)?;
        self.hasher.update(out);
        Ok(())
    }
}

/// The header, once it fits the file: `length` bytes in all.
fn read_header<R: Read>(
    bytes: &mut Hashed<R>,
    header_bytes: u32,
    length: u64,
) -> Result<ReferenceHeader, Failure> {
    let around = (PREFIX + TRAILER) as u64;
    let rest = (length - around).checked_sub(u64::from(header_bytes));
    let (Some(rest), true) = (rest, header_bytes as usize <= MAX_HEADER) else {
        let message =
            format!("a header of {header_bytes} bytes, in a file of {length}, at most {MAX_HEADER}");
        return Err(Error::corruption("R3", message).at(12).advise(MAKE_AGAIN).into());
    };
    let mut json = vec![0; header_bytes as usize];
    bytes.take(&mut json)?;
    let header: ReferenceHeader = serde_json::from_slice(&json).map_err(|e| {
        Error::corruption("R3", format!("the header: {e}")).at(PREFIX as u64).advise(MAKE_AGAIN)
    })?;
    let (top, vocabulary) = (header.top, header.vocabulary);
    if top == 0 || top > MAX_TOP || top > vocabulary || vocabulary > u32::MAX as usize {
        let message = format!("{top} ids per token of a vocabulary of {vocabulary}");
        return Err(Error::corruption("R3", message).at(PREFIX as u64).advise(MAKE_AGAIN).into());
    }
    let tokens = header.protocol.scored_tokens;
    let needed = (tokens as u64).checked_mul(header.row_bytes() as u64);
    if needed != Some(rest) {
        let message = format!(
            "{tokens} tokens of {} bytes each do not make the {rest} bytes that are there",
            header.row_bytes()
        );
        return Err(Error::corruption("R4", message).advise(MAKE_AGAIN).into());
    }
    Ok(header)
}

fn read_rows<R: Read>(bytes: &mut Hashed<R>, header: &ReferenceHeader) -> Result<ReferenceRows, Failure> {
    let top = header.top;
    let tokens = header.protocol.scored_tokens;
    let mut rows = ReferenceRows::with_capacity(top, header.vocabulary, tokens);
    let mut row = vec![0; header.row_bytes()];
    for _ in 0..tokens {
        bytes.take(&mut row)?;
        let (sums, kept) = row.split_at(16);
        let (ids, logits) = kept.split_at(4 * top);
        let (sums, _) = sums.as_chunks::<8>();
        if let [nll, log_sum_exp] = sums {
            rows.nll.push(f64::from_le_bytes(*nll));
            rows.log_sum_exp.push(f64::from_le_bytes(*log_sum_exp));
        }
        rows.ids.extend(ids.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)));
        rows.logits.extend(logits.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
    }
    Ok(rows)
}

/// A checksum proves that nothing happened to the file, not that its writer meant well.
fn check_rows(rows: &ReferenceRows) -> Result<(), Error> {
    let mut ids = Vec::with_capacity(rows.top);
    for token in 0..rows.len() {
        let row = rows.row(token);
        ids.clear();
        ids.extend_from_slice(row.ids);
        ids.sort_unstable();
        let distinct = ids.windows(2).all(|pair| pair[0] != pair[1]);
        let in_vocabulary = ids.last().is_some_and(|&id| (id as usize) < rows.vocabulary);
        let sorted = row.logits.windows(2).all(|pair| pair[0] >= pair[1]);
        if !(distinct && in_vocabulary && sorted && is_distribution(row)) {
            let message = format!("scored token {token}: its ids, logits and sums are no distribution");
            return Err(Error::corruption("R6", message).advise(MAKE_AGAIN));
        }
    }
    Ok(())
}

/// Whether the numbers are finite and no probability, nor their sum, is above one.
fn is_distribution(row: ReferenceRow<'_>) -> bool {
    let finite =
        row.nll.is_finite() && row.log_sum_exp.is_finite() && row.logits.iter().all(|x| x.is_finite());
    let mass: f64 = row.logits.iter().map(|&x| (f64::from(x) - row.log_sum_exp).exp()).sum();
    finite && row.nll >= -SLACK && mass <= 1.0 + SLACK
}
