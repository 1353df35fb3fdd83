//! Each rule on a small tree in memory.

use super::graph::Graph;
use super::*;
use std::collections::BTreeSet;

fn rules(violations: &[Violation]) -> Vec<&'static str> {
    violations.iter().map(|v| v.rule).collect()
}

fn rust(path: &str, text: &str) -> Vec<Violation> {
    rust::check(&Tree::default().with(path, text))
}

#[test]
fn a_clean_file_breaks_nothing() {
    assert_eq!(rust("crates/a/src/lib.rs", "//! A.\nfn main() {}\n"), []);
}

#[test]
fn a_file_without_a_sentence_is_named_with_its_line() {
    let found = rust("crates/a/src/lib.rs", "fn main() {}\n");
    assert_eq!(
        found[0].to_string().split(": ").take(2).collect::<Vec<_>>(),
        ["crates/a/src/lib.rs:1", "header"]
    );
}

#[test]
fn long_files_are_refused_and_tests_are_not() {
    let long = format!("//! A.\n{}", "fn f() {}\n".repeat(800));
    assert_eq!(rules(&rust("a/src/b.rs", &long)), ["length"]);
    assert_eq!(rules(&rust("a/src/tests.rs", &long)), [""; 0]);
    assert_eq!(rules(&rust("a/tests/b.rs", &long)), [""; 0]);
}

#[test]
fn names_that_attract_everything_are_refused() {
    for path in ["a/src/utils.rs", "a/src/helpers/mod.rs", "a/src/ops.rs"] {
        assert_eq!(rules(&rust(path, "//! A.\n")), ["module-name"], "{path}");
    }
    assert_eq!(rules(&rust("a/common/b.rs", "//! A.\n")), [""; 0]);
}

#[test]
fn a_file_beside_its_own_folder_is_refused() {
    let tree = Tree::default().with("a/src/b.rs", "//! A.\n").with("a/src/b/c.rs", "//! A.\n");
    let found = rust::check(&tree);
    assert_eq!(rules(&found), ["module-file"]);
    assert_eq!(found[0].file, "a/src/b.rs");
}

#[test]
fn unsafe_is_seen_in_code_only() {
    let hidden = "//! unsafe\n// unsafe\n/* unsafe /* */ unsafe */\nconst A: &str = \"unsafe\"; const B: &str = r#\"\"unsafe\"#;\n\
                  fn unsafe_name() { let c = '\"'; let _ = (c, b'\\'', \"\\\" unsafe\"); }\n";
    assert_eq!(rules(&rust("a/src/b.rs", hidden)), [""; 0]);
    let open = "//! A.\nfn f<'a>(x: &'a u8) { unsafe { g(x) } }\n";
    assert_eq!(rust("a/src/b.rs", open)[0].line, 2);
    assert_eq!(rules(&rust("a/src/kernel/avx2.rs", open)), [""; 0]);
}

#[test]
fn unfinished_code_is_refused() {
    let text = "//! A.\nfn f() { todo!() }\nfn g() { dbg!(1); }\nfn h() { unimplemented!() }\nfn todo() {}\n";
    assert_eq!(rules(&rust("a/src/b.rs", text)), ["unfinished"; 3]);
}

#[test]
fn whitespace_is_kept_clean() {
    let tree = Tree::default()
        .with("a.md", "fine\ntrailing \n")
        .with("b.toml", "x = 1\n\ty = 2\n")
        .with("c.rs", "no newline")
        .with("d.txt", "trailing ");
    let found = text::check(&tree);
    let places: Vec<_> = found.iter().map(|v| (v.file.as_str(), v.line)).collect();
    assert_eq!(places, [("c.rs", 1), ("a.md", 2), ("b.toml", 2)]);
}

#[test]
fn fixtures_must_be_explained_and_frozen_ones_recorded() {
    let tree = Tree::default()
        .with("fixtures/README.md", "`tiny/` made by x; `reflm/a.bin` trained\n")
        .with("fixtures/tiny/a.bin", "1")
        .with("fixtures/reflm/a.bin", "2")
        .with("fixtures/reflm/b.bin", "3");
    let found = fixtures::check(&tree);
    assert_eq!(rules(&found), ["fixture-readme", "fixture-frozen", "fixture-frozen"]);
    assert_eq!(found[0].file, "fixtures/reflm/b.bin");

    let list = fixtures::blessed(&tree);
    let blessed = tree.with("fixtures/frozen.txt", &list);
    assert_eq!(rules(&fixtures::check(&blessed)), ["fixture-readme"]);

    // A changed frozen file stays an error, blessed or not.
    let changed = blessed.with("fixtures/reflm/a.bin", "other");
    assert_eq!(fixtures::blessed(&changed), list);
    assert!(rules(&fixtures::check(&changed)).contains(&"fixture-frozen"));
}

#[test]
fn large_fixtures_are_refused() {
    let tree = Tree::default().with("fixtures/README.md", "`a`").with("fixtures/a", &"x".repeat(14_000_001));
    assert_eq!(rules(&fixtures::check(&tree)), ["fixture-size"]);
}

#[test]
fn wire_code_and_page_are_locked_together() {
    let wire = "crates/lsb-format/src/package/tile_table.rs";
    let tree = Tree::default().with(wire, "//! A.\nconst A: u8 = 1;\n");
    assert_eq!(format_lock::check(&tree), [], "no page, no rule");
    let tree = tree.with("docs/format.md", "the bytes\n");
    assert_eq!(rules(&format_lock::check(&tree)), ["format-lock"]);
    let lock = format_lock::blessed(&tree);
    let tree = tree.with("docs/format.lock", &lock);
    assert_eq!(format_lock::check(&tree), []);
    let reworded =
        tree.clone().with(wire, "//! Better words.\nconst A: u8 = 1;\n#[cfg(test)]\nmod tests {}\n");
    assert_eq!(format_lock::check(&reworded), []);
    let changed = tree.clone().with(wire, "//! A.\nconst A: u8 = 2;\n");
    assert_eq!(format_lock::check(&changed)[0].file, wire);
    let page_only = tree.with("docs/format.md", "other bytes\n");
    assert_eq!(format_lock::check(&page_only)[0].file, "docs/format.md");
}

#[test]
fn every_codec_is_explained_once_the_page_exists() {
    let empty = Tree::default();
    assert_eq!(codecs_doc::check_ids(&empty, &["raw"]), []);
    let tree = empty.with("docs/codecs.md", "`raw` stores\n");
    let found = codecs_doc::check_ids(&tree, &["raw", "rtn"]);
    assert_eq!(rules(&found), ["codec-doc"]);
    assert!(found[0].message.contains("`rtn`"));
}

fn graph(members: &[(&str, &[&str])]) -> Graph {
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    Graph {
        members: members
            .iter()
            .map(|(name, deps)| ((*name).to_owned(), (format!("crates/{name}/Cargo.toml"), set(deps))))
            .collect(),
        builds_with: members.iter().map(|(name, deps)| ((*name).to_owned(), set(deps))).collect(),
    }
}

#[test]
fn arrows_point_one_way() {
    let good = graph(&[("lsb-format", &["serde"]), ("lsb-stream", &["lsb-format"]), ("lsb-cli", &["clap"])]);
    assert_eq!(graph::check(&good), []);
    let bad = graph(&[("lsb-format", &["lsb-quant"]), ("lsb-quant", &["anyhow", "xtask"])]);
    assert_eq!(rules(&graph::check(&bad)), ["crate-arrow", "terminal-crate"]);
    let unknown = graph(&[("lsb-extra", &[])]);
    assert_eq!(rules(&graph::check(&unknown)), ["crate-arrow"]);
}

#[test]
fn candle_is_found_through_other_crates() {
    let mut g = graph(&[("lsb-stream", &["wrapper"]), ("lsb-model", &["candle-core"])]);
    g.builds_with.insert("wrapper".to_owned(), BTreeSet::from(["candle-core".to_owned()]));
    let found = graph::check(&g);
    assert_eq!(rules(&found), ["candle"]);
    assert!(found[0].message.contains("lsb-stream -> wrapper -> candle-core"));
}
