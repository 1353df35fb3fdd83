//! From what went wrong to an exit code and one message.

use lsb_stream::Error;
use serde_json::json;
use std::io;
use std::process::ExitCode;

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something failed: exit code 1, or 2 where the request itself was wrong.
    Failed(Error),
    /// A check said no, and the output already says which: exit code 3.
    CheckFailed,
    /// Nobody reads our output any more, which is no failure of the work.
    Closed,
}

/// Result of a verb.
pub(crate) type Outcome = Result<(), Failure>;

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Failed(e)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Failed(Error::io("write", std::path::Path::new("stdout"))(e)),
        }
    }
}

impl Failure {
    /// A request that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Failed(Error::Config(message.into()))
    }

    /// Prints the message on stderr and gives the exit code.
    pub(crate) fn report(self, json: bool) -> ExitCode {
        let error = match self {
            Failure::CheckFailed => return ExitCode::from(3),
            Failure::Closed => return ExitCode::SUCCESS,
            Failure::Failed(error) => error,
        };
        let code = match &error {
            Error::Config(_) => 2,
            Error::Interrupted => 130,
            _ => 1,
        };
        if json {
            let mut line = json!({ "message": error.to_string(), "exit_code": code });
            if let Error::Input(e) = &error {
                line["rule"] = e.rule().into();
                line["file"] = e.file().into();
                line["tensor"] = e.tensor().into();
                line["tile"] = e.tile().into();
                line["offset"] = e.offset().into();
            }
            eprintln!("{}", json!({ "error": line }));
        } else {
            eprintln!("error: {error}");
        }
        ExitCode::from(code)
    }
}
