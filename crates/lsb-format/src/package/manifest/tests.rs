//! Manifests round trip, stay small, and refuse what they must.

use super::write::TAIL_BYTES;
use super::*;
use crate::package::{Hash, shard_file_name};
use proptest::prelude::*;
use serde_json::json;

fn stored(name: &str, shape: &[u64], shard: usize) -> TensorRecord {
    let content = StoredTensor {
        dtype: DType::BF16,
        shape: shape.to_vec(),
        codec: 0,
        shard,
        blake3: Hash::of(name.as_bytes()),
    };
    TensorRecord { name: name.to_owned(), content: Content::Stored(content) }
}

fn sample() -> Manifest {
    let shard =
        |i| ShardRecord { file: shard_file_name(i), bytes: 4096, header_blake3: Hash::of(&[i as u8]) };
    Manifest {
        features: Features { required: vec![], optional: vec!["notes".to_owned()] },
        tool: "lsb 0.1.0".to_owned(),
        fingerprint: Hash::of(b"fingerprint"),
        source: Source {
            weight_bytes: 2 * (4096 * 11008 + 64),
            files: vec![SourceFile {
                file: "model.safetensors".to_owned(),
                bytes: 99,
                header_blake3: Hash::of(b"h"),
            }],
        },
        weights: 4096 * 11008 + 64,
        codecs: vec![CodecRecord {
            id: "rtn".to_owned(),
            parameters: [
                ("bits", json!(4)),
                ("group", json!("row")),
                ("ratio", json!(0.02)),
                ("sym", json!(true)),
            ]
            .map(|(k, v)| (k.to_owned(), v))
            .into(),
        }],
        shards: vec![shard(0), shard(1)],
        tensors: vec![
            stored("model.layers.0.mlp.down_proj.weight", &[4096, 11008], 0),
            stored("model.norm.weight", &[64], 1),
            TensorRecord {
                name: "lm_head.weight".to_owned(),
                content: Content::SameAs("model.norm.weight".to_owned()),
            },
        ],
        files: vec![FileRecord {
            file: "config.json".to_owned(),
            bytes: 3,
            blake3: Hash::of(b"{}\n"),
            role: FileRole::Copied,
        }],
        extra: [("notes".to_owned(), json!({"a": [1, null]}))].into(),
    }
}

/// The manifest whose body was changed by hand and hashed again.
fn forged(change: impl FnOnce(String) -> String) -> Vec<u8> {
    let bytes = sample().render().unwrap();
    let body = String::from_utf8(bytes[..bytes.len() - TAIL_BYTES].to_vec()).unwrap();
    let body = change(body);
    let hash: Digest = Hash::of(body.as_bytes());
    format!("{body},\"blake3\":\"{hash}\"}}\n").into_bytes()
}

fn refused(rule: &str, change: impl FnOnce(&mut Manifest)) {
    let mut manifest = sample();
    change(&mut manifest);
    assert_eq!(manifest.render().unwrap_err().rule(), rule);
}

fn stored_mut(m: &mut Manifest, i: usize) -> &mut StoredTensor {
    match &mut m.tensors[i].content {
        Content::Stored(s) => s,
        Content::SameAs(_) => panic!("not stored"),
    }
}

#[test]
fn manifests_round_trip_and_cost_little_per_tensor() {
    let manifest = sample();
    let bytes = manifest.render().unwrap();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    let mut longer = sample();
    longer.tensors.insert(0, stored("model.layers.0.mlp.gate_proj.weight", &[4096, 11008], 0));
    longer.weights += 4096 * 11008;
    assert!(longer.render().unwrap().len() - bytes.len() < 150);
}

#[test]
fn every_single_byte_change_and_every_cut_is_noticed() {
    let bytes = sample().render().unwrap();
    for i in 0..bytes.len() {
        for change in [1u8, 0x20, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[i] ^= change;
            let rule = Manifest::parse(&damaged).unwrap_err().rule();
            assert!(matches!(rule, "P01" | "P02" | "P04"), "byte {i}: {rule}");
        }
        assert!(Manifest::parse(&bytes[..i]).is_err());
    }
    let longer = [&bytes[..], b" "].concat();
    assert_eq!(Manifest::parse(&longer).unwrap_err().rule(), "P04");
}

#[test]
fn versions_and_features_are_refused_by_name() {
    let parse = |from: &str, to: &str| {
        let bytes = forged(|b| {
            assert!(b.contains(from), "{from}");
            b.replacen(from, to, 1)
        });
        Manifest::parse(&bytes)
    };
    let newer = parse("\"version\":1", "\"version\":2").unwrap_err();
    assert_eq!((newer.rule(), newer.kind()), ("P02", crate::ErrorKind::Compatibility));
    let needs = parse("\"required\":[]", "\"required\":[\"sparse\"]").unwrap_err();
    assert_eq!(needs.rule(), "P03");
    assert!(needs.message().contains("sparse"));
    // The feature is named even where it brings fields that this version does not know.
    let unknown = parse(
        "\"required\":[],\"optional\":[\"notes\"]}",
        "\"required\":[\"sparse\"],\"optional\":[]},\"x\":1",
    );
    assert_eq!(unknown.unwrap_err().rule(), "P03");
    assert!(parse("\"optional\":[\"notes\"]", "\"optional\":[\"notes\",\"later\"]").is_ok());
    assert_eq!(Manifest::parse(b"{\"metadata\":{}}").unwrap_err().rule(), "P01");
    assert_eq!(Manifest::parse(b"").unwrap_err().rule(), "P04");
}

#[test]
fn other_spellings_are_refused_even_with_a_right_hash() {
    let changes = [
        ("\"weights\":", "\"weights\": "),
        ("\"tool\":\"lsb 0.1.0\"", "\"tool\":\"other\",\"tool\":\"lsb 0.1.0\""),
        ("\"bits\":4", "\"bits\":3,\"bits\":4"),
        ("0.02", "0.020"),
        ("0.02", "2e-2"),
        ("\"notes\":{", "\"notes\":1,\"notes\":{"),
        ("\"role\":\"copied\"", "\"role\":\"copied\",\"colour\":1"),
        ("\"role\":\"copied\"", "\"role\":\"else\""),
        ("\"BF16\"", "\"BF17\""),
        ("\"same_as\":", "\"codec\":0,\"same_as\":"),
        ("\"same_as\":", "\"dtype\":null,\"same_as\":"),
        ("lsb 0.1.0", "lsb \\u0030.1.0"),
        ("[4096,11008]", "[4096,-1]"),
        ("[4096,11008]", "[4096,1.5]"),
        ("[4096,11008]", "[4096,99999999999999999999]"),
    ];
    for (from, to) in changes {
        let bytes = forged(|b| {
            assert!(b.contains(from), "{from}");
            b.replacen(from, to, 1)
        });
        assert_eq!(Manifest::parse(&bytes).unwrap_err().rule(), "P05", "{to}");
    }
    let deep = forged(|b| b.replacen("{\"a\":[1,null]}", &"[".repeat(100_000), 1));
    assert_eq!(Manifest::parse(&deep).unwrap_err().rule(), "P05");
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    refused("P06", |m| stored_mut(m, 0).shape = vec![1; 9]);
    refused("B35", |m| stored_mut(m, 0).shape = vec![1 << 40, 1 << 40]);
    refused("B35", |m| stored_mut(m, 0).shape = vec![1 << 40, 1 << 40, 0]);
    refused("B35", |m| {
        stored_mut(m, 0).dtype = DType::F4;
        stored_mut(m, 0).shape = vec![3];
    });
    refused("P09", |m| stored_mut(m, 0).codec = 1);
    refused("P09", |m| stored_mut(m, 0).shard = 2);
    refused("P09", |m| m.tensors.swap(0, 1));
    refused("P09", |m| m.weights += 1);
    refused("P09", |m| m.tensors[2].content = Content::SameAs("lm_head.weight".to_owned()));
    refused("P07", |m| m.tensors[1].name = m.tensors[0].name.clone());
    refused("P07", |m| m.tensors[1].name = "__metadata__".to_owned());
    refused("P08", |m| m.shards[1].file = "../weights-00002.lsb".to_owned());
    refused("P08", |m| m.files[0].file = "../config.json".to_owned());
    refused("P08", |m| {
        let mut twin = m.files[0].clone();
        twin.file = "CONFIG.json".to_owned();
        m.files.push(twin);
    });
    refused("P06", |m| m.codecs[0].id.clear());
    refused("P06", |m| {
        m.codecs[0].parameters.insert("x".to_owned(), json!([1]));
    });
    refused("P06", |m| m.codecs = vec![m.codecs[0].clone(); crate::package::MAX_TENSORS + 1]);
    refused("P05", |m| {
        m.extra.insert("unknown".to_owned(), json!(1));
    });
}

proptest! {
    #[test]
    fn prop_forged_manifests_never_panic(at in 0usize..1400, to: u8, cut in 0usize..1400) {
        let bytes = forged(|b| {
            let mut bytes = b.into_bytes();
            let at = at % bytes.len();
            bytes[at] = to;
            String::from_utf8(bytes).unwrap_or_default()
        });
        let _ = Manifest::parse(&bytes);
        let _ = Manifest::parse(&bytes[..cut.min(bytes.len())]);
    }
}
