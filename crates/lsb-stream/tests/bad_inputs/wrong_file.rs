//! Rows B1 to B17: something else in the place of the file.

use crate::support::*;
use lsb_format::ErrorKind;
use lsb_stream::Error;
use lsb_stream::source::{Model, OpenOptions};
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn b1_empty_file() {
    let e = refusal([]);
    says(&e, "B1", None, Some(0), &["empty", "download it again"]);
    assert_eq!(e.kind(), ErrorKind::Truncated);
}

#[test]
fn b2_shorter_than_the_length_field() {
    for n in 1..8 {
        says(&refusal(vec![0; n]), "B2", None, Some(n as u64), &[&format!("has {n} bytes")]);
    }
}

#[test]
fn b3_git_lfs_pointer() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698672\n";
    says(&refusal(pointer), "B3", None, Some(0), &["Git LFS pointer", "4976698672 bytes", "git lfs pull"]);
    says(&refusal("version https://git-lfs.github.com/spec/v1\n"), "B3", None, Some(0), &["Git LFS"]);
}

#[test]
fn b4_error_page_in_place_of_the_file() {
    for page in ["<!DOCTYPE html><html>", "\n  <html><body>404", "<?xml version=\"1.0\"?>"] {
        says(&refusal(page), "B4", None, Some(0), &["HTML", &format!("{} bytes", page.len())]);
    }
    says(
        &refusal("{\"error\":\"not found\"}"),
        "B4",
        None,
        Some(0),
        &["JSON text", "download the file again"],
    );
}

#[test]
fn b5_pytorch_checkpoint() {
    says(&refusal(b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl"), "B5", None, Some(0), &["zip", "convert"]);
    says(
        &refusal(b"\x80\x02}q\x00(X\x06\x00\x00\x00weight"),
        "B5",
        None,
        Some(0),
        &["pickle", "never opened"],
    );
}

#[test]
fn b6_gguf() {
    says(&refusal(b"GGUF\x03\x00\x00\x00\x01\x00\x00\x00"), "B6", None, Some(0), &["GGUF"]);
}

#[test]
fn b7_archives_and_other_formats() {
    let mut tar = vec![b'x'; 600];
    tar[257..262].copy_from_slice(b"ustar");
    for (start, word) in [
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec(), "gzip"),
        (b"\x28\xb5\x2f\xfd\x04\x00\x00\x00\x00\x00".to_vec(), "zstd"),
        (b"BZh91AY&SY".to_vec(), "bzip2"),
        (b"\xfd7zXZ\x00\x00\x04".to_vec(), "xz"),
        (b"\x89HDF\r\n\x1a\n".to_vec(), "HDF5"),
        (tar, "tar"),
    ] {
        says(&refusal(start), "B7", None, Some(0), &[word]);
    }
}

/// A header's length may look like another format's mark: the header decides.
#[test]
fn b5_a_header_whose_length_looks_like_a_pickle_is_read() {
    let json = entry("a", "U8", "[1]", "[0,1]");
    let json = format!("{{{json}}}{}", " ".repeat(0x280 - json.len() - 2));
    let file = raw(&json, &[7]);
    assert_eq!(file[..2], [0x80, 2]);
    assert_eq!(accepted(file).1.tensors().len(), 1);
}

#[test]
fn b8_data_cut_short() {
    let whole = bytes_of(&[("a", 10), ("b", 0), ("c", 100)]);
    let start = whole.len() as u64 - 110;
    for (left, first) in [(0, "a"), (1, "a"), (9, "a"), (10, "c"), (11, "c"), (60, "c"), (109, "c")] {
        let e = refusal(&whole[..(start + left) as usize]);
        let short = format!("{} bytes short", 110 - left);
        let name = format!("first incomplete tensor is \"{first}\"");
        says(&e, "B8", Some(first), Some(start + left), &[&short, &name, "download it again"]);
        assert_eq!(e.kind(), ErrorKind::Truncated);
    }
}

#[test]
fn b9_cut_inside_the_header() {
    let whole = bytes_of(&[("a", 10)]);
    let header = whole.len() - 10;
    for n in 8..header {
        let short = format!("ends {} bytes before", header - n);
        says(&refusal(&whole[..n]), "B9", None, Some(n as u64), &[&short]);
    }
}

#[test]
fn b10_bytes_after_the_last_tensor() {
    for n in [1, 7, 4096] {
        let mut file = bytes_of(&[("a", 10)]);
        let end = file.len() as u64;
        file.resize(file.len() + n, 0);
        says(&refusal(&file), "B10", None, Some(end), &[&format!("{n} bytes follow")]);
    }
}

#[test]
fn b12_unfinished_downloads() {
    let folder = Folder::new();
    symlink("../../blobs/nowhere", folder.at(FILE)).unwrap();
    says(
        &folder.refusal(),
        "B12",
        None,
        None,
        &["a link to a file that is not there", "finish the download"],
    );

    let folder = Folder::new().with("model.safetensors.incomplete", bytes_of(&[("a", 1)]));
    says_in(&folder.refusal(), "model.safetensors.incomplete", "B12", None, None, &["not finished"]);
    let e = input(Model::open(&folder.at("model.safetensors.incomplete"), &options()));
    says_in(&e, "model.safetensors.incomplete", "B12", None, None, &["not finished"]);
}

#[test]
fn b13_links_into_the_hubs_cache() {
    let cache = hub();
    let snapshot = cache.at("models--org--tiny/snapshots/c0ffee");
    let by_path = |path: &std::path::Path, options: &OpenOptions| {
        let model = Model::open(path, options).unwrap();
        assert_eq!(model.warnings(), []);
        assert_eq!(model.name(), "org/tiny");
        assert_eq!(model.config_json(), Some(&b"{}"[..]));
        assert_eq!(data(&model, 0), [0; 5]);
    };
    by_path(&snapshot, &options());
    by_path(&cache.at("models--org--tiny"), &options());
    let cached = OpenOptions { hub_cache: Some(cache.path().to_owned()), ..options() };
    by_path("org/tiny".as_ref(), &cached);
    by_path("models--org--tiny".as_ref(), &cached);
    let revision = OpenOptions { revision: Some("c0ffee".to_owned()), ..cached.clone() };
    by_path("org/tiny".as_ref(), &revision);
    assert_eq!(Model::open(&snapshot.join(FILE), &options()).unwrap().name(), "org/tiny");

    let refused =
        |id: &str, options: &OpenOptions| Model::open(id.as_ref(), options).unwrap_err().to_string();
    let text = refused("org/other", &cached);
    assert!(text.contains("nothing is downloaded") && text.contains("hf download org/other"), "{text}");
    let missing = OpenOptions { revision: Some("v2".to_owned()), ..cached.clone() };
    assert!(refused("org/tiny", &missing).contains("revision v2"));
    cache.put("models--org--tiny/refs/main", "../../../etc");
    let e = input(Model::open("org/tiny".as_ref(), &cached));
    says_in(&e, "refs/main", "B65", None, None, &["steps through"]);
}

/// A cache with one model, laid out as the Hub's library does.
fn hub() -> Folder {
    let cache = Folder::new()
        .with("models--org--tiny/blobs/aa", bytes_of(&[("a", 5)]))
        .with("models--org--tiny/blobs/bb", "{}")
        .with("models--org--tiny/refs/main", "c0ffee\n");
    let snapshot = cache.at("models--org--tiny/snapshots/c0ffee");
    std::fs::create_dir_all(&snapshot).unwrap();
    symlink("../../blobs/aa", snapshot.join(FILE)).unwrap();
    symlink("../../blobs/bb", snapshot.join("config.json")).unwrap();
    cache
}

#[test]
fn b14_links_out_of_the_folder() {
    let outside = Folder::new().with("secret.txt", "x").with(FILE, bytes_of(&[("a", 5)]));
    let folder = Folder::new().with(FILE, bytes_of(&[("a", 5)]));
    symlink(outside.at("secret.txt"), folder.at("LICENSE")).unwrap();
    let w = folder.warning();
    assert_eq!((w.rule, w.file.as_deref()), ("B14", Some("LICENSE")));
    assert!(w.message.contains("secret.txt"), "{w}");

    let folder = Folder::new();
    symlink(outside.at(FILE), folder.at(FILE)).unwrap();
    assert_eq!(folder.warning().file.as_deref(), Some(FILE));
    says(&folder.strict_refusal(), "B14", None, None, &["strict"]);
}

#[test]
fn b15_not_a_regular_file() {
    let folder = Folder::new();
    std::fs::create_dir(folder.at(FILE)).unwrap();
    says(&folder.refusal(), "B15", None, None, &["a folder"]);

    let folder = Folder::new();
    let path = folder.at(FILE);
    let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(status.success());
    says(&folder.refusal(), "B15", None, None, &["a pipe"]);
    says(&input(Model::open(&path, &options())), "B15", None, None, &["a pipe"]);

    let folder = Folder::new();
    let socket = std::os::unix::net::UnixListener::bind(folder.at(FILE)).unwrap();
    says(&folder.refusal(), "B15", None, None, &["a socket"]);
    drop(socket);

    let e = input(Model::open("/dev/zero".as_ref(), &options()));
    says_in(&e, "zero", "B15", None, None, &["a device"]);
}

#[test]
fn b16_unreadable_file() {
    let folder = Folder::new().with(FILE, bytes_of(&[("a", 5)]));
    std::fs::set_permissions(folder.at(FILE), std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::File::open(folder.at(FILE)).is_ok() {
        println!("skipped: this user may read every file");
        return;
    }
    match folder.open() {
        Err(Error::Io { action: "open", path, source }) => {
            assert_eq!(path, folder.at(FILE));
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
            assert!(source.to_string().contains("mode 0000"), "{source}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn b17_two_names_for_one_file() {
    let one = "model-00001-of-00002.safetensors";
    let two = "model-00002-of-00002.safetensors";
    let folder = Folder::new().with(one, bytes_of(&[("a", 5)]));
    std::fs::hard_link(folder.at(one), folder.at(two)).unwrap();
    says_in(&folder.refusal(), two, "B17", None, None, &["the same file as", one]);
}
