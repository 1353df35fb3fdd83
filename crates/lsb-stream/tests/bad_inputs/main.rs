//! The catalogue of bad inputs, `docs/bad-inputs.md`, row by row: each test carries the row's id in its name
//! and checks the rule, the file, the tensor, the offset and the words of the refusal.

// A test that cannot set up its input has failed.
#![allow(clippy::unwrap_used)]

mod header;
mod shards;
mod support;
mod wrong_file;

use std::path::Path;

/// Every row of the catalogue that is about reading has a test named after it, and every test a row.
#[test]
fn every_row_has_a_test() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let catalogue = std::fs::read_to_string(crates.parent().unwrap().join("docs/bad-inputs.md")).unwrap();
    let mut source = String::new();
    for dir in ["lsb-stream/tests/bad_inputs", "lsb-model/tests/bad_configs"] {
        for file in std::fs::read_dir(crates.join(dir)).unwrap() {
            source += &std::fs::read_to_string(file.unwrap().path()).unwrap();
        }
    }
    let rows: Vec<String> = catalogue
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let reading = cells.len() == 6 && cells[4] == "reading";
            reading.then(|| cells[1].to_lowercase())
        })
        .collect();
    assert!(rows.len() >= 70, "only {} rows found", rows.len());
    for row in &rows {
        assert!(source.contains(&format!("fn {row}_")), "row {row} has no test");
    }
    for line in source.lines() {
        let Some(name) = line.trim().strip_prefix("fn b").and_then(|rest| rest.split('_').next()) else {
            continue;
        };
        if name.bytes().all(|b| b.is_ascii_digit()) {
            assert!(rows.contains(&format!("b{name}")), "test of b{name}, which is not a row");
        }
    }
}
