//! Generates text: a prompt in, tokens out as they are made.

#[cfg(test)]
mod tests;

use crate::sample::{Sampler, SamplerOptions, StopStrings};
use crate::tokenizer::Tokenizer;
use crate::{CacheType, ModelRunner, Result, Session};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What is generated.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Tokens at most.
    pub max_new_tokens: usize,
    /// How the next token is chosen.
    pub sampler: SamplerOptions,
    /// Texts that end it; they are not part of the result.
    pub stop: Vec<String>,
    /// Ends at the model's own end tokens.
    pub end_tokens: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_new_tokens: 128,
            sampler: SamplerOptions::default(),
            stop: Vec::new(),
            end_tokens: true,
        }
    }
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// As many tokens as were asked for.
    Length,
    /// The model chose an end token.
    EndToken,
    /// A stop string appeared.
    StopString,
    /// It was interrupted.
    Interrupted,
}

/// What was generated, and how fast.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The text behind the prompt.
    pub text: String,
    /// The tokens behind the prompt; an end token is the last of them.
    pub token_ids: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Why it ended.
    pub finish: Finish,
    /// From the start to the first token, in seconds.
    pub seconds_first_token: f64,
    /// Mean time of each further token, in seconds; `None` where there was none.
    pub seconds_per_token: Option<f64>,
    /// Mean number of stored bytes read for each further token; `None` where there was none.
    pub bytes_read_per_token: Option<u64>,
    /// Mean time for which each further token waited for weights to be read, in seconds; `None` where there was none.
    pub seconds_waited_per_token: Option<f64>,
}

/// Generates text, one text after the other; what two prompts begin with in common is computed once.
#[derive(Debug)]
pub struct Generator<'m> {
    model: &'m ModelRunner,
    tokenizer: &'m Tokenizer,
    session: Session<'m>,
    /// The tokens whose keys and values the session holds.
    fed: Vec<u32>,
}

impl<'m> Generator<'m> {
    /// A generator with room for `capacity` tokens, of prompt and result together.
    ///
    /// # Errors
    /// If the model is an encoder, or the budget does not hold keys and values for so many tokens.
    pub fn new(
        model: &'m ModelRunner,
        tokenizer: &'m Tokenizer,
        capacity: usize,
        cache: CacheType,
    ) -> Result<Generator<'m>> {
        Ok(Generator { model, tokenizer, session: model.session(capacity, cache)?, fed: Vec::new() })
    }

    /// Generates text behind `prompt`. `show` is given text as soon as no later token can change it; setting
    /// `interrupted` ends the generation after the current token.
    ///
    /// # Errors
    /// If the prompt is empty, its ids are not in the vocabulary, there is no room for all tokens, or weights cannot
    /// be read.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        interrupted: &AtomicBool,
        mut show: impl FnMut(&str),
    ) -> Result<Generated> {
        let mut sampler = Sampler::new(options.sampler)?;
        let mut stops = StopStrings::new(options.stop.iter().cloned());
        let mut stream = self.tokenizer.stream(true);
        let mut all = prompt.to_vec();
        let mut text = String::new();
        let mut emit = |piece: &str| {
            if !piece.is_empty() {
                text.push_str(piece);
                show(piece);
            }
        };
        let ends = if options.end_tokens { self.tokenizer.stop_ids() } else { &[] };
        let start = Instant::now();
        let mut first = None;
        let finish = loop {
            let new = all.len() - prompt.len();
            if new == options.max_new_tokens {
                break Finish::Length;
            }
            if interrupted.load(Ordering::SeqCst) {
                break Finish::Interrupted;
            }
            let mut logits = self.feed(&all, new + 1 < options.max_new_tokens)?;
            let id = sampler.next(&mut logits, &all)?;
            all.push(id);
            first.get_or_insert_with(|| (start.elapsed().as_secs_f64(), self.model.figures()));
            if ends.contains(&id) {
                break Finish::EndToken;
            }
            if let Some(piece) = stream.push(id)? {
                let (piece, stopped) = stops.push(&piece);
                emit(&piece);
                if stopped {
                    break Finish::StopString;
                }
            }
        };
        if finish != Finish::StopString {
            let (piece, stopped) = stops.push(&stream.finish()?);
            emit(&piece);
            if !stopped {
                emit(&stops.finish());
            }
        }
        let token_ids = all.split_off(prompt.len());
        let (seconds_first_token, before) = first.unwrap_or_default();
        let after = self.model.figures();
        let further = token_ids.len().saturating_sub(1) as u64;
        let seconds = start.elapsed().as_secs_f64() - seconds_first_token;
        Ok(Generated {
            text,
            prompt_tokens: prompt.len(),
            finish,
            seconds_first_token,
            seconds_per_token: (further > 0).then(|| seconds / further as f64),
            bytes_read_per_token: (after.bytes_read - before.bytes_read).checked_div(further),
            seconds_waited_per_token: (further > 0)
                .then(|| (after.seconds_waited - before.seconds_waited) / further as f64),
            token_ids,
        })
    }

    /// Brings the session to the end of `all` and returns the logits there.
    fn feed(&mut self, all: &[u32], more: bool) -> Result<Vec<f32>> {
        let common = self.fed.iter().zip(all).take_while(|(a, b)| a == b).count();
        // The last token is always fed: its logits are what is asked for.
        let keep = common.min(all.len().saturating_sub(1));
        self.session.truncate(keep);
        self.fed.truncate(keep);
        let logits = self.session.feed(all.get(keep..).unwrap_or_default(), more)?;
        self.fed.extend_from_slice(all.get(keep..).unwrap_or_default());
        Ok(logits)
    }
}
