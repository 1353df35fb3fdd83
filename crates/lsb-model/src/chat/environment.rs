//! What a chat template can use, and how far it may go.

use lsb_format::escape;
use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The name of the one template.
pub(super) const NAME: &str = "chat";
/// Steps of one rendering; a message takes some hundred.
const STEPS: u64 = 5_000_000;
/// Macros and loops within each other: real templates have five or so.
const DEPTH: usize = 50;
/// The longest text that a rendering may give, in bytes.
const MAX_TEXT: usize = 64 << 20;
/// Begins the messages of errors that the template raised on purpose.
const RAISED: &str = "the chat template refuses these messages: ";

/// An environment like the one of the transformers library.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_fuel(Some(STEPS));
    env.set_recursion_limit(DEPTH);
    env.add_filter("tojson", to_json);
    // It can be asked for a text of any width, and no template needs it.
    env.remove_filter("format");
    env.remove_filter("indent");
    env.add_function("raise_exception", |message: &str| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
    });
    env
}

/// Renders the template; an error is a sentence.
pub(super) fn render(env: &Environment<'_>, values: Value) -> Result<String, String> {
    let mut out = Bounded(Vec::new());
    let done = catch_unwind(AssertUnwindSafe(|| {
        env.get_template(NAME)?.render_captured_to(values, &mut out).map(drop)
    }));
    match done {
        Err(_) => Err("the chat template broke down; it is damaged or crafted".to_owned()),
        Ok(Err(e)) => Err(sentence(&e)),
        Ok(Ok(())) => String::from_utf8(out.0).map_err(|e| e.to_string()),
    }
}

fn sentence(e: &Error) -> String {
    let detail = escape(e.detail().unwrap_or_default());
    let line = e.line().map_or(String::new(), |line| format!(" in line {line}"));
    match e.kind() {
        ErrorKind::OutOfFuel => format!("the chat template did not end within {STEPS} steps"),
        ErrorKind::WriteFailure => format!("the chat template gives more than {MAX_TEXT} bytes"),
        _ if detail.starts_with(RAISED) => detail,
        kind => format!("the chat template failed{line}: {kind}: {detail}"),
    }
}

/// A text that must not grow beyond [`MAX_TEXT`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `tojson` as the transformers library has it: `json.dumps(value, ensure_ascii=False)`, nothing escaped for HTML.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut out = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
        Some(n) => {
            let indent = " ".repeat(n.min(16));
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))
        }
    };
    let text =
        written.map_err(|e| e.to_string()).and_then(|()| String::from_utf8(out).map_err(|e| e.to_string()));
    text.map(Value::from_safe_string).map_err(|e| Error::new(ErrorKind::BadSerialization, e))
}

/// Separators of Python's `json.dumps`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
