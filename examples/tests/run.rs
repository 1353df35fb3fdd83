//! Every example runs, checks its own results, and so stays true.

#[allow(dead_code)]
#[path = "../custom_quantizer.rs"]
mod custom_quantizer;

#[test]
fn custom_quantizer_compresses_and_decodes() {
    custom_quantizer::run().unwrap();
}
