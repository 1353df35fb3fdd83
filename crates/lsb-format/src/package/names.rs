//! Names that come from files: what a tensor and a file of a package may be called.

use super::{MANIFEST_FILE, MAX_NAME_BYTES};
use crate::{Error, Result, escape};

/// Most components of the name of a copied file (`1_Pooling/config.json` has two).
pub const MAX_FILE_NAME_DEPTH: usize = 4;

/// Name of shard `index`, counted from zero: `weights-00001.lsb` is the first.
pub fn shard_file_name(index: usize) -> String {
    format!("weights-{:05}.lsb", index + 1)
}

/// Checks the name of a tensor.
///
/// # Errors
/// P07 if it is empty, longer than [`MAX_NAME_BYTES`], or `__metadata__`.
pub fn check_tensor_name(name: &str) -> Result<()> {
    let problem = match name.len() {
        0 => "is empty".to_owned(),
        n if n > MAX_NAME_BYTES => format!("has {n} bytes: at most {MAX_NAME_BYTES} are allowed"),
        _ if name == "__metadata__" => "is reserved by safetensors".to_owned(),
        _ => return Ok(()),
    };
    Err(Error::corruption("P07", format!("the tensor name \"{}\" {problem}", escape(name))))
}

/// Checks the name of a copied file or document: `/` between at most [`MAX_FILE_NAME_DEPTH`] ordinary
/// components, none of which can leave the package or take the place of one of its own files.
///
/// # Errors
/// P08 if it is not such a name.
pub fn check_file_name(name: &str) -> Result<()> {
    let bad = |why: &str| {
        Err(Error::corruption("P08", format!("the file name \"{}\" {why}", escape(name)))
            .advise("a file of a package must stay inside it"))
    };
    if name.len() > MAX_NAME_BYTES || name.split('/').count() > MAX_FILE_NAME_DEPTH {
        return bad("is too long");
    }
    for part in name.split('/') {
        if part.is_empty() || part.len() > 255 {
            return bad("has an empty or overlong component");
        }
        if part.starts_with('.') {
            return bad("has a component that starts with a dot");
        }
        if part.contains(['\\', ':']) || part.chars().any(char::is_control) {
            return bad("holds a backslash, a colon or a control character");
        }
    }
    let first = name.split('/').next().unwrap_or(name).to_ascii_lowercase();
    if first == MANIFEST_FILE || first == "lsb.journal" || first.ends_with(".lsb") {
        return bad("belongs to the package itself");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_inside_the_package_pass() {
        for good in ["config.json", "1_Pooling/config.json", "README.md", "a/b/c/d", "vocab ü.txt"] {
            check_file_name(good).unwrap();
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            ".git/config",
            "a\\b",
            "C:x",
            "lsb.json",
            "LSB.JSON",
            "weights-00001.lsb",
            "lsb.journal",
            "a\nb",
            "a/b/c/d/e",
        ] {
            assert_eq!(check_file_name(bad).unwrap_err().rule(), "P08", "{bad}");
        }
        assert!(check_file_name(&"x".repeat(256)).is_err());
    }

    #[test]
    fn tensor_names_are_bounded() {
        check_tensor_name("model.layers.0/…").unwrap();
        for bad in [String::new(), "__metadata__".to_owned(), "x".repeat(1025)] {
            assert_eq!(check_tensor_name(&bad).unwrap_err().rule(), "P07");
        }
    }
}
