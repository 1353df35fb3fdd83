//! Every example runs, checks its own results, and so stays true.

#[allow(dead_code)]
#[path = "../custom_quantizer.rs"]
mod custom_quantizer;
#[allow(dead_code)]
#[path = "../custom_validator.rs"]
mod custom_validator;

#[test]
fn custom_quantizer_compresses_and_decodes() {
    custom_quantizer::run().unwrap();
}

#[test]
fn custom_validator_gets_its_limits_judged() {
    custom_validator::run().unwrap();
}
