//! Writing a reference: header first, then rows as they come, then the checksum.

use super::{MAGIC, MAX_HEADER, MAX_TOP, ReferenceHeader, ReferenceRows, VERSION};
use lsb_stream::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes a reference file. Until [`ReferenceWriter::finish`] it has another name, so that what stands under
/// its own is whole.
///
/// Layout, little-endian: magic `lsb-ref\n`, version (u32), length of the header (u32), the header as JSON;
/// for each scored token its nll (f64), log-sum-exp (f64), `top` ids (u32 each) and their logits (f32 each);
/// BLAKE3 of all that (32 bytes).
#[derive(Debug)]
pub struct ReferenceWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    header: ReferenceHeader,
    tokens: usize,
}

impl ReferenceWriter {
    /// Starts a file at `path` for as many tokens as the header's protocol scores.
    ///
    /// # Errors
    /// If the header is impossible, or the file cannot be created.
    pub fn create(path: &Path, header: ReferenceHeader) -> Result<Self> {
        if header.top == 0 || header.top > MAX_TOP.min(header.vocabulary) {
            let (top, vocabulary) = (header.top, header.vocabulary);
            let message = format!("a reference of {top} ids per token of a vocabulary of {vocabulary}");
            let error = lsb_format::Error::argument(message);
            return Err(error.advise("keep 1 to 4096 ids, no more than there are").into());
        }
        let json = serde_json::to_vec(&header)
            .map_err(|e| lsb_format::Error::argument(format!("the header cannot be written as JSON: {e}")))?;
        if json.len() > MAX_HEADER {
            let message = format!("the header has {} bytes, at most {MAX_HEADER}", json.len());
            return Err(lsb_format::Error::argument(message).advise("shorten the model's name").into());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|e| io("create", &partial, e))?;
        let mut writer = ReferenceWriter {
            path: path.to_owned(),
            partial,
            file: BufWriter::new(file),
            hasher: blake3::Hasher::new(),
            header,
            tokens: 0,
        };
        writer.write(&MAGIC)?;
        writer.write(&VERSION.to_le_bytes())?;
        writer.write(&(json.len() as u32).to_le_bytes())?;
        writer.write(&json)?;
        Ok(writer)
    }

    /// Appends the rows of the next scored tokens.
    ///
    /// # Errors
    /// If they are of another size or more than the protocol scores, or cannot be written.
    pub fn push(&mut self, rows: &ReferenceRows) -> Result<()> {
        let (top, vocabulary) = (self.header.top, self.header.vocabulary);
        if rows.top != top || rows.vocabulary != vocabulary {
            let message = format!(
                "rows keep {} of {} ids, and the reference {top} of {vocabulary}",
                rows.top, rows.vocabulary
            );
            return Err(lsb_format::Error::argument(message).into());
        }
        self.tokens += rows.len();
        if self.tokens > self.header.protocol.scored_tokens {
            return Err(self.wrong_count());
        }
        let mut bytes = Vec::with_capacity(self.header.row_bytes());
        for token in 0..rows.len() {
            let row = rows.row(token);
            bytes.clear();
            bytes.extend(row.nll.to_le_bytes());
            bytes.extend(row.log_sum_exp.to_le_bytes());
            row.ids.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
            row.logits.iter().for_each(|logit| bytes.extend(logit.to_le_bytes()));
            self.write(&bytes)?;
        }
        Ok(())
    }

    /// Ends the file, forces it to the disk and gives it its name.
    ///
    /// # Errors
    /// If rows are missing, or the system refuses.
    pub fn finish(mut self) -> Result<()> {
        if self.tokens != self.header.protocol.scored_tokens {
            return Err(self.wrong_count());
        }
        let hash = self.hasher.finalize();
        self.write(hash.as_bytes())?;
        self.file.flush().map_err(|e| io("write", &self.partial, e))?;
        self.file.get_ref().sync_all().map_err(|e| io("write", &self.partial, e))?;
        std::fs::rename(&self.partial, &self.path).map_err(|e| io("rename", &self.partial, e))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|e| io("write", &self.partial, e))
    }

    fn wrong_count(&self) -> Error {
        let (tokens, scored) = (self.tokens, self.header.protocol.scored_tokens);
        lsb_format::Error::argument(format!("{tokens} rows for a protocol that scores {scored} tokens"))
            .into()
    }
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}
