//! Checks a whole JSON text, so that a general parser may read it afterwards without losing anything.

use super::{Reader, Rules};
use crate::{Error, Result, escape};
use std::collections::HashMap;

/// Checks that `bytes` are one JSON object with finite numbers, without a key twice in any object, and not
/// nested too deeply. A parser that keeps the last of two equal keys then reads what is written.
///
/// # Errors
/// With the rule and the byte offset of the first thing that is wrong.
pub fn check_document(bytes: &[u8], rules: Rules) -> Result<()> {
    let mut reader = Reader::new(bytes, 0, rules)?;
    if reader.peek() != Some(b'{') {
        return Err(reader.wrong_kind("an object"));
    }
    value(&mut reader, rules)?;
    reader.end()
}

fn value(reader: &mut Reader<'_>, rules: Rules) -> Result<()> {
    let at = reader.offset();
    match reader.peek() {
        Some(b'{') => {
            let mut seen = HashMap::new();
            reader.object(|reader, key, at| {
                if let Some(first) = seen.insert(key.clone(), at) {
                    let message =
                        format!("the key \"{}\" is there twice, first at byte {first}", escape(&key));
                    return Err(Error::corruption(rules.duplicate, message).at(at));
                }
                value(reader, rules)
            })
        }
        Some(b'[') => reader.array(|reader| value(reader, rules)),
        Some(b'-' | b'0'..=b'9') => {
            let text = reader.number()?;
            if text.parse::<f64>().is_ok_and(f64::is_finite) {
                return Ok(());
            }
            let message = format!("the number {} is out of range", escape(text));
            Err(Error::corruption(rules.number, message).at(at))
        }
        _ => reader.skip(),
    }
}
