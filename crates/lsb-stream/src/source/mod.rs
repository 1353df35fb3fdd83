//! Reading models: a folder with one or many shards, a lone file, or a model in the Hub's local cache.
//!
//! [`Model::open`] reads names and headers only and checks all of them against the files before anything is
//! believed; tensors are then read by position, never mapped, so that memory stays bounded and a failing disk
//! is an error. Nothing is ever written, executed or downloaded.

mod duplicates;
mod file;
mod handles;
mod hub;
mod identify;
mod layout;
mod other;
mod reader;
#[cfg(test)]
mod tests;
mod warning;
mod weights;

pub use duplicates::find_duplicates;
pub use hub::cache_dir;
pub use other::OtherFile;
pub use reader::TensorReader;
pub use warning::Warning;

use crate::error::{Error, Result};
use file::{Identity, read_small};
use handles::Handles;
use lsb_format::DType;
use lsb_format::safetensors::{DEFAULT_HEADER_LIMIT, Entry};
use std::path::{Path, PathBuf};
use warning::Warnings;

/// The longest `config.json` that is read, in bytes; real ones have a few thousand.
const MAX_CONFIG_LEN: u64 = 16 << 20;

/// How to open a model.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The longest header accepted, in bytes. 64 MiB unless changed.
    pub max_header_bytes: u64,
    /// Refuse a model at its first warning.
    pub strict: bool,
    /// Accept shards in folders below the model's.
    pub allow_subfolders: bool,
    /// The Hub's cache folder; found from the environment unless changed.
    pub hub_cache: Option<PathBuf>,
    /// Branch, tag or commit of a model in the Hub's cache; `main` unless changed.
    pub revision: Option<String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            max_header_bytes: DEFAULT_HEADER_LIMIT,
            strict: false,
            allow_subfolders: false,
            hub_cache: cache_dir(|name| std::env::var_os(name)),
            revision: None,
        }
    }
}

/// One tensor of a model, and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTensor {
    /// Name (unescaped: use [`lsb_format::escape`] before printing; never a path).
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Number of its file in [`Model::files`].
    pub file: usize,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl SourceTensor {
    fn new(file: usize, data_start: u64, entry: &Entry<'_>) -> Self {
        SourceTensor {
            name: entry.name.to_owned(),
            dtype: entry.dtype,
            shape: entry.shape.to_vec(),
            file,
            offset: data_start + entry.begin,
            bytes: entry.bytes(),
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// One file of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightFile {
    /// Name relative to the model's folder.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Length in bytes, header included.
    pub bytes: u64,
    /// BLAKE3 of the header with its length field.
    pub header_blake3: [u8; 32],
    /// Time of the last change, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Number of the file system.
    pub device: u64,
    /// Number of the file in it.
    pub inode: u64,
}

/// An opened model. Reading takes `&self` and may go on from several threads at once.
#[derive(Debug)]
pub struct Model {
    name: String,
    files: Vec<WeightFile>,
    tensors: Vec<SourceTensor>,
    others: Vec<OtherFile>,
    config: Option<Vec<u8>>,
    warnings: Vec<Warning>,
    handles: Handles,
}

impl Model {
    /// Opens the model at `path`: a folder, a `.safetensors` file, a repository folder of the Hub's cache, or
    /// an id such as `org/name`, which is looked up in that cache and nowhere else.
    ///
    /// # Errors
    /// [`Error::Input`] with the first rule of `docs/bad-inputs.md` that the model breaks, [`Error::Refused`]
    /// where there is no model, [`Error::Io`] where the operating system refuses.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Model> {
        let found = hub::resolve(path, options.hub_cache.as_deref(), options.revision.as_deref())?;
        let mut warnings = Warnings::new(options.strict);
        let path = found.path.as_path();
        let metadata = std::fs::metadata(path);
        let (layout, others, config) = if metadata.is_ok_and(|m| m.is_dir()) {
            let names = other::names(path, &mut warnings)?;
            let layout = layout::of_dir(path, &names, options.allow_subfolders, &mut warnings)?;
            let others = other::files(path, &names, &mut warnings)?;
            let inside = layout.files.iter().map(|(name, path)| (name.as_str(), path.as_path()));
            let inside = inside.chain(others.iter().map(|f| (f.name.as_str(), f.path.as_path())));
            warn_of_links_out(path, inside, &mut warnings)?;
            let config = others.iter().find(|f| f.name == "config.json");
            let config = config.map(|f| read_small(&f.path, &f.name, MAX_CONFIG_LEN, "S3")).transpose()?;
            (layout, others, config)
        } else {
            (layout::of_file(path, &mut warnings)?, Vec::new(), None)
        };
        let (files, tensors) = weights::read(&layout, options, &mut warnings)?;
        let identities = files.iter().map(|f| {
            let identity =
                Identity { bytes: f.bytes, modified_ns: f.modified_ns, device: f.device, inode: f.inode };
            (f.name.clone(), f.path.clone(), identity)
        });
        Ok(Model {
            name: found.name.unwrap_or_else(|| name_of(path)),
            handles: Handles::new(identities),
            files,
            tensors,
            others,
            config,
            warnings: warnings.finish(),
        })
    }

    /// What the model is called: its Hub id, or the name of its folder or file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tensors, in the order of their files and their data.
    pub fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    /// The weight files, in order of name.
    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    /// Bytes of all weight files, headers included.
    pub fn weight_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// The files beside the weights, in order of name; none for a model that is a lone file.
    pub fn other_files(&self) -> &[OtherFile] {
        &self.others
    }

    /// The bytes of `config.json`, unchecked.
    pub fn config_json(&self) -> Option<&[u8]> {
        self.config.as_deref()
    }

    /// What is odd about the model, in a fixed order.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Fills `buffer` with the bytes of file number `file` from `offset` on.
    ///
    /// # Errors
    /// `F21` if the file changed since the model was opened, [`Error::Io`] if the disk fails; both name the
    /// file, the offset and the tensor there.
    pub fn read_at(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let result = self
            .handles
            .get(file)
            .and_then(|(handle, path, name)| file::read_exact_at(&handle, offset, buffer, path, name));
        result.map_err(|error| match (error, self.tensor_at(file, offset)) {
            (Error::Input(e), Some(tensor)) => Error::Input(e.in_tensor(&tensor.name)),
            (Error::Io { action, path, source }, Some(tensor)) => {
                let tensor = lsb_format::escape(&tensor.name);
                let source = std::io::Error::new(source.kind(), format!("tensor \"{tensor}\" {source}"));
                Error::Io { action, path, source }
            }
            (error, _) => error,
        })
    }

    /// Reads one tensor, by its number in [`tensors`](Self::tensors).
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn reader(&self, tensor: usize) -> Result<TensorReader<'_>> {
        let missing = || lsb_format::Error::argument(format!("no tensor number {tensor}"));
        Ok(TensorReader::new(self, self.tensors.get(tensor).ok_or_else(missing)?))
    }

    /// Makes sure that no weight file changed since the model was opened.
    ///
    /// # Errors
    /// `F21` naming the file, or [`Error::Io`] if it is gone.
    pub fn ensure_unchanged(&self) -> Result<()> {
        self.handles.ensure_unchanged()
    }

    fn tensor_at(&self, file: usize, offset: u64) -> Option<&SourceTensor> {
        let after = self.tensors.partition_point(|t| (t.file, t.offset) <= (file, offset));
        self.tensors.get(after.checked_sub(1)?).filter(|t| t.file == file)
    }
}

/// Links may lead around inside the model or its repository in the cache; others are worth knowing.
fn warn_of_links_out<'a>(
    dir: &Path,
    files: impl Iterator<Item = (&'a str, &'a Path)>,
    warnings: &mut Warnings,
) -> Result<()> {
    let Ok(root) = dir.canonicalize() else { return Ok(()) };
    let root = hub::repository_of(&root).unwrap_or(root);
    for (name, path) in files {
        if let Ok(target) = path.canonicalize()
            && !target.starts_with(&root)
        {
            let message = format!("this is a link out of the model's folder, to {}", target.display());
            warnings.add(Warning::new("B14", lsb_format::escape(&message)).in_file(name))?;
        }
    }
    Ok(())
}

/// The folder's name, or the file's without its extension.
fn name_of(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    // A file in the cache is a link to a blob, whose name says nothing.
    let named = if full.is_dir() { full.as_path() } else { path };
    let name = if full.is_dir() { named.file_name() } else { named.file_stem() };
    name.map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned())
}
