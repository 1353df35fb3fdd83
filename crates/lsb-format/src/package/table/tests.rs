//! Tables round trip, are small, and survive no change.

use super::*;
use proptest::prelude::*;

fn key() -> TensorKey {
    TensorKey::new("0123456789abcdef", "model.norm.weight")
}

fn sample(rows: u64, cols: u64, parts: u8) -> TileTable {
    let tiling = Tiling::new(rows, cols, 2, 3, parts).unwrap();
    let entries = (0..tiling.len() as u32 * u32::from(parts)).map(|i| (i % 70, i ^ 0xabcd)).collect();
    TileTable::new(tiling, ShortDigest::of(b"source"), entries, b"side".to_vec()).unwrap()
}

fn parse(rows: u64, cols: u64, data: u64, stored: &[u8]) -> Result<TileTable> {
    let total = data + stored.len() as u64;
    let last = *stored.last_chunk::<4>().unwrap();
    let range = TileTable::locate(total, last)?;
    if range.start != data {
        return Err(Error::corruption("P17", "elsewhere"));
    }
    TileTable::parse(&key(), rows, cols, data, &stored[..stored.len() - 4])
}

#[test]
fn a_small_tensor_pays_44_bytes() {
    let tiling = Tiling::standard(1, 256).unwrap();
    let table = TileTable::new(tiling, ShortDigest::of(b""), vec![(512, 1)], Vec::new()).unwrap();
    assert_eq!(table.render(&key()).len(), 44);
    assert_eq!(table.stored_bytes(), 512 + 44);
}

#[test]
fn tables_round_trip_and_locate_their_tiles() {
    for (rows, cols, parts) in [(5, 7, 1), (5, 7, 3), (0, 7, 2), (1, 1, 16)] {
        let table = sample(rows, cols, parts);
        let bytes = table.render(&key());
        assert_eq!(table.stored_bytes(), table.data_bytes() + bytes.len() as u64);
        let read = parse(rows, cols, table.data_bytes(), &bytes).unwrap();
        assert_eq!(read, table);
        let mut next = 0;
        for i in 0..table.tiling().len() {
            let range = read.range(i).unwrap();
            assert_eq!(range.start, next);
            assert_eq!(range.end - range.start, read.part_bytes(i).map(u64::from).sum::<u64>());
            next = range.end;
        }
        assert_eq!(read.range(table.tiling().len()), None);
        assert_eq!(read.range(u64::MAX), None);
    }
}

#[test]
fn every_change_of_every_byte_is_noticed() {
    let table = sample(5, 7, 2);
    let bytes = table.render(&key());
    for i in 0..bytes.len() {
        for change in [1u8, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[i] ^= change;
            assert!(parse(5, 7, table.data_bytes(), &damaged).is_err(), "byte {i} ^ {change:#x}");
        }
    }
    for cut in 4..bytes.len() {
        assert!(parse(5, 7, table.data_bytes(), &bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(parse(5, 10, table.data_bytes(), &bytes).unwrap_err().rule(), "P20");
    assert_eq!(parse(7, 7, table.data_bytes(), &bytes).unwrap_err().rule(), "P20");
    let other = TensorKey::new("0123456789abcdef", "other");
    let read = TileTable::parse(&other, 5, 7, table.data_bytes(), &bytes[..bytes.len() - 4]);
    assert_eq!(read.unwrap_err().rule(), "P18");
}

#[test]
fn tiles_are_bound_to_their_place() {
    let tiling = Tiling::new(4, 3, 2, 3, 2).unwrap();
    let payloads: [&[u8]; 4] = [b"aa", b"bb", b"aa", b"bb"];
    let entries = (0..4)
        .map(|i| (2, key().tile_crc(&tiling.tile(i as u64 / 2), i as u8 % 2, payloads[i])))
        .collect::<Vec<_>>();
    assert_ne!(entries[0], entries[2], "the same bytes in another tile have another checksum");
    let table = TileTable::new(tiling, ShortDigest::of(b""), entries, Vec::new()).unwrap();
    table.check_part(&key(), &tiling.tile(1), 0, b"aa").unwrap();
    let error = table.check_part(&key(), &tiling.tile(1), 1, b"aa").unwrap_err();
    assert_eq!((error.rule(), error.tile()), ("P21", Some(1)));
}

#[test]
fn caps_hold() {
    let tiling = Tiling::standard(1, 1).unwrap();
    let most = max_tile_bytes(1) as u32;
    let digest = ShortDigest::of(b"");
    assert!(TileTable::new(tiling, digest, vec![(most, 0)], Vec::new()).is_ok());
    let error = TileTable::new(tiling, digest, vec![(most + 1, 0)], Vec::new()).unwrap_err();
    assert_eq!((error.rule(), error.tile()), ("P25", Some(0)));
    let side = vec![0; MAX_SIDE_BYTES + 1];
    assert_eq!(TileTable::new(tiling, digest, vec![(0, 0)], side).unwrap_err().rule(), "P25");
    assert_eq!(TileTable::locate(1 << 40, [0xff; 4]).unwrap_err().rule(), "P25");
    assert_eq!(TileTable::locate(10, [0xff; 4]).unwrap_err().rule(), "P17");
    assert_eq!(TileTable::locate(u64::MAX, [31, 0, 0, 0]).unwrap_err().rule(), "P17");
    // 2^31 one-weight tiles: refused before anything is allocated for them.
    let many = Tiling::new(1 << 31, 1, 1, 1, 1).unwrap();
    assert_eq!(TileTable::new(many, digest, Vec::new(), Vec::new()).unwrap_err().rule(), "P25");
}

proptest! {
    #[test]
    fn prop_random_tables_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
        rows in 0u64..1 << 40, cols in 0u64..1 << 20, data in any::<u64>(), honest: bool,
    ) {
        if honest && bytes.len() > 36 {
            // With a right checksum the fields behind it are reached.
            bytes[0] = 1;
            bytes[2] = 0;
            bytes[3] = 0;
            let end = bytes.len() - 4;
            let crc = key().table_crc(&bytes[..end], bytes.len() as u32);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
        }
        let _ = TileTable::parse(&key(), rows, cols, data, &bytes);
    }
}
