//! Saves what calibration knows of a model: one matrix at a time, under the final name only when it is complete.

use super::fingerprint::fingerprint;
use super::record::{InputRecord, KEY, MapRecord, Record, VERSION};
use crate::calibrate::TextCalibration;
use crate::calibrate::text::stream_error;
use crate::sensitivity::not_finite;
use lsb_format::DType;
use lsb_format::safetensors::{NewEntry, write_header};
use lsb_quant::calibrate::{Calibration, Moments};
use lsb_stream::source::Model;
use lsb_stream::store::{OpenMode, Store, StoreFile};
use lsb_stream::{Budget, CalibrationSource, Calibrator, Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

/// Where statistics go, and what may be used for them.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// The file to make.
    pub output: PathBuf,
    /// Whether a file of that name may be replaced.
    pub overwrite: bool,
    /// Memory for the passes and the moments.
    pub budget: Budget,
    /// Where files lie.
    pub store: Arc<dyn Store>,
    /// Ends the work soon after it becomes true; nothing is left behind.
    pub interrupt: Arc<AtomicBool>,
}

/// What was saved.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedStatistics {
    /// Tensors that are calibrated.
    pub maps: usize,
    /// Different inputs of them: matrices of second moments.
    pub inputs: usize,
    /// The widest of these, by one of its maps, and its number of inputs.
    pub widest: Option<(String, usize)>,
    /// Tokens of the text.
    pub tokens: usize,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Room for notes in the header.
const NOTES: usize = 1 << 16;

/// Data begins at a multiple of so many bytes.
const ALIGNMENT: u64 = 64;

/// Calibrates `model` on a text and saves what was found. `progress` is told how many tensors of how many are done, and the
/// last one.
///
/// # Errors
/// If the model cannot be run inside the budget, the output exists or cannot be written, or inputs are not finite, with the
/// name of the tensor. Whatever had the output's name before is then still there.
pub fn save_statistics(
    model: &Model,
    text: &TextCalibration,
    options: &SaveOptions,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<SavedStatistics> {
    let tensors = text.tensors(model)?;
    let mut calibrator =
        text.calibrator(model, &options.budget, Arc::clone(&options.interrupt)).map_err(stream_error)?;
    let record = Record {
        version: VERSION,
        model: fingerprint(model)?,
        text: text.text_hash(),
        tokens: calibrator.tokens(),
        seqlen: calibrator.longest(),
        seed: text.seed(),
        notes: Vec::new(),
        inputs: Vec::new(),
        maps: Vec::new(),
    };
    let tokens = record.tokens;
    let mut writer = Writer::begin(options, record, &tensors, calibrator.strip_bytes())?;
    progress(0, tensors.len(), "gradients");
    let work = calibrator
        .survey(&mut |tensor, calibration| {
            writer.map(tensor, calibration)?;
            progress(writer.record.maps.len(), tensors.len(), tensor);
            Ok(())
        })
        .and_then(|()| model.ensure_unchanged())
        .and_then(|()| writer.finish(calibrator.notes(), &tensors));
    match work {
        Ok(bytes) => Ok(SavedStatistics {
            maps: writer.record.maps.len(),
            inputs: writer.record.inputs.len(),
            widest: writer.widest,
            tokens,
            bytes,
            notes: writer.record.notes,
        }),
        Err(e) => {
            // What could not be finished is no use; that it cannot be removed is no news.
            let _ = options.store.remove_file(&writer.partial);
            Err(e)
        }
    }
}

/// A file that is being written: data first, behind room for the header.
pub(super) struct Writer<'a> {
    options: &'a SaveOptions,
    partial: PathBuf,
    file: Box<dyn StoreFile>,
    /// Bytes that the header may take.
    reserved: u64,
    /// Where the next tensor begins, counted from the start of the data.
    at: u64,
    entries: Vec<(String, DType, u64, u64)>,
    record: Record,
    /// The inputs that were written, where they are still in use.
    seen: Vec<Weak<dyn Moments>>,
    /// Bytes of moments that are held at once.
    strip_bytes: u64,
    widest: Option<(String, usize)>,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(
        options: &'a SaveOptions,
        record: Record,
        tensors: &[String],
        strip_bytes: u64,
    ) -> Result<Self> {
        let output = &options.output;
        let there = options.store.entry(output).map_err(Error::io("examine", output))?;
        let refuse = |why| Err(Error::Refused { message: format!("{} {why}", output.display()) });
        match there {
            None => {}
            Some(lsb_stream::store::Entry::File(_)) if options.overwrite => {}
            Some(lsb_stream::store::Entry::File(_)) => return refuse("exists; --overwrite replaces it"),
            Some(_) => return refuse("is no file; choose another name with -o"),
        }
        let mut partial = output.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = options.store.open(&partial, OpenMode::Create).map_err(Error::io("create", &partial))?;
        Ok(Writer {
            options,
            partial,
            file,
            reserved: header_room(tensors),
            at: 0,
            entries: Vec::new(),
            record,
            seen: Vec::new(),
            strip_bytes,
            widest: None,
        })
    }

    /// Takes in what is known of a tensor.
    pub(super) fn map(&mut self, tensor: &str, calibration: &Calibration) -> Result<()> {
        let inputs = Arc::downgrade(&calibration.inputs);
        let input = match self.seen.iter().position(|s| s.ptr_eq(&inputs)) {
            Some(input) => input,
            None => {
                self.input(tensor, &*calibration.inputs)?;
                self.seen.push(inputs);
                self.seen.len() - 1
            }
        };
        let mut map =
            MapRecord { tensor: tensor.to_owned(), input, relative: calibration.relative, outputs: None };
        if let Some(outputs) = &calibration.outputs {
            if let Some(row) = outputs.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
                return Err(
                    not_finite(tensor, format!("an error of output {row} costs {}", outputs[row])).into()
                );
            }
            let mut data = self.tensor(map.outputs_tensor(), DType::F64, outputs.len() as u64);
            data.put(outputs.iter().flat_map(|x| x.to_le_bytes()))?;
            map.outputs = Some(data.finish());
        }
        self.record.maps.push(map);
        Ok(())
    }

    fn input(&mut self, tensor: &str, moments: &dyn Moments) -> Result<()> {
        let n = moments.diagonal().len();
        let mut record =
            InputRecord { name: tensor.to_owned(), moments: String::new(), diagonal: String::new() };
        if let Some(i) = moments.diagonal().iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
            return Err(not_finite(
                tensor,
                format!("the mean square of input {i} is {}", moments.diagonal()[i]),
            )
            .into());
        }
        let mut data = self.tensor(record.diagonal_tensor(), DType::F32, n as u64);
        data.put(moments.diagonal().iter().flat_map(|x| x.to_le_bytes()))?;
        record.diagonal = data.finish();
        // Sums are there beside what is added to them.
        let rows = (self.strip_bytes / 8 / n.max(1) as u64).clamp(1, n.max(1) as u64) as usize;
        let mut data = self.tensor(record.moments_tensor(), DType::F32, (n * (n + 1) / 2) as u64);
        for first in (0..n).step_by(rows) {
            let values = moments.upper(first..n.min(first + rows)).map_err(Error::codec(tensor))?;
            if let Some(x) = values.iter().find(|x| !x.is_finite()) {
                return Err(not_finite(tensor, format!("a product of inputs is {x}")).into());
            }
            for values in values.chunks(1 << 16) {
                data.put(values.iter().flat_map(|x| x.to_le_bytes()))?;
            }
        }
        record.moments = data.finish();
        if self.widest.as_ref().is_none_or(|(_, widest)| n > *widest) {
            self.widest = Some((tensor.to_owned(), n));
        }
        self.record.inputs.push(record);
        Ok(())
    }

    /// Begins a tensor of `len` numbers.
    fn tensor(&mut self, name: String, dtype: DType, len: u64) -> Data<'_> {
        let begin = self.at;
        self.at += len * dtype.bits() / 8;
        self.entries.push((name, dtype, len, begin));
        Data {
            file: &*self.file,
            path: &self.partial,
            at: self.reserved + begin,
            hasher: blake3::Hasher::new(),
        }
    }

    /// Writes the header, makes everything durable and gives the file its name. Returns its length.
    fn finish(&mut self, notes: Vec<String>, tensors: &[String]) -> Result<u64> {
        let place: HashMap<&str, usize> = tensors.iter().enumerate().map(|(i, t)| (t.as_str(), i)).collect();
        self.record.maps.sort_by_key(|m| place.get(m.tensor.as_str()).copied().unwrap_or(usize::MAX));
        self.record.notes = shortened(notes);
        let failed = |e: serde_json::Error| Error::Config(format!("statistics: {e}"));
        let record = serde_json::to_string(&self.record).map_err(failed)?;
        let shapes: Vec<[u64; 1]> = self.entries.iter().map(|e| [e.2]).collect();
        let entries: Vec<NewEntry<'_>> = self
            .entries
            .iter()
            .zip(&shapes)
            .map(|((name, dtype, len, begin), shape)| NewEntry {
                name,
                dtype: *dtype,
                shape,
                begin: *begin,
                end: begin + len * dtype.bits() / 8,
            })
            .collect();
        let header = write_header(&entries, &[(KEY, &record)], self.reserved)?;
        if header.len() as u64 != self.reserved {
            let message = format!("a header of {} bytes has no room in {}", header.len(), self.reserved);
            return Err(lsb_format::Error::argument(message).into());
        }
        let (store, output) = (&self.options.store, &self.options.output);
        self.file.write_all_at(&header, 0).map_err(Error::io("write", &self.partial))?;
        // An earlier attempt may have left a longer file.
        let bytes = self.reserved + self.at;
        self.file.set_size(bytes).map_err(Error::io("write", &self.partial))?;
        self.file.sync_data().map_err(Error::io("sync", &self.partial))?;
        store.rename(&self.partial, output).map_err(Error::io("rename", &self.partial))?;
        let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        store.sync_dir(folder).map_err(Error::io("sync", folder))?;
        Ok(bytes)
    }
}

/// The bytes of one tensor on their way.
struct Data<'a> {
    file: &'a dyn StoreFile,
    path: &'a Path,
    at: u64,
    hasher: blake3::Hasher,
}

impl Data<'_> {
    fn put(&mut self, bytes: impl Iterator<Item = u8>) -> Result<()> {
        let bytes: Vec<u8> = bytes.collect();
        self.file.write_all_at(&bytes, self.at).map_err(Error::io("write", self.path))?;
        self.hasher.update(&bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// BLAKE3 of all of them.
    fn finish(self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

/// Bytes that a header about `tensors` takes at most.
fn header_room(tensors: &[String]) -> u64 {
    let room = |name: &String| {
        // As a name in JSON, and as a name in JSON that is a string in JSON.
        let once = serde_json::Value::from(name.as_str()).to_string();
        let twice = serde_json::Value::from(once.as_str()).to_string();
        // Three entries and three digests, with their frames.
        (3 * once.len() + 2 * twice.len() + 3 * 64 + 640) as u64
    };
    let all: u64 = tensors.iter().map(room).sum();
    (all + 2 * NOTES as u64 + 2048).next_multiple_of(ALIGNMENT)
}

/// The notes that fit.
fn shortened(notes: Vec<String>) -> Vec<String> {
    let (mut out, mut bytes) = (notes, 0);
    let fit = out.iter().take_while(|note| {
        bytes += 2 * serde_json::Value::from(note.as_str()).to_string().len();
        bytes <= NOTES
    });
    let fit = fit.count();
    if fit < out.len() {
        let left_out = out.len() - fit;
        out.truncate(fit);
        out.push(format!("{left_out} more notes were left out."));
    }
    out
}
