//! `positions`: see `xtask/src/mutate/target/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    xtask::mutate::one("positions", data);
});
