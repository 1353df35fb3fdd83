//! From an id and parameters to a configured codec. The only place that lists them.

use crate::{Error, Parameters, Quantizer, Result};
use std::fmt;
use std::sync::Arc;

/// One parameter as `lsb codecs` explains it.
#[derive(Clone, Copy, Debug)]
pub struct ParameterHelp {
    /// Name, as typed.
    pub name: &'static str,
    /// Default and range, such as `0.02 (0 to 0.5)`.
    pub values: &'static str,
    /// One line.
    pub summary: &'static str,
}

type Build = Arc<dyn Fn(&Parameters) -> Result<Arc<dyn Quantizer>> + Send + Sync>;

/// A codec the registry can build.
#[derive(Clone)]
pub struct CodecEntry {
    /// What users type and manifests store.
    pub id: &'static str,
    /// One line on what the codec does.
    pub summary: &'static str,
    /// The parameter that `id:value` sets, such as `planes` for `residual-binary:3`.
    pub main_parameter: Option<&'static str>,
    /// Its parameters.
    pub parameters: &'static [ParameterHelp],
    /// Configurations from coarse to fine, such as `bits=2`, `bits=3`: what a size target chooses from.
    pub ladder: &'static [&'static str],
    build: Build,
}

impl CodecEntry {
    /// An entry that builds codecs with `build`, which must refuse unknown parameters.
    pub fn new<F>(id: &'static str, summary: &'static str, build: F) -> Self
    where
        F: Fn(&Parameters) -> Result<Arc<dyn Quantizer>> + Send + Sync + 'static,
    {
        CodecEntry { id, summary, main_parameter: None, parameters: &[], ladder: &[], build: Arc::new(build) }
    }

    /// With its parameters explained; the first one is the main one, set by `id:value`.
    #[must_use]
    pub fn with_parameters(mut self, parameters: &'static [ParameterHelp]) -> Self {
        self.main_parameter = parameters.first().map(|p| p.name);
        self.parameters = parameters;
        self
    }
}

impl CodecEntry {
    /// With the configurations a size target may choose from, coarse to fine.
    #[must_use]
    pub fn with_ladder(mut self, ladder: &'static [&'static str]) -> Self {
        self.ladder = ladder;
        self
    }
}

impl fmt::Debug for CodecEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodecEntry")
            .field("id", &self.id)
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}

/// The codecs a program knows.
#[derive(Clone, Debug)]
pub struct Registry {
    entries: Vec<CodecEntry>,
}

impl Registry {
    /// A registry without codecs.
    pub fn empty() -> Self {
        Registry { entries: Vec::new() }
    }

    /// The codecs of this crate.
    pub fn standard() -> Self {
        Registry { entries: crate::codec::all() }
    }

    /// Adds a codec, replacing one of the same id.
    pub fn register(&mut self, entry: CodecEntry) {
        self.entries.retain(|e| e.id != entry.id);
        self.entries.push(entry);
    }

    /// All entries, in the order they were registered.
    pub fn entries(&self) -> &[CodecEntry] {
        &self.entries
    }

    /// Builds the codec `id` with `parameters`.
    ///
    /// # Errors
    /// If no codec has that id, or a parameter is unknown or out of range.
    pub fn build(&self, id: &str, parameters: &Parameters) -> Result<Arc<dyn Quantizer>> {
        (self.entry(id)?.build)(parameters)
    }

    /// Builds a codec from `id`, `id:value` or `id:key=value,key=value`. A bare value sets the main parameter.
    ///
    /// # Errors
    /// As [`Registry::build`].
    pub fn parse(&self, text: &str) -> Result<Arc<dyn Quantizer>> {
        let (id, parameters) = self.parse_parts(text)?;
        self.build(&id, &parameters)
    }

    /// Splits what [`Registry::parse`] takes into id and parameters.
    ///
    /// # Errors
    /// If no codec has that id, or the text is not of that form.
    pub fn parse_parts(&self, text: &str) -> Result<(String, Parameters)> {
        let (id, rest) = text.split_once(':').unwrap_or((text, ""));
        let entry = self.entry(id.trim())?;
        let parameters = match (rest.split_once([',', '=']), entry.main_parameter) {
            _ if rest.is_empty() => Parameters::new(),
            (Some((head, _)), Some(main)) if !rest[head.len()..].starts_with('=') => {
                Parameters::parse(entry.id, &format!("{main}={rest}"))?
            }
            (None, Some(main)) => Parameters::parse(entry.id, &format!("{main}={rest}"))?,
            _ => Parameters::parse(entry.id, rest)?,
        };
        Ok((entry.id.to_owned(), parameters))
    }

    /// The entry called `id`.
    ///
    /// # Errors
    /// If no codec has that id.
    pub fn entry(&self, id: &str) -> Result<&CodecEntry> {
        self.entries.iter().find(|e| e.id == id).ok_or_else(|| Error::UnknownCodec {
            id: id.to_owned(),
            known: self.entries.iter().map(|e| e.id.to_owned()).collect(),
        })
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::standard()
    }
}
