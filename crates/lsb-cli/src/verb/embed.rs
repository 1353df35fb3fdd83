//! `lsb embed`

use super::running::Running;
use super::text::sentence_tokens;
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::{print, print_json};
use lsb_model::{Pooling, Tokenizer};
use serde_json::json;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

/// Lines that go through the model together.
const LINES: usize = 256;

/// Turn each line of a text into a vector, with a sentence encoder
///
/// Prints one line of numbers for each line of input, in order; with --json one array of vectors. Pooling is what
/// the model's folder says in the files of sentence-transformers, the normalized mean where there are none. Lines
/// that are longer than the model allows are cut off.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  lsb embed out/all-MiniLM-L6-v2 --text sentences.txt --json")]
pub(crate) struct Args {
    /// Model or package
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// Text with one sentence in each line; - reads standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    text: PathBuf,

    #[command(flatten)]
    running: Running,
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let budget = args.running.begin()?;
    let tokenizer = Tokenizer::open(&args.path)?;
    let pooling = Pooling::open(&args.path)?;
    let model = args.running.open(&args.path, &budget, 1)?;
    if model.logits() > 0 {
        let what = model.config().architecture.name();
        return Err(Failure::usage(format!("{what} is no encoder; `lsb embed` is for models such as bert")));
    }
    let most = sentence_tokens(&tokenizer, model.spec().context);
    let source: Box<dyn Read> = if args.text.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        let file = std::fs::File::open(&args.text);
        Box::new(file.map_err(lsb_stream::Error::io("open", &args.text))?)
    };
    let lines = BufReader::new(source).lines();
    let lines: Vec<String> =
        lines.collect::<Result<_, _>>().map_err(lsb_stream::Error::io("read", &args.text))?;
    let mut all = Vec::new();
    for group in lines.chunks(LINES) {
        let ids = group.iter().map(|line| tokenizer.encode_truncated(line, most));
        let ids = ids.collect::<lsb_model::Result<Vec<_>>>()?;
        let vectors = model.embeddings(&ids, pooling)?;
        if common.json {
            all.extend(vectors);
            continue;
        }
        for vector in vectors {
            let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
            print(&(numbers.join(" ") + "\n"))?;
        }
    }
    if common.json { print_json(&json!(all)) } else { Ok(()) }
}
