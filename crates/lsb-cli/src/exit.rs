//! From what went wrong to an exit code and one message.

use crate::render;
use lsb_format::ErrorKind;
use lsb_stream::Error;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something failed, or the request itself was wrong.
    Failed(Error),
    /// A check said no, and the output already says which.
    CheckFailed,
}

/// Result of a verb.
pub(crate) type Outcome = Result<(), Failure>;

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Failed(e)
    }
}

impl From<lsb_model::Error> for Failure {
    fn from(e: lsb_model::Error) -> Self {
        match e {
            lsb_model::Error::Input(e) => Failure::Failed(Error::Input(e)),
            lsb_model::Error::Stream(e) => Failure::Failed(e),
            other => Failure::refused(other.to_string()),
        }
    }
}

impl From<lsb_validate::evaluate::EvaluateError> for Failure {
    fn from(e: lsb_validate::evaluate::EvaluateError) -> Self {
        use lsb_validate::evaluate::EvaluateError;
        match e {
            EvaluateError::Model(e) => e.into(),
            EvaluateError::Reference(e) => e.into(),
            EvaluateError::Protocol(_) | EvaluateError::NoSentences => Failure::usage(e.to_string()),
            other => Failure::refused(other.to_string()),
        }
    }
}

impl From<lsb_validate::BenchmarkError> for Failure {
    fn from(e: lsb_validate::BenchmarkError) -> Self {
        match e {
            lsb_validate::BenchmarkError::Stream(e) => e.into(),
            lsb_validate::BenchmarkError::Evaluate(e) => e.into(),
            other => Failure::refused(other.to_string()),
        }
    }
}

impl Failure {
    /// A request that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Failed(Error::Config(message.into()))
    }

    /// The work cannot go on, and it is not the request's fault.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Failure::Failed(Error::Refused { message: message.into() })
    }

    /// Prints the message on stderr and gives the exit code.
    pub(crate) fn report(self, as_json: bool) -> ExitCode {
        let code = self.code();
        if let Failure::Failed(error) = self {
            if as_json {
                render::say(error_json(&error, code));
            } else {
                render::say(format_args!("error: {error}"));
            }
        }
        ExitCode::from(code)
    }

    /// 1 failed, 2 usage, 3 a check said no, 130 interrupted.
    fn code(&self) -> u8 {
        match self {
            Failure::CheckFailed => 3,
            Failure::Failed(Error::Config(_)) => 2,
            Failure::Failed(Error::Input(e)) if e.kind() == ErrorKind::InvalidArgument => 2,
            Failure::Failed(Error::Codec {
                source: lsb_quant::Error::UnknownCodec { .. } | lsb_quant::Error::Parameter { .. },
                ..
            }) => 2,
            Failure::Failed(Error::Interrupted) => 130,
            Failure::Failed(_) => 1,
        }
    }
}

/// Reports a command line that does not parse, or prints the help that was asked for.
pub(crate) fn unparsable(error: &clap::Error, as_json: bool) -> ExitCode {
    if !error.use_stderr() || !as_json {
        // A closed pipe behind `--help` is no reason to fail.
        let _ = error.print();
        return ExitCode::from(u8::from(error.use_stderr()) * 2);
    }
    let text = error.render().to_string();
    let message = text.split("\n\nUsage:").next().unwrap_or(&text).trim();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    Failure::usage(message).report(true)
}

/// The error as one line with always the same keys.
fn error_json(error: &Error, code: u8) -> Value {
    let mut out = json!({
        "message": error.to_string(), "exit_code": code,
        "rule": null, "file": null, "tensor": null, "tile": null, "offset": null,
    });
    match error {
        Error::Input(e) => {
            out["rule"] = Some(e.rule()).filter(|r| !r.is_empty()).into();
            out["file"] = e.file().into();
            out["tensor"] = e.tensor().into();
            out["tile"] = e.tile().into();
            out["offset"] = e.offset().into();
        }
        Error::Codec { tensor, .. } => out["tensor"] = tensor.as_str().into(),
        Error::Io { path, .. } | Error::InUse { path } | Error::Resume { path, .. } => {
            out["file"] = path.display().to_string().into();
        }
        _ => {}
    }
    json!({ "error": out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_who_must_act() {
        let damaged = lsb_format::Error::corruption("P12", "bad").in_file("a").in_tensor("t").at(7);
        let argument = lsb_format::Error::argument("no such thing");
        let unknown = lsb_quant::Error::UnknownCodec { id: "x".into(), known: vec![] };
        let cases: [(Failure, u8); 7] = [
            (Failure::CheckFailed, 3),
            (Failure::usage("x"), 2),
            (Failure::refused("x"), 1),
            (Error::Input(damaged).into(), 1),
            (Error::Input(argument).into(), 2),
            (Error::Codec { tensor: "t".into(), source: unknown }.into(), 2),
            (Error::Interrupted.into(), 130),
        ];
        for (failure, code) in cases {
            assert_eq!(failure.code(), code, "{failure:?}");
        }
    }

    #[test]
    fn the_json_of_an_error_has_every_key_and_the_message_once() {
        let e = lsb_format::Error::corruption("P12", "bad sum").in_file("a").in_tensor("t").in_tile(3).at(7);
        let out = error_json(&Error::Input(e), 1);
        let e = &out["error"];
        assert_eq!(e["message"], "[P12] a, tensor \"t\", tile 3, at byte 7: bad sum");
        assert_eq!((&e["rule"], &e["file"], &e["tensor"]), (&"P12".into(), &"a".into(), &"t".into()));
        assert_eq!((&e["tile"], &e["offset"], &e["exit_code"]), (&3.into(), &7.into(), &1.into()));
        let plain = error_json(&Error::Config("no".into()), 2);
        let keys = |v: &Value| v["error"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&plain), keys(&out));
        assert!(plain["error"]["rule"].is_null());
    }
}
