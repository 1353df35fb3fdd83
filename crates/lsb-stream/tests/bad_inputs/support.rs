//! Builds bad models byte by byte, never through the library's own writer, and checks what is said of them.

use lsb_format::Error as InputError;
use lsb_stream::source::{Model, OpenOptions, Warning};
use lsb_stream::{Error, Result};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The name under which lone bad files are opened.
pub(crate) const FILE: &str = "model.safetensors";

/// A safetensors file with exactly this header text and data.
pub(crate) fn raw(json: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let json = json.as_ref();
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json);
    file.extend_from_slice(data);
    file
}

/// The text of one entry, with a dtype, shape and offsets as written.
pub(crate) fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}")
}

/// A file of `U8` vectors with these names and lengths, filled with the number of the tensor.
pub(crate) fn bytes_of(tensors: &[(&str, u64)]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    for (i, (name, len)) in tensors.iter().enumerate() {
        let begin = data.len() as u64;
        entries.push(entry(name, "U8", &format!("[{len}]"), &format!("[{begin},{}]", begin + len)));
        data.extend(std::iter::repeat_n(i as u8, *len as usize));
    }
    raw(format!("{{{}}}", entries.join(",")), &data)
}

/// A folder that is removed when dropped.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.put(name, bytes);
        self
    }

    pub(crate) fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn open(&self) -> Result<Model> {
        Model::open(self.path(), &options())
    }

    /// The refusal of this folder.
    pub(crate) fn refusal(&self) -> InputError {
        input(self.open())
    }

    /// The refusal of this folder in strict mode, which must be what `open` warns of.
    pub(crate) fn strict_refusal(&self) -> InputError {
        input(Model::open(self.path(), &OpenOptions { strict: true, ..options() }))
    }

    /// The only warning of this folder, which strict mode must refuse under the same rule.
    pub(crate) fn warning(&self) -> Warning {
        let warnings = self.open().unwrap().warnings().to_vec();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(self.strict_refusal().rule(), warnings[0].rule);
        warnings[0].clone()
    }
}

/// Options that do not depend on the environment.
pub(crate) fn options() -> OpenOptions {
    OpenOptions { hub_cache: None, ..OpenOptions::default() }
}

pub(crate) fn input(result: Result<Model>) -> InputError {
    match result {
        Err(Error::Input(e)) => e,
        Err(other) => panic!("another kind of error: {other}"),
        Ok(model) => panic!("accepted: {:?}", model.tensors().first()),
    }
}

/// The refusal of a file with these bytes.
pub(crate) fn refusal(bytes: impl AsRef<[u8]>) -> InputError {
    Folder::new().with(FILE, bytes).refusal()
}

/// The model in a file with these bytes.
pub(crate) fn accepted(bytes: impl AsRef<[u8]>) -> (Folder, Model) {
    let folder = Folder::new().with(FILE, bytes);
    let model = folder.open().unwrap();
    (folder, model)
}

/// The bytes of tensor number `i`.
pub(crate) fn data(model: &Model, i: usize) -> Vec<u8> {
    let reader = model.reader(i).unwrap();
    let mut bytes = vec![0; reader.tensor().bytes as usize];
    reader.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Checks everything that an error says: rule, file, tensor, offset, and words of its message or advice.
#[track_caller]
pub(crate) fn says(
    error: &InputError,
    rule: &str,
    tensor: Option<&str>,
    offset: Option<u64>,
    words: &[&str],
) {
    says_in(error, FILE, rule, tensor, offset, words);
}

/// As [`says`], for an error in another file.
#[track_caller]
pub(crate) fn says_in(
    error: &InputError,
    file: &str,
    rule: &str,
    tensor: Option<&str>,
    offset: Option<u64>,
    words: &[&str],
) {
    assert_eq!(error.rule(), rule, "{error}");
    assert_eq!(error.file(), Some(file), "{error}");
    assert_eq!(error.tensor(), tensor, "{error}");
    assert_eq!(error.offset(), offset, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}
