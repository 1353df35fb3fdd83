//! The files beside the weights: configuration, tokenizer, licence.

use super::warning::{Warning, Warnings};
use crate::error::{Error, Result};
use lsb_format::escape;
use std::path::{Path, PathBuf};

/// An unknown file larger than this is copied with a warning.
const BIG: u64 = 100_000_000;

/// A file that belongs to the model and holds no weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherFile {
    /// File name: one plain component.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Length in bytes.
    pub bytes: u64,
}

/// The names in a folder, sorted. Names that are not UTF-8 cannot be in a package and are left out.
pub(super) fn names(dir: &Path, warnings: &mut Warnings) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        match entry.map_err(Error::io("list", dir))?.file_name().into_string() {
            Ok(name) => names.push(name),
            Err(name) => {
                let message = "the file's name is not UTF-8; it is left out";
                warnings.add(Warning::new("S1", message).in_file(name.to_string_lossy()))?;
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The regular files among `names` that are not weights.
pub(super) fn files(dir: &Path, names: &[String], warnings: &mut Warnings) -> Result<Vec<OtherFile>> {
    let mut files = Vec::new();
    for name in names.iter().filter(|name| !is_left_out(name)) {
        let path = dir.join(name);
        let Ok(metadata) = std::fs::metadata(&path) else {
            let message = "the link leads nowhere; the file is left out";
            warnings.add(Warning::new("B12", message).in_file(name))?;
            continue;
        };
        if !metadata.is_file() {
            continue;
        }
        if metadata.len() > BIG {
            let message =
                format!("{} is copied although its {} bytes are unusual", escape(name), metadata.len());
            warnings.add(Warning::new("S2", message).in_file(name))?;
        }
        files.push(OtherFile { name: name.clone(), path, bytes: metadata.len() });
    }
    Ok(files)
}

/// Weights in any format, indices of weights, version control, and unfinished downloads.
fn is_left_out(name: &str) -> bool {
    let ends = [
        ".safetensors",
        ".safetensors.index.json",
        ".bin.index.json",
        ".gguf",
        ".pt",
        ".pth",
        ".ckpt",
        ".h5",
        ".msgpack",
        ".msgpack.index.json",
        ".onnx",
        ".onnx_data",
        ".ot",
        ".tflite",
        ".incomplete",
        ".partial",
        ".part",
        ".tmp",
        ".crdownload",
        ".aria2",
    ];
    let torch = name.ends_with(".bin") && (name.starts_with("pytorch_model") || name.starts_with("model"));
    name.starts_with(".git") || torch || ends.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_unfinished_files_are_left_out_and_all_else_kept() {
        for name in [
            "model.safetensors",
            "pytorch_model-00001-of-00002.bin",
            "a.gguf",
            ".gitattributes",
            "x.incomplete",
        ] {
            assert!(is_left_out(name), "{name}");
        }
        for name in
            ["config.json", "tokenizer.model", "LICENSE", "vocab.bin", "chat_template.jinja", "README.md"]
        {
            assert!(!is_left_out(name), "{name}");
        }
    }
}
