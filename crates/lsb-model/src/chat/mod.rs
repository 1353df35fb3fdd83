//! Messages of a conversation to the one text that a model was trained on, by the model's own chat template.
//!
//! Templates are Jinja programs from strangers. They are rendered the way the transformers library does it, in an
//! environment that reads no files and knows no clock, with limits on steps, depth and output.

mod clock;
mod environment;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::tokenizer::files::{self, SMALL};
use crate::tokenizer::special::TOKENIZER_CONFIG;
use environment::{NAME, environment};
use lsb_format::escape;
use minijinja::{Environment, Value, context};
use serde_json::{Map, Value as Json};
use std::path::Path;

/// The longest template, in bytes; published ones have some ten thousand.
const MAX_TEMPLATE: usize = 1 << 20;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// Who says it: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role` saying `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A model's chat template, checked and ready.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Special tokens by the name that templates use, such as `bos_token`.
    tokens: Vec<(&'static str, String)>,
    file: &'static str,
}

impl ChatTemplate {
    /// Opens the chat template in a model or package folder: `chat_template.jinja`, else `chat_template.json`,
    /// else `chat_template` in `tokenizer_config.json` (of several the one named `default`). `None` where there
    /// is none, as for models that were never taught to converse.
    ///
    /// # Errors
    /// [`Error::Input`]: `T1` to `T4` for the files, `T10` for a template that is no Jinja.
    pub fn open(dir: &Path) -> Result<Option<ChatTemplate>> {
        let config = files::read_json(dir, TOKENIZER_CONFIG)?.unwrap_or_default();
        let Some((file, source)) = find(dir, &config)? else { return Ok(None) };
        Self::build(file, source, &config).map(Some)
    }

    fn build(file: &'static str, source: String, config: &Map<String, Json>) -> Result<ChatTemplate> {
        if source.len() > MAX_TEMPLATE {
            let message = format!("the template has {} bytes, the limit is {MAX_TEMPLATE}", source.len());
            return Err(refuse("T10", file, message));
        }
        let mut environment = environment();
        environment.add_template_owned(NAME, generation_marks_as_blocks(&source)).map_err(|e| {
            let line = e.line().map_or(String::new(), |line| format!(" in line {line}"));
            let what = escape(e.detail().unwrap_or("not Jinja")).to_string();
            refuse("T10", file, format!("the chat template cannot be parsed{line}: {what}"))
        })?;
        let names =
            ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];
        let text = |name: &str| {
            let value = config.get(name)?;
            value.get("content").unwrap_or(value).as_str().map(str::to_owned)
        };
        let tokens = names.into_iter().filter_map(|name| Some((name, text(name)?))).collect();
        let mut template = ChatTemplate { environment, tokens, file };
        template.set_time(clock::DEFAULT);
        Ok(template)
    }

    /// Sets the time that the template sees, in seconds since 1970 (UTC). Until then it is 26 July 2024, the
    /// date that published templates fall back to, so that a prompt does not depend on the day.
    pub fn set_time(&mut self, seconds: i64) {
        self.environment.add_function("strftime_now", move |format: &str| clock::strftime(seconds, format));
    }

    /// The text of `messages`, oldest first; with `add_generation_prompt` it ends where the answer begins.
    /// Special tokens are part of the text: encode it without adding them again.
    ///
    /// # Errors
    /// [`Error::Text`] if the template refuses the messages, such as two of one role in a row, fails, or does not
    /// come to an end within its limits.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let tokens: Value = self.tokens.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let values = context! {
            messages,
            add_generation_prompt,
            tools => Value::from(()),
            documents => Value::from(()),
            ..tokens
        };
        environment::render(&self.environment, values)
            .map_err(|why| Error::Text(format!("{}: {why}", self.file)))
    }
}

fn find(dir: &Path, config: &Map<String, Json>) -> Result<Option<(&'static str, String)>> {
    const JINJA: &str = "chat_template.jinja";
    const JSON: &str = "chat_template.json";
    if let Some(bytes) = files::read(dir, JINJA, SMALL)? {
        let text = String::from_utf8(bytes).map_err(|e| {
            refuse("T3", JINJA, format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to()))
        })?;
        return Ok(Some((JINJA, text)));
    }
    let beside = files::read_json(dir, JSON)?;
    for (fields, file) in beside.iter().map(|fields| (fields, JSON)).chain([(config, TOKENIZER_CONFIG)]) {
        match fields.get("chat_template") {
            None | Some(Json::Null) => {}
            Some(Json::String(text)) => return Ok(Some((file, text.clone()))),
            Some(Json::Array(list)) => return named(list, file).map(|text| Some((file, text))),
            Some(_) => {
                let message = "chat_template must be a text or a list of named texts".to_owned();
                return Err(refuse("T4", file, message));
            }
        }
    }
    Ok(None)
}

/// The template named `default`, or the only one.
fn named(list: &[Json], file: &'static str) -> Result<String> {
    let field = |entry: &Json, name: &str| entry.get(name).and_then(Json::as_str).map(str::to_owned);
    let default = list.iter().find(|entry| field(entry, "name").as_deref() == Some("default"));
    let only = if let [one] = list { Some(one) } else { None };
    default.or(only).and_then(|entry| field(entry, "template")).ok_or_else(|| {
        let names: Vec<String> = list.iter().filter_map(|e| field(e, "name")).map(|n| escape(&n)).collect();
        let message = format!("no chat template is named \"default\"; there are: {}", names.join(", "));
        refuse("T4", file, message)
    })
}

/// Turns `{% generation %}`, by which the transformers library marks what the assistant said, into blocks that
/// change nothing; dashes for whitespace stay.
fn generation_marks_as_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let word = tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim();
        match word {
            "generation" => out.push_str(&tag.replace(word, "if true")),
            "endgeneration" => out.push_str(&tag.replace(word, "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn refuse(rule: &'static str, file: &str, message: String) -> Error {
    lsb_format::Error::corruption(rule, message).in_file(file).into()
}
