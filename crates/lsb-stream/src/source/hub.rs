//! The local cache of the Hugging Face Hub: finding a model there, without ever asking the network.

use super::file::read_small;
use crate::error::{Error, Result};
use lsb_format::escape;
use lsb_format::shard_index::ShardName;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A reference to a commit is a line of 40 characters.
const MAX_REF_LEN: u64 = 256;

/// The folder of the cache, from the environment as `lookup` gives it: `HF_HUB_CACHE`, its old name
/// `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, or below the home folder.
pub fn cache_dir(lookup: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let dir = |name| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    dir("HF_HUB_CACHE")
        .or_else(|| dir("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| dir("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| dir("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| dir("HOME").map(|home| home.join(".cache/huggingface/hub")))
}

/// Where a model is, and what it is called.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) name: Option<String>,
}

/// Resolves what a user gave: a path that is there, a repository folder of the cache, or an id.
pub(super) fn resolve(given: &Path, cache: Option<&Path>, revision: Option<&str>) -> Result<Found> {
    if given.symlink_metadata().is_ok() {
        if given.join("snapshots").is_dir() {
            return snapshot(given, revision);
        }
        return Ok(Found { path: given.to_owned(), name: repository_of(given).and_then(|r| model_id(&r)) });
    }
    let missing = || Error::io("open", given)(std::io::ErrorKind::NotFound.into());
    let Some(folder) = given.to_str().and_then(folder_of_id) else { return Err(missing()) };
    let Some(cache) = cache else { return Err(missing()) };
    let repository = cache.join(&folder);
    if !repository.join("snapshots").is_dir() {
        let id = escape(&given.to_string_lossy());
        return Err(Error::Refused {
            message: format!(
                "{id} is neither a file or folder here nor a model in the Hub cache {}; \
                 nothing is downloaded: run hf download {id} first",
                cache.display()
            ),
        });
    }
    snapshot(&repository, revision)
}

/// The repository folder in whose `snapshots/` a path is, if it is in one.
pub(super) fn repository_of(path: &Path) -> Option<PathBuf> {
    // A file in a snapshot is a link to a blob elsewhere: its folder is asked, not its target.
    let dir = if path.is_dir() { path } else { path.parent()? };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let dir = dir.canonicalize().ok()?;
    let snapshots = dir.parent()?;
    (snapshots.file_name()? == "snapshots").then(|| snapshots.parent().map(Path::to_owned))?
}

/// `org/name` from a folder `models--org--name`.
fn model_id(repository: &Path) -> Option<String> {
    let name = repository.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(name.replacen("--", "/", 1))
}

/// `models--org--name` from `org/name`, from a lone `name`, or from itself; `None` where it cannot be an id.
fn folder_of_id(id: &str) -> Option<String> {
    let plain = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        !part.is_empty()
            && part.len() <= 96
            && part.bytes().all(allowed)
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
    };
    if id.starts_with("models--") {
        return plain(id).then(|| id.to_owned());
    }
    let parts: Vec<&str> = id.split('/').collect();
    let valid = parts.len() <= 2 && parts.iter().all(|p| plain(p) && !p.contains("--"));
    (valid && !id.ends_with(".safetensors")).then(|| format!("models--{}", parts.join("--")))
}

/// The snapshot folder of a revision: a branch, a tag or a commit.
fn snapshot(repository: &Path, revision: Option<&str>) -> Result<Found> {
    let snapshots = repository.join("snapshots");
    let found = |commit: &str| Found { path: snapshots.join(commit), name: model_id(repository) };
    let wanted = ShardName::nested(revision.unwrap_or("main"))?;
    if snapshots.join(wanted.as_str()).is_dir() {
        return Ok(found(wanted.as_str()));
    }
    let reference = repository.join("refs").join(wanted.as_str());
    if reference.symlink_metadata().is_ok() {
        let name = format!("refs/{}", wanted.as_str());
        let text = read_small(&reference, &name, MAX_REF_LEN, "B65")?;
        let commit = String::from_utf8_lossy(&text);
        let commit = ShardName::new(commit.trim()).map_err(|e| e.in_file(name))?;
        if snapshots.join(commit.as_str()).is_dir() {
            return Ok(found(commit.as_str()));
        }
        let message = format!(
            "{}: revision {wanted} is commit {commit}, which was not downloaded; run hf download again",
            repository.display()
        );
        return Err(Error::Refused { message });
    }
    let mut commits = Vec::new();
    for entry in std::fs::read_dir(&snapshots).map_err(Error::io("list", &snapshots))? {
        commits.push(entry.map_err(Error::io("list", &snapshots))?.file_name());
    }
    match (revision, commits.as_slice()) {
        (None, [only]) => Ok(found(&only.to_string_lossy())),
        _ => Err(Error::Refused {
            message: format!(
                "{}: the cache does not say which of its {} snapshots is revision {wanted}; name a snapshot folder",
                repository.display(),
                commits.len()
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_asked_in_the_order_of_the_hub_library() {
        let dir = |vars: &[(&str, &str)]| {
            let lookup = |name: &str| vars.iter().find(|v| v.0 == name).map(|v| OsString::from(v.1));
            cache_dir(lookup).map(|p| p.to_string_lossy().into_owned())
        };
        let mut vars = vec![("HOME", "/h")];
        assert_eq!(dir(&vars).unwrap(), "/h/.cache/huggingface/hub");
        vars.push(("XDG_CACHE_HOME", "/x"));
        assert_eq!(dir(&vars).unwrap(), "/x/huggingface/hub");
        vars.push(("HF_HOME", "/hf"));
        assert_eq!(dir(&vars).unwrap(), "/hf/hub");
        vars.push(("HUGGINGFACE_HUB_CACHE", "/old"));
        assert_eq!(dir(&vars).unwrap(), "/old");
        vars.push(("HF_HUB_CACHE", "/new"));
        assert_eq!(dir(&vars).unwrap(), "/new");
        assert_eq!(dir(&[]), None);
    }

    #[test]
    fn ids_become_folder_names_and_nothing_else_does() {
        assert_eq!(folder_of_id("org/name-1.5_b").unwrap(), "models--org--name-1.5_b");
        assert_eq!(folder_of_id("gpt2").unwrap(), "models--gpt2");
        assert_eq!(folder_of_id("models--org--name").unwrap(), "models--org--name");
        for id in ["a/b/c", "../x", "a/..", "/a", "a/", "", "a b", "x.safetensors", "models--../x", "a--b/c"]
        {
            assert_eq!(folder_of_id(id), None, "{id}");
        }
    }
}
