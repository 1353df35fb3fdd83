//! The `lsb` command.
fn main() {}
