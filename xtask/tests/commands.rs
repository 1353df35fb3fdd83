//! The commands that judge this repository, started as a developer starts them.

use std::process::Command;

fn passes(arguments: &[&str]) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().expect("xtask can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo xtask {}: {}\n{said}", arguments.join(" "), output.status);
}

#[test]
fn the_repository_keeps_its_house_rules() {
    passes(&["tidy"]);
}

#[test]
fn generated_fixtures_are_what_the_generators_write() {
    passes(&["fixtures", "--check"]);
}
