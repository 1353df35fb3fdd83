//! `safetensors_header`: see `xtask/src/mutate/target/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    xtask::mutate::one("safetensors_header", data);
});
