//! Typed fields of a configuration: a field is absent, null, right, or an error that names it.

use lsb_format::{Error, Result, escape};
use serde_json::{Map, Value};

/// An object of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The first of `names` that is there and not null, with the name it has.
    pub(crate) fn any(&self, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
        names.iter().find_map(|name| self.0.get(*name).filter(|v| !v.is_null()).map(|v| (*name, v)))
    }

    /// True where the field is written as `null`.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(Value::is_null)
    }

    pub(crate) fn unsigned(&self, names: &[&'static str]) -> Result<Option<(&'static str, u64)>> {
        self.typed(names, "a whole number", Value::as_u64)
    }

    pub(crate) fn number(&self, names: &[&'static str]) -> Result<Option<(&'static str, f64)>> {
        self.typed(names, "a number", Value::as_f64)
    }

    pub(crate) fn text(&self, names: &[&'static str]) -> Result<Option<(&'static str, &'a str)>> {
        self.typed(names, "a text", Value::as_str)
    }

    pub(crate) fn flag(&self, names: &[&'static str]) -> Result<Option<(&'static str, bool)>> {
        self.typed(names, "true or false", Value::as_bool)
    }

    pub(crate) fn object(&self, names: &[&'static str]) -> Result<Option<(&'static str, Fields<'a>)>> {
        self.typed(names, "an object", |v| v.as_object().map(Fields))
    }

    /// A list of numbers above zero; empty where it is missing.
    pub(crate) fn numbers(&self, names: &[&'static str]) -> Result<Vec<f64>> {
        let read = |v: &'a Value| {
            let list = v.as_array()?.iter().map(|v| v.as_f64().filter(|x| *x > 0.0));
            list.collect::<Option<Vec<f64>>>()
        };
        Ok(self.typed(names, "a list of numbers above 0", read)?.map_or_else(Vec::new, |(_, list)| list))
    }

    /// A list of whole numbers; empty where it is missing.
    pub(crate) fn indices(&self, names: &[&'static str]) -> Result<Vec<u64>> {
        let read = |v: &'a Value| v.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<_>>>();
        Ok(self.typed(names, "a list of whole numbers", read)?.map_or_else(Vec::new, |(_, list)| list))
    }

    /// A list of texts; empty where it is missing.
    pub(crate) fn texts(&self, names: &[&'static str]) -> Result<Vec<&'a str>> {
        let read = |v: &'a Value| v.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
        Ok(self.typed(names, "a list of texts", read)?.map_or_else(Vec::new, |(_, list)| list))
    }

    fn typed<T>(
        &self,
        names: &[&'static str],
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<(&'static str, T)>> {
        let Some((name, value)) = self.any(names) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some((name, read))),
            None => {
                let found = escape(&value.to_string());
                Err(Error::corruption("B78", format!("{name} must be {wanted} and is {found}")))
            }
        }
    }
}

/// The value, or the error that the field is missing.
pub(crate) fn required<T>(found: Option<(&'static str, T)>, name: &str) -> Result<T> {
    found.map(|(_, value)| value).ok_or_else(|| Error::corruption("B78", format!("{name} is missing")))
}
