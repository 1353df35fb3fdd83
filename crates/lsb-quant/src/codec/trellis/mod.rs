//! `trellis`
mod machine;
mod number;
mod search;
#[cfg(test)]
mod experiment;
