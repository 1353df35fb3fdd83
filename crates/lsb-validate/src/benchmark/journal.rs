//! Finished rows, one line each, so that an interrupted benchmark goes on where it stopped.

use super::{BenchmarkError, BenchmarkRow};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const FILE: &str = "rows.jsonl";

/// The rows of one folder.
pub(super) struct Journal {
    key: String,
    path: PathBuf,
    file: File,
    rows: Vec<BenchmarkRow>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    /// Model, text, protocol and metrics.
    key: String,
    row: BenchmarkRow,
}

impl Journal {
    /// The rows in `folder` that were measured under `key`. A line that was cut off by a crash is left out.
    pub(super) fn open(folder: &Path, key: &str) -> Result<Journal, BenchmarkError> {
        std::fs::create_dir_all(folder).map_err(BenchmarkError::io("cannot make", folder))?;
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(BenchmarkError::io("cannot read", &path))?,
        };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let rows = lines.filter(|line| line.key == key).map(|line| line.row).collect();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.map_err(BenchmarkError::io("cannot open", &path))?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(BenchmarkError::io("cannot write", &path))?;
        }
        Ok(Journal { key: key.to_owned(), path, file, rows })
    }

    pub(super) fn row(&self, method: &str) -> Option<BenchmarkRow> {
        self.rows.iter().rev().find(|row| row.method == method).cloned()
    }

    pub(super) fn add(&mut self, row: &BenchmarkRow) -> Result<(), BenchmarkError> {
        let line = Line { key: self.key.clone(), row: row.clone() };
        let text = serde_json::to_string(&line).map_err(std::io::Error::from);
        let written = text.and_then(|text| {
            self.file.write_all((text + "\n").as_bytes())?;
            self.file.sync_data()
        });
        written.map_err(BenchmarkError::io("cannot write", &self.path))
    }
}
