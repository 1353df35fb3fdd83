//! The reader against the reference crate, and headers it writes itself. The catalogue of bad headers is
//! tested on files, with the crate that opens them.

use super::*;
use crate::DType;
use proptest::prelude::*;

fn parse(json: &str, data_len: u64) -> Result<Header> {
    Header::parse(json.as_bytes(), data_len)
}

#[test]
fn entries_come_in_both_orders_and_by_name() {
    let json = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[2,10]},"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}"#;
    let header = parse(json, 10).unwrap();
    let names = |e: Entry<'_>| e.name.to_owned();
    assert_eq!(header.entries().map(names).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(header.entries_by_offset().map(names).collect::<Vec<_>>(), ["a", "b"]);
    let b = header.find("b").unwrap();
    assert_eq!((b.dtype, b.shape, b.begin, b.end, b.header_offset), (DType::F32, &[2][..], 2, 10, 9));
    assert_eq!(b.elements(), 2);
    assert!(header.find("c").is_none());
    assert_eq!(header.data_start(), 8 + json.len() as u64);
}

#[test]
fn header_length_is_judged_by_limit_and_file() {
    let len = |n: u64, file, limit| header_len(n.to_le_bytes(), file, limit).map_err(|e| e.rule());
    assert_eq!(len(2, 10, 100), Ok(2));
    assert_eq!(len(0, 10, 100), Err("B18"));
    assert_eq!(len(3, 10, 100), Err("B9"));
    assert_eq!(len(101, 1000, 100), Err("B20"));
    assert_eq!(len(u64::MAX, 1000, 100), Err("B19"));
    assert_eq!(len(u64::MAX, 1000, u64::MAX), Err("B19"));
    assert_eq!(len(1, 3, 100), Err("B9"));
}

#[test]
fn written_headers_are_aligned_and_read_back() {
    let shape = [3, 2];
    let entries = [
        NewEntry { name: "z\"\n", dtype: DType::F16, shape: &shape, begin: 0, end: 12 },
        NewEntry { name: "a", dtype: DType::U8, shape: &[], begin: 12, end: 13 },
    ];
    for align in [1, 8, 64, 4096] {
        let bytes = write_header(&entries, &[("format", "pt"), ("k", "\u{7f}")], align).unwrap();
        assert_eq!(bytes.len() as u64 % align, 0);
        let header = Header::parse(&bytes[8..], 13).unwrap();
        assert_eq!(header.entries().map(|e| e.name).collect::<Vec<_>>(), ["z\"\n", "a"]);
        assert_eq!(header.metadata().collect::<Vec<_>>(), [("format", "pt"), ("k", "\u{7f}")]);
        let mut file = bytes.clone();
        file.extend([0; 13]);
        assert_eq!(::safetensors::SafeTensors::deserialize(&file).unwrap().len(), 2);
    }
    assert!(write_header(&entries, &[], 0).is_err());
    let hole = [NewEntry { begin: 1, end: 13, ..entries[0] }];
    assert_eq!(write_header(&hole, &[], 8).unwrap_err().rule(), "B34");
}

#[test]
fn a_header_of_200_000_tensors_stays_small() {
    let mut json = String::from("{");
    for i in 0..200_000 {
        let comma = if i == 0 { "" } else { "," };
        json +=
            &format!("{comma}\"t{i}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[{i},{}]}}", i + 1);
    }
    json.push('}');
    let header = parse(&json, 200_000).unwrap();
    assert_eq!(header.len(), 200_000);
    let held = header.names.capacity()
        + 8 * header.dims.capacity()
        + size_of::<header::Record>() * header.records.capacity()
        + 4 * (header.by_name.capacity() + header.by_offset.capacity());
    assert!(held < 2 * json.len(), "{held} bytes for a header of {}", json.len());
}

/// Fragments that make nearly valid headers, so that random ones reach every check.
fn fragment() -> impl Strategy<Value = String> {
    let shape = proptest::collection::vec(prop_oneof![0u64..4, Just(1 << 40), Just(u64::MAX)], 0..4);
    let dtype = prop_oneof![Just("F32"), Just("BF16"), Just("U8"), Just("F4"), Just("f32")];
    (prop_oneof![Just("a"), Just("b"), Just("\\u0061")], dtype, shape, 0u64..9, 0u64..25).prop_map(
        |(name, dtype, shape, begin, len)| {
            format!(
                "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{}]}}",
                begin + len
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is accepted here, the reference implementation accepts too, and reads the same.
    #[test]
    fn prop_accepted_headers_read_alike_in_the_reference(
        entries in proptest::collection::vec(fragment(), 0..3), data_len in 0u64..30,
    ) {
        let json = format!("{{{}}}", entries.join(","));
        if let Ok(header) = parse(&json, data_len) {
            let mut file = (json.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(json.as_bytes());
            file.resize(file.len() + data_len as usize, 0);
            let theirs = ::safetensors::SafeTensors::deserialize(&file).unwrap();
            prop_assert_eq!(theirs.len(), header.len());
            for entry in header.entries() {
                let view = theirs.tensor(entry.name).unwrap();
                prop_assert_eq!(view.data().len() as u64, entry.bytes());
                let dims: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
                prop_assert_eq!(&dims[..], entry.shape);
            }
        }
    }

    #[test]
    fn prop_single_tensors_of_any_small_shape_are_accepted(
        shape in proptest::collection::vec(0u64..5, 0..5), dtype in 0..DType::ALL.len(),
    ) {
        let dtype = DType::ALL[dtype];
        let elements: u64 = shape.iter().product();
        let Some(bytes) = dtype.byte_len(elements) else { return Ok(()) };
        let entry = NewEntry { name: "t", dtype, shape: &shape, begin: 0, end: bytes };
        let written = write_header(&[entry], &[], 8).unwrap();
        let header = Header::parse(&written[8..], bytes).unwrap();
        prop_assert_eq!(header.find("t").unwrap().shape, &shape[..]);
    }

    #[test]
    fn prop_mutated_headers_never_panic(at in 0usize..200, byte in any::<u8>(), data_len in 0u64..20) {
        let mut json = br#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"U8","shape":[0],"data_offsets":[16,16]}}"#.to_vec();
        let n = json.len();
        json[at % n] = byte;
        let _ = Header::parse(&json, data_len);
    }
}
