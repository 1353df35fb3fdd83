//! Calibration from a file of statistics, in place of running the model.

use super::fingerprint::fingerprint;
use super::moments::SavedMoments;
use super::read::{StatisticsFile, is_safetensors};
use crate::calibrate::gather::block_limit;
use lsb_format::ErrorKind;
use lsb_quant::calibrate::Calibration;
use lsb_stream::source::Model;
use lsb_stream::{
    Budget, CalibrationSource, Calibrator, CompressConfig, Error, OutputWeights, Result, TensorWeights,
};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Calibrates with statistics that [`save_statistics`](super::save_statistics) saved. The model is not run.
#[derive(Clone, Debug)]
pub struct SavedCalibration {
    file: Arc<StatisticsFile>,
    weights: OutputWeights,
}

impl SavedCalibration {
    /// The statistics that `config` names; `None` where it names a text or nothing. A file is recognised by what is in it.
    ///
    /// # Errors
    /// If the file is a safetensors file and [`SavedCalibration::open`] refuses it.
    pub fn from_config(config: &CompressConfig) -> crate::Result<Option<SavedCalibration>> {
        let Some(path) = config.calib.as_deref().filter(|c| !matches!(*c, "none" | "default")) else {
            return Ok(None);
        };
        let path = Path::new(path);
        // What cannot be read is reported by whoever reads it as a text.
        if !is_safetensors(path).unwrap_or(false) {
            return Ok(None);
        }
        Ok(Some(SavedCalibration { weights: config.output_weights, ..SavedCalibration::open(path)? }))
    }

    /// The statistics in the file at `path`.
    ///
    /// # Errors
    /// Rules `C1` to `C4` of `docs/bad-inputs.md`, those of safetensors headers, and if it cannot be read.
    pub fn open(path: &Path) -> crate::Result<SavedCalibration> {
        let file = Arc::new(StatisticsFile::open(path)?);
        Ok(SavedCalibration { file, weights: OutputWeights::Gradients })
    }

    /// Refuses another model than the one the statistics are of.
    fn check(&self, model: &Model) -> Result<()> {
        let refuse = |message: String, tensor: Option<&str>| {
            let error = lsb_format::Error::new(ErrorKind::Compatibility, "C7", message)
                .in_file(self.file.path().display().to_string())
                .advise("save statistics of this model with `lsb calibrate`");
            Err(Error::Input(match tensor {
                Some(tensor) => error.in_tensor(tensor),
                None => error,
            }))
        };
        if fingerprint(model)? != self.file.record.model {
            return refuse(format!("the statistics are of another model than {}", model.name()), None);
        }
        let shapes: HashMap<&str, &[u64]> =
            model.tensors().iter().map(|t| (t.name.as_str(), &t.shape[..])).collect();
        for (i, map) in self.file.record.maps.iter().enumerate() {
            let Some(&shape) = shapes.get(map.tensor.as_str()) else {
                return refuse("the model has no such tensor".to_owned(), Some(&map.tensor));
            };
            let inputs = self.file.width(map.input) as u64;
            let fits = match *shape {
                [rows, cols] => cols == inputs && self.file.rows(i).is_none_or(|r| r == rows),
                _ => false,
            };
            if !fits {
                let outputs = self.file.rows(i).map_or("any number of".to_owned(), |r| r.to_string());
                let message = format!(
                    "statistics of {inputs} inputs and {outputs} outputs for a tensor of shape {shape:?}"
                );
                return refuse(message, Some(&map.tensor));
            }
        }
        Ok(())
    }
}

impl CalibrationSource for SavedCalibration {
    fn identity(&self) -> String {
        let statistics = format!("statistics {}", &self.file.digest[..16]);
        match self.weights {
            OutputWeights::Gradients => statistics,
            OutputWeights::Equal => statistics + ", all outputs the same",
        }
    }

    fn tensors(&self, model: &Model) -> Result<Vec<String>> {
        self.check(model)?;
        Ok(self.file.record.maps.iter().map(|m| m.tensor.clone()).collect())
    }

    fn open(
        &self,
        model: &Model,
        budget: &Budget,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Box<dyn Calibrator>> {
        self.check(model)?;
        let (file, factor_bytes) = (Arc::clone(&self.file), budget.limit());
        Ok(Box::new(SavedCalibrator { file, weights: self.weights, factor_bytes, interrupt }))
    }
}

/// Answers from a file.
#[derive(Debug)]
struct SavedCalibrator {
    file: Arc<StatisticsFile>,
    weights: OutputWeights,
    /// Bytes that moments and their factor may take together.
    factor_bytes: u64,
    interrupt: Arc<AtomicBool>,
}

impl SavedCalibrator {
    fn known(&self, map: usize) -> Result<Calibration> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let record = &self.file.record.maps[map];
        let limit = block_limit(self.file.width(record.input), self.factor_bytes, false);
        let inputs = Arc::new(SavedMoments::new(Arc::clone(&self.file), record.input, limit)?);
        Ok(match self.weights {
            OutputWeights::Equal => Calibration { inputs, outputs: None, relative: false },
            OutputWeights::Gradients => {
                let outputs = self.file.outputs(map)?.map(Arc::from);
                Calibration { inputs, outputs, relative: record.relative }
            }
        })
    }
}

impl Calibrator for SavedCalibrator {
    fn survey(&mut self, visit: &mut dyn FnMut(&str, &Calibration) -> Result<()>) -> Result<()> {
        for (i, map) in self.file.record.maps.iter().enumerate() {
            visit(&map.tensor, &self.known(i)?)?;
        }
        Ok(())
    }

    fn calibration(&mut self, tensor: &str) -> Result<Option<Calibration>> {
        self.file.find(tensor).map(|map| self.known(map)).transpose()
    }

    /// Statistics are those of the original, whatever becomes of its tensors.
    fn finished(&mut self, _: &str, _: Arc<dyn TensorWeights>) {}

    fn notes(&self) -> Vec<String> {
        let name = self.file.path().file_name().unwrap_or_default().to_string_lossy();
        let mut notes = self.file.record.notes.clone();
        notes.push(format!(
            "The statistics were saved in {} earlier: inputs are those of the original, so that later tensors do not make up \
             for errors of earlier ones.",
            lsb_format::escape(&name)
        ));
        notes
    }
}
