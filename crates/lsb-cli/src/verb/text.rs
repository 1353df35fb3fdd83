//! The text that a model is judged on, and how it is cut.

use crate::exit::Failure;
use lsb_model::Tokenizer;
use lsb_validate::evaluate::TokenizedText;
use lsb_validate::protocol::Protocol;
use std::path::{Path, PathBuf};

/// Text and protocol as flags.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Text")]
pub(crate) struct TextOptions {
    /// Text to predict, or for an encoder a sentence in each line: a UTF-8 file
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) text: PathBuf,

    #[command(flatten)]
    pub(crate) cut: Cut,
}

/// How a text is cut.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Protocol")]
pub(crate) struct Cut {
    /// Tokens of a window [default: 2048 or the model's context; 512 with llama.cpp]
    #[arg(long, value_name = "N")]
    window: Option<usize>,

    /// Tokens by which overlapping windows advance; only ids not scored before count
    #[arg(long, value_name = "N")]
    stride: Option<usize>,

    /// Begin each window with the model's BOS token
    #[arg(long)]
    bos: bool,

    /// Tokens to score at most; for an encoder, tokens of all sentences together
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,

    /// Whose convention: windows side by side, or only the second half of each scored as llama.cpp does
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Convention::Default)]
    protocol: Convention,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Convention {
    #[default]
    Default,
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

/// A text that was read.
pub(crate) struct ReadText {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ids: Vec<u32>,
    pub(crate) tokenizer: Tokenizer,
}

impl ReadText {
    pub(crate) fn tokens(&self) -> TokenizedText<'_> {
        TokenizedText { bytes: &self.bytes, ids: &self.ids }
    }
}

impl TextOptions {
    /// The text, cut into tokens by the tokenizer in `folder`.
    pub(crate) fn read(&self, folder: &Path) -> Result<ReadText, Failure> {
        read(&self.text, folder)
    }

    pub(crate) fn protocol(&self, text: &ReadText, context: Option<usize>) -> Result<Protocol, Failure> {
        self.cut.protocol(&text.tokenizer, context)
    }
}

/// The text of `file`, cut into tokens by the tokenizer in `folder`.
pub(crate) fn read(file: &Path, folder: &Path) -> Result<ReadText, Failure> {
    let tokenizer = Tokenizer::open(folder)?;
    let text = read_utf8(file)?;
    let ids = tokenizer.encode(&text, false)?;
    Ok(ReadText { ids, tokenizer, bytes: text.into_bytes() })
}

/// The lines of `file` that are not blank, each a sentence for an encoder whose tokenizer lies in `folder` and whose
/// configuration allows `context` tokens: ids with the special ones, cut off where the encoder ends. `cut` may limit
/// their tokens; sentences stay whole.
pub(crate) fn sentences(
    file: &Path,
    folder: &Path,
    context: Option<usize>,
    cut: &Cut,
) -> Result<Vec<Vec<u32>>, Failure> {
    let limit = cut.limit_of_sentences()?;
    let tokenizer = Tokenizer::open(folder)?;
    let most = sentence_tokens(&tokenizer, context);
    let mut left = limit.unwrap_or(usize::MAX);
    let mut sentences = Vec::new();
    for line in read_utf8(file)?.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let ids = tokenizer.encode_truncated(line, most)?;
        let Some(rest) = left.checked_sub(ids.len()) else { break };
        left = rest;
        sentences.push(ids);
    }
    match limit {
        Some(limit) if sentences.is_empty() => Err(Failure::usage(format!(
            "{} has no sentence of {limit} tokens or less at its start",
            file.display()
        ))),
        _ => Ok(sentences),
    }
}

/// The most tokens of a sentence, special ones among them.
pub(crate) fn sentence_tokens(tokenizer: &Tokenizer, context: Option<usize>) -> usize {
    [tokenizer.max_tokens(), context].into_iter().flatten().min().unwrap_or(512)
}

fn read_utf8(file: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(file).map_err(lsb_stream::Error::io("read", file))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::usage(format!("{} is not UTF-8 at byte {at}", file.display()))
    })
}

impl Cut {
    /// The most tokens of all sentences together. The other options speak of windows of a running text.
    fn limit_of_sentences(&self) -> Result<Option<usize>, Failure> {
        let given = [
            ("--window", self.window.is_some()),
            ("--stride", self.stride.is_some()),
            ("--bos", self.bos),
            ("--protocol llama.cpp", matches!(self.protocol, Convention::LlamaCpp)),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Failure::usage(format!(
                "the model is an encoder, and each line of the text a sentence of its own: leave {flag} out"
            ))),
            None => Ok(self.max_tokens),
        }
    }

    pub(crate) fn protocol(
        &self,
        tokenizer: &Tokenizer,
        context: Option<usize>,
    ) -> Result<Protocol, Failure> {
        let bos = tokenizer.bos();
        let mut protocol = match self.protocol {
            Convention::Default => Protocol::for_context(context.unwrap_or(usize::MAX)),
            Convention::LlamaCpp => {
                // Where the tokenizer puts one in front of a text.
                let (before, _) = tokenizer.frame();
                Protocol::llama_cpp(bos.filter(|id| before.contains(id)))
            }
        };
        if self.bos {
            let missing = || Failure::usage("the model names no BOS token; leave --bos out");
            protocol.bos = Some(bos.ok_or_else(missing)?);
        }
        protocol.window = self.window.unwrap_or(protocol.window);
        protocol.stride = self.stride;
        protocol.max_tokens = self.max_tokens;
        Ok(protocol)
    }
}
