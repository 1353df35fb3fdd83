//! Parameters of a codec: named values that are typed by users, stored in the manifest and read back.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// One value. Integers stay integers, so that they survive JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// `true`, `false`
    Bool(bool),
    /// `128`
    Integer(i64),
    /// `0.02`
    Number(f64),
    /// `row`
    Text(String),
}

impl FromStr for Value {
    type Err = std::convert::Infallible;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(if let Ok(b) = s.parse() {
            Value::Bool(b)
        } else if let Ok(i) = s.parse() {
            Value::Integer(i)
        } else if let Some(x) = s.parse::<f64>().ok().filter(|x| x.is_finite()) {
            Value::Number(x)
        } else {
            Value::Text(s.to_owned())
        })
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(b) => b.fmt(f),
            Value::Integer(i) => i.fmt(f),
            Value::Number(x) => x.fmt(f),
            Value::Text(s) => s.fmt(f),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident $conv:expr),+ $(,)?) => {
        $(impl From<$from> for Value {
            fn from(v: $from) -> Self { Value::$variant($conv(v)) }
        })+
    };
}

value_from! {
    bool => Bool |v| v,
    i64 => Integer |v| v,
    u32 => Integer i64::from,
    u8 => Integer i64::from,
    f64 => Number |v| v,
    &str => Text str::to_owned,
    String => Text |v| v,
}

/// Parameters in name order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters(BTreeMap<String, Value>);

impl Parameters {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more parameter; a later value replaces an earlier one of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a parameter.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All parameters in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parses `key=value,key=value`. The empty string has no parameters.
    ///
    /// # Errors
    /// If an item has no `=`, or a name appears twice.
    pub fn parse(codec: &str, text: &str) -> Result<Self> {
        let mut out = Parameters::new();
        for item in text.split(',').map(str::trim).filter(|s| !s.is_empty()) {
            let bad = |message: &str| Error::Parameter {
                codec: codec.to_owned(),
                name: item.to_owned(),
                message: message.to_owned(),
            };
            let (name, value) = item.split_once('=').ok_or_else(|| bad("write it as name=value"))?;
            let (name, value) = (name.trim(), value.trim());
            if out.get(name).is_some() {
                return Err(bad("given twice"));
            }
            out.0.insert(name.to_owned(), value.parse().unwrap_or(Value::Bool(false)));
        }
        Ok(out)
    }

    /// Starts reading: every parameter must be taken before [`Reader::finish`].
    pub fn reader<'a>(&'a self, codec: &'a str) -> Reader<'a> {
        Reader { codec, left: self.0.iter().map(|(k, v)| (k.as_str(), v)).collect() }
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Takes parameters out one by one, so that unknown names are noticed.
#[derive(Debug)]
pub struct Reader<'a> {
    codec: &'a str,
    left: BTreeMap<&'a str, &'a Value>,
}

impl Reader<'_> {
    fn error(&self, name: &str, message: String) -> Error {
        Error::Parameter { codec: self.codec.to_owned(), name: name.to_owned(), message }
    }

    /// A number between `min` and `max`, or `default`.
    ///
    /// # Errors
    /// If the value is not a number in that range.
    pub fn number(&mut self, name: &str, default: f64, min: f64, max: f64) -> Result<f64> {
        let x = match self.left.remove(name) {
            None => return Ok(default),
            Some(Value::Number(x)) => *x,
            Some(Value::Integer(i)) => *i as f64,
            Some(other) => return Err(self.error(name, format!("\"{other}\" is not a number"))),
        };
        if (min..=max).contains(&x) {
            Ok(x)
        } else {
            Err(self.error(name, format!("{x} is not in {min} to {max}")))
        }
    }

    /// An integer between `min` and `max`, or `default`.
    ///
    /// # Errors
    /// If the value is not an integer in that range.
    pub fn integer(&mut self, name: &str, default: i64, min: i64, max: i64) -> Result<i64> {
        let i = match self.left.remove(name) {
            None => return Ok(default),
            Some(Value::Integer(i)) => *i,
            Some(other) => {
                return Err(self.error(name, format!("\"{other}\" is not a whole number")));
            }
        };
        if (min..=max).contains(&i) {
            Ok(i)
        } else {
            Err(self.error(name, format!("{i} is not in {min} to {max}")))
        }
    }

    /// A flag, or `default`.
    ///
    /// # Errors
    /// If the value is not `true` or `false`.
    pub fn flag(&mut self, name: &str, default: bool) -> Result<bool> {
        match self.left.remove(name) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(self.error(name, format!("\"{other}\" is not true or false"))),
        }
    }

    /// Any value as text, or `default`.
    pub fn text(&mut self, name: &str, default: &str) -> String {
        self.left.remove(name).map_or_else(|| default.to_owned(), ToString::to_string)
    }

    /// One of several words, as its position in `choices`.
    ///
    /// # Errors
    /// If the value is none of the words.
    pub fn choice(&mut self, name: &str, default: &str, choices: &[&str]) -> Result<usize> {
        let text = self.text(name, default);
        choices
            .iter()
            .position(|c| *c == text)
            .ok_or_else(|| self.error(name, format!("\"{text}\" is none of {}", choices.join(", "))))
    }

    /// Ends reading.
    ///
    /// # Errors
    /// If a parameter was not taken: its name does not exist.
    pub fn finish(self) -> Result<()> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.error(name, "there is no such parameter; see `lsb codecs`".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_print_are_inverse() {
        let p = Parameters::parse("x", "group=row, bits=4,ratio=0.02,sym=true").unwrap();
        assert_eq!(p.to_string(), "bits=4,group=row,ratio=0.02,sym=true");
        assert_eq!(Parameters::parse("x", &p.to_string()).unwrap(), p);
        let json = serde_json::to_string(&p).unwrap();
        assert_eq!(serde_json::from_str::<Parameters>(&json).unwrap(), p);
    }

    #[test]
    fn unknown_and_repeated_names_are_errors() {
        let p = Parameters::new().with("gruop", 3i64);
        let mut r = p.reader("rtn");
        r.integer("group", 1, 0, 9).unwrap();
        assert!(r.finish().unwrap_err().to_string().contains("gruop"));
        assert!(Parameters::parse("x", "a=1,a=2").is_err());
        assert!(Parameters::parse("x", "a").is_err());
    }
}
