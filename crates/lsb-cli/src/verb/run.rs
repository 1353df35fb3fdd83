//! `lsb run`

use super::interrupt_flag;
use super::running::Running;
use crate::Common;
use crate::exit::{Failure, Outcome};
use crate::render::number::bytes;
use crate::render::{print, print_json, say};
use lsb_model::{
    CacheType, ChatTemplate, Finish, GenerateOptions, Generated, Generator, Message, ModelRunner,
    SamplerOptions, Tokenizer,
};
use lsb_stream::peak_rss_bytes;
use serde_json::{Value, json};
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Generate text with a model or a package, in bounded memory
///
/// Layers are read when they are needed and dropped again; where the budget holds all of them they stay. Text
/// appears as it is made. The first Ctrl-C ends it after the current token.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  lsb run out/llama -p \"It was a dark and stormy night, and\"\n  \
    lsb run out/llama --chat --temperature 0.7 --min-p 0.05\n  \
    lsb run models/llama -p - --json < prompt.txt")]
pub(crate) struct Args {
    /// Model or package
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// Text to continue; - reads it from standard input
    #[arg(short, long, value_name = "TEXT", required_unless_present = "chat", conflicts_with = "chat")]
    prompt: Option<String>,

    /// Talk: each line of standard input is a message, put into the model's own chat template
    #[arg(long, conflicts_with = "json")]
    chat: bool,

    /// What the model is told before the talk begins
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,

    /// New tokens at most, for each answer
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,

    /// Tokens of a whole talk at most [default: the model's context, up to 4096]
    #[arg(long, value_name = "N", requires = "chat")]
    context: Option<usize>,

    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    running: Running,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
struct Sampling {
    /// What logits are divided by; 0 always takes the most likely token
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    temperature: f32,

    /// Keep only so many most likely tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,

    /// Keep the most likely tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,

    /// Keep tokens at least this likely relative to the most likely one
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,

    /// Make tokens that were used less likely; 1 does not
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f32,

    /// How many recent tokens count as used; 0 means all
    #[arg(long, value_name = "N", default_value_t = 0)]
    repetition_window: usize,

    /// Where random numbers begin
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// End before this text; repeatable
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Go on where the model ends
    #[arg(long)]
    ignore_end: bool,

    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = Cache::F16)]
    cache: Cache,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Cache {
    F32,
    F16,
    Q8,
}

impl Sampling {
    fn options(&self, max_new_tokens: usize) -> GenerateOptions {
        GenerateOptions {
            max_new_tokens,
            sampler: SamplerOptions {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                repetition_window: self.repetition_window,
                seed: self.seed,
            },
            stop: self.stop.clone(),
            end_tokens: !self.ignore_end,
        }
    }

    fn cache(&self) -> CacheType {
        match self.cache {
            Cache::F32 => CacheType::F32,
            Cache::F16 => CacheType::F16,
            Cache::Q8 => CacheType::Q8,
        }
    }
}

pub(crate) fn run(args: &Args, common: Common) -> Outcome {
    let options = args.sampling.options(args.max_new_tokens);
    options.sampler.check()?;
    let budget = args.running.begin()?;
    let tokenizer = Tokenizer::open(&args.path)?;
    let start = if args.chat {
        Start::Chat(Box::new(template(args)?))
    } else {
        let text = prompt(args.prompt.as_deref().unwrap_or_default())?;
        let ids = tokenizer.encode(&text, true)?;
        if ids.is_empty() {
            return Err(Failure::usage("the prompt has no tokens"));
        }
        Start::Once(text, ids)
    };
    let context = match &start {
        Start::Chat(_) => args.context.unwrap_or(MAX_CONTEXT),
        Start::Once(_, ids) => ids.len().saturating_add(options.max_new_tokens),
    };
    let model = args.running.open_to_generate(&args.path, &budget, context, args.sampling.cache())?;
    tokenizer.check_ids(model.spec().vocab as u64)?;
    let interrupted = interrupt_flag()?;
    match start {
        Start::Chat(template) => chat(args, &model, &tokenizer, &template, &options, &interrupted),
        Start::Once(text, ids) => {
            let generator = Generator::new(&model, &tokenizer, context, args.sampling.cache())?;
            once(common, generator, &text, &ids, &options, &interrupted)
        }
    }
}

/// Tokens of a talk at most, where nothing else is said.
const MAX_CONTEXT: usize = 4096;

/// What generation begins with.
enum Start {
    Chat(Box<ChatTemplate>),
    /// A prompt and its tokens.
    Once(String, Vec<u32>),
}

/// The prompt that was given, or that standard input has.
fn prompt(given: &str) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|e| Failure::refused(format!("cannot read the prompt from standard input: {e}")))?;
    Ok(text)
}

fn once(
    common: Common,
    mut generator: Generator<'_>,
    text: &str,
    ids: &[u32],
    options: &GenerateOptions,
    interrupted: &Arc<AtomicBool>,
) -> Outcome {
    if !common.json {
        print(text)?;
    }
    let generated = generator.generate(ids, options, interrupted, |piece| {
        if !common.json {
            show(piece);
        }
    })?;
    if common.json {
        return print_json(&document(&generated));
    }
    print("\n")?;
    if !common.quiet {
        say(summary(&generated));
    }
    Ok(())
}

/// Text on stdout at once. A reader that went away is no failure: the rest is made for nobody.
fn show(piece: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
}

fn document(generated: &Generated) -> Value {
    json!({
        "text": generated.text, "token_ids": generated.token_ids,
        "prompt_tokens": generated.prompt_tokens, "new_tokens": generated.token_ids.len(),
        "finish": finish(generated.finish),
        "seconds_first_token": generated.seconds_first_token,
        "seconds_per_token": generated.seconds_per_token,
        "bytes_read_per_token": generated.bytes_read_per_token,
        "seconds_waited_per_token": generated.seconds_waited_per_token,
        "peak_rss_bytes": peak_rss_bytes(),
    })
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::EndToken => "end_token",
        Finish::StopString => "stop_string",
        Finish::Interrupted => "interrupted",
    }
}

fn summary(generated: &Generated) -> String {
    let mut out = format!(
        "{} tokens behind {} of the prompt; the first after {:.2} s",
        generated.token_ids.len(),
        generated.prompt_tokens,
        generated.seconds_first_token
    );
    if let (Some(seconds), Some(read)) = (generated.seconds_per_token, generated.bytes_read_per_token) {
        let waited = generated.seconds_waited_per_token.unwrap_or_default();
        out += &format!(
            ", then {seconds:.3} s ({waited:.3} s of it waiting for weights) and {} read for each",
            bytes(read)
        );
    }
    out + &format!("; peak memory {}", bytes(peak_rss_bytes()))
}

fn template(args: &Args) -> Result<ChatTemplate, Failure> {
    ChatTemplate::open(&args.path)?.ok_or_else(|| {
        let name = args.path.display();
        Failure::usage(format!("{name} has no chat template; `-p` continues plain text with any model"))
    })
}

fn chat(
    args: &Args,
    model: &ModelRunner,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    options: &GenerateOptions,
    interrupted: &Arc<AtomicBool>,
) -> Outcome {
    let context =
        args.context.unwrap_or_else(|| model.spec().context.unwrap_or(MAX_CONTEXT).min(MAX_CONTEXT));
    let mut generator = Generator::new(model, tokenizer, context, args.sampling.cache())?;
    let mut messages: Vec<Message> = args.system.iter().map(|text| Message::new("system", text)).collect();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        say("> ");
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.map_err(|e| Failure::refused(format!("cannot read standard input: {e}")))?;
        if line.trim().is_empty() {
            continue;
        }
        messages.push(Message::new("user", &line));
        // The template writes the special tokens itself.
        let ids = tokenizer.encode(&template.render(&messages, true)?, false)?;
        let room = context.saturating_sub(ids.len());
        if room == 0 {
            return Err(Failure::refused(format!(
                "the talk has filled its {context} tokens; --context takes more"
            )));
        }
        let options = GenerateOptions { max_new_tokens: options.max_new_tokens.min(room), ..options.clone() };
        let answer = generator.generate(&ids, &options, interrupted, show)?;
        print("\n")?;
        messages.push(Message::new("assistant", &answer.text));
        if interrupted.load(Ordering::SeqCst) {
            return Ok(());
        }
    }
}
