//! Greedy continuations of the same prompts by two models.

use crate::text::{Divergence, corpus_bleu, corpus_rouge};
use lsb_model::{CacheType, GenerateOptions, Generator, ModelRunner, Result, Tokenizer};
use std::sync::atomic::AtomicBool;

/// Prompts, taken at even distances from the text.
const PROMPTS: usize = 16;
/// Tokens of a prompt.
const PROMPT_TOKENS: usize = 32;
/// Tokens of a continuation.
const NEW_TOKENS: usize = 48;

/// Prompts and how the original goes on.
pub(super) struct Continuations {
    prompts: Vec<Vec<u32>>,
    original: Vec<(String, Vec<u32>)>,
}

/// How another model goes on, beside that.
pub(super) struct Compared {
    pub(super) bleu: f64,
    /// ROUGE-1, -2, -L.
    pub(super) rouge: [f64; 3],
    /// Mean tokens until the first that differs.
    pub(super) divergence: Option<f64>,
}

impl Continuations {
    pub(super) fn new(original: &ModelRunner, tokenizer: &Tokenizer, ids: &[u32]) -> Result<Continuations> {
        let step = (ids.len() / PROMPTS).max(1);
        let starts = (0..PROMPTS).map(|i| i * step);
        let prompts: Vec<Vec<u32>> =
            starts.filter_map(|at| ids.get(at..at + PROMPT_TOKENS)).map(<[u32]>::to_vec).collect();
        Ok(Continuations { original: greedy(original, tokenizer, &prompts)?, prompts })
    }

    pub(super) fn compare(&self, model: &ModelRunner, tokenizer: &Tokenizer) -> Result<Compared> {
        let theirs = greedy(model, tokenizer, &self.prompts)?;
        let texts = || theirs.iter().zip(&self.original).map(|((a, _), (b, _))| (a.as_str(), b.as_str()));
        let rouge = corpus_rouge(texts());
        let ids = theirs.iter().zip(&self.original).map(|((_, a), (_, b))| (&a[..], &b[..]));
        Ok(Compared {
            bleu: corpus_bleu(texts()).score,
            rouge: [rouge.rouge1, rouge.rouge2, rouge.rouge_l],
            divergence: Divergence::of(ids).map(|d| d.mean_tokens),
        })
    }
}

fn greedy(
    model: &ModelRunner,
    tokenizer: &Tokenizer,
    prompts: &[Vec<u32>],
) -> Result<Vec<(String, Vec<u32>)>> {
    let options = GenerateOptions { max_new_tokens: NEW_TOKENS, end_tokens: false, ..Default::default() };
    let mut generator = Generator::new(model, tokenizer, PROMPT_TOKENS + NEW_TOKENS, CacheType::F16)?;
    let never = AtomicBool::new(false);
    let one = |prompt: &Vec<u32>| {
        let generated = generator.generate(prompt, &options, &never, |_| {})?;
        Ok((generated.text, generated.token_ids))
    };
    prompts.iter().map(one).collect()
}
