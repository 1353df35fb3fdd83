//! Folders above an output that are not there yet.

use crate::exit::Failure;
use lsb_stream::Error;
use lsb_stream::store::{RealStore, Store};
use std::path::{Path, PathBuf};

/// Folders that were made for an output. Those that are still empty in the end go again, so that a refused
/// request leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Parents(Vec<PathBuf>);

impl Parents {
    /// Makes every missing folder above `output`, durably.
    pub(crate) fn of(output: &Path) -> Result<Self, Failure> {
        let above = output.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
        let mut missing: Vec<&Path> = above.take_while(|p| !p.exists()).collect();
        missing.reverse();
        let mut made = Parents(Vec::new());
        for folder in missing {
            RealStore.create_dir(folder).map_err(Error::io("create", folder))?;
            made.0.push(folder.to_owned());
            let holder = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            RealStore.sync_dir(holder).map_err(Error::io("sync", holder))?;
        }
        Ok(made)
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        // Only empty folders can be removed this way; the others hold the output.
        self.0.iter().rev().for_each(|folder| drop(RealStore.remove_dir(folder)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_folders_go_and_used_ones_stay() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("a/b/out");
        drop(Parents::of(&out).unwrap());
        assert!(!temp.path().join("a").exists());
        let made = Parents::of(&out).unwrap();
        std::fs::create_dir(&out).unwrap();
        drop(made);
        assert!(out.exists());
        drop(Parents::of(&temp.path().join("a/other")).unwrap());
        assert!(temp.path().join("a").exists(), "a folder that was there before was removed");
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a"), "").unwrap();
        assert!(Parents::of(&temp.path().join("a/b/out")).is_err());
    }
}
