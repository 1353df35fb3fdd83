//! Encodes a long text piece by piece, where that provably gives the ids of the whole.
//!
//! The tokenizers crate keeps about a hundred bytes for each byte of a text until the last token is known. Most
//! tokenizers of language models cut a text into words before anything else, so that one word after the other
//! gives the same ids in the memory of one word, and a word seen before needs no work at all. Two forms are
//! known; texts of all other tokenizers are encoded whole.

use super::Tokenizer;
use super::guard::{Pattern, guarded};
use crate::error::Result;
use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
};

/// The pattern of GPT-2's words, which the crate's `ByteLevel` has built in.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Bytes of text that are normalized at once.
const NORMALIZED: usize = 16 << 10;
/// Words that are remembered, and the longest of them in bytes.
const REMEMBERED: usize = 1 << 16;
const LONGEST: usize = 64;

/// How texts are cut.
#[derive(Debug)]
pub(super) struct Pieces {
    added: Added,
    cut: Cut,
}

#[derive(Debug)]
enum Cut {
    /// Into the matches of an expression, then on as the other pre-tokenizers say (GPT-2, Llama 3, Qwen).
    Words { pattern: Pattern, rest: Vec<PreTokenizerWrapper>, normalize: bool },
    /// Before each run of marks that stand for spaces: no token has a mark after another character, so no merge
    /// ever joins what is before a run with it (Llama 2, Gemma).
    Marks { mark: String, prepend: Prepend },
}

/// When a mark is put before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prepend {
    Never,
    /// Also before a mark.
    Always,
    /// Where there is none.
    Missing,
    /// Where there is none, at the beginning of the whole text only.
    MissingAtStart,
}

/// Tokens that are found before anything else.
#[derive(Debug)]
struct Added {
    finder: AhoCorasick,
    /// The id of each pattern; `None` where a match means more than the characters matched.
    ids: Vec<Option<u32>>,
}

impl Added {
    fn new(tokens: &[AddedToken], id_of: impl Fn(&str) -> Option<u32>) -> Option<Added> {
        let tokens: Vec<&AddedToken> = tokens.iter().filter(|t| !t.content.is_empty()).collect();
        let contents = tokens.iter().map(|t| &t.content);
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(contents).ok()?;
        let plain = |t: &AddedToken| !(t.single_word || t.lstrip || t.rstrip || t.normalized);
        let ids = tokens.iter().map(|t| id_of(&t.content).filter(|_| plain(t))).collect();
        Some(Added { finder, ids })
    }

    /// The parts of `text` between added tokens, each with the id of the token after it; `None` if the text has
    /// an added token that takes more than a look at its characters.
    fn parts(&self, text: &str) -> Option<Vec<(Range<usize>, Option<u32>)>> {
        let mut parts = Vec::new();
        let mut from = 0;
        for found in self.finder.find_iter(text) {
            let id = self.ids.get(found.pattern().as_usize()).copied().flatten()?;
            parts.push((from..found.start(), Some(id)));
            from = found.end();
        }
        parts.push((from..text.len(), None));
        Some(parts)
    }
}

impl Pieces {
    /// The way to cut texts of this tokenizer, given its normalizer and pre-tokenizer as written in the file;
    /// `None` if there is none that is known to be exact.
    pub(super) fn of(
        inner: &tokenizers::Tokenizer,
        normalizer: &Value,
        pre_tokenizer: &Value,
        added: &[AddedToken],
    ) -> Option<Pieces> {
        let cut = words(inner, normalizer).or_else(|| marks(inner.get_model(), normalizer, pre_tokenizer))?;
        // These are looked for in the normalized text, which is not at hand when parts are cut.
        let shifted = |token: &AddedToken| match &cut {
            Cut::Words { normalize, .. } => *normalize,
            Cut::Marks { .. } => !token.content.is_ascii() || token.content.contains(' '),
        };
        if added.iter().any(|token| token.normalized && shifted(token)) {
            return None;
        }
        Some(Pieces { added: Added::new(added, |token| inner.token_to_id(token))?, cut })
    }

    /// Appends the ids of `text`; `None`, and nothing appended, if this text has to be encoded whole.
    pub(super) fn encode(&self, tokenizer: &Tokenizer, text: &str, ids: &mut Vec<u32>) -> Option<Result<()>> {
        let parts = self.added.parts(text)?;
        let mut words = Words { tokenizer, cut: &self.cut, seen: HashMap::new(), ids };
        Some(parts.into_iter().try_for_each(|(range, id)| {
            let first = range.start == 0;
            words.part(text.get(range).unwrap_or_default(), first)?;
            words.ids.extend(id);
            Ok(())
        }))
    }
}

/// A text that is being encoded.
struct Words<'a> {
    tokenizer: &'a Tokenizer,
    cut: &'a Cut,
    /// Where in `ids` the ids of a word are that was encoded before.
    seen: HashMap<String, Range<usize>>,
    ids: &'a mut Vec<u32>,
}

impl Words<'_> {
    /// Encodes a text without added tokens; `first` where it begins the whole text.
    fn part(&mut self, text: &str, first: bool) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        match self.cut {
            Cut::Words { pattern, normalize, .. } => {
                let text = if *normalize { normalized(self.tokenizer, text)? } else { Cow::Borrowed(text) };
                pattern.cut(&text, |word| self.word(word))
            }
            Cut::Marks { mark, prepend } => {
                let mut text = text.replace(' ', mark);
                let missing = !text.starts_with(mark.as_str());
                let before = match prepend {
                    Prepend::Never => false,
                    Prepend::Always => true,
                    Prepend::Missing => missing,
                    Prepend::MissingAtStart => missing && first,
                };
                if before {
                    text.insert_str(0, mark);
                }
                let mut from = 0;
                let mut end_of_last = 0;
                for (at, found) in text.match_indices(mark.as_str()) {
                    if at > end_of_last {
                        self.word(text.get(from..at).unwrap_or_default())?;
                        from = at;
                    }
                    end_of_last = at + found.len();
                }
                self.word(text.get(from..).unwrap_or_default())
            }
        }
    }

    fn word(&mut self, word: &str) -> Result<()> {
        if let Some(range) = self.seen.get(word) {
            self.ids.extend_from_within(range.clone());
            return Ok(());
        }
        let start = self.ids.len();
        match self.cut {
            Cut::Words { rest, .. } => {
                let mut pieces = PreTokenizedString::from(word);
                for part in rest {
                    self.tokenizer.pre_tokenize(part, &mut pieces)?;
                }
                for (piece, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                    self.tokens(piece)?;
                }
            }
            Cut::Marks { .. } => self.tokens(word)?,
        }
        if word.len() <= LONGEST && self.seen.len() < REMEMBERED {
            self.seen.insert(word.to_owned(), start..self.ids.len());
        }
        Ok(())
    }

    fn tokens(&mut self, piece: &str) -> Result<()> {
        let model = self.tokenizer.inner.get_model();
        let tokens = guarded("the text cannot be encoded", || model.tokenize(piece))?;
        self.ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

/// The text after a Unicode normal form. Nothing composes with an ASCII character after it and ASCII stays as it
/// is, so the text can be cut before one.
fn normalized<'t>(tokenizer: &Tokenizer, text: &'t str) -> Result<Cow<'t, str>> {
    let Some(normalizer) = tokenizer.inner.get_normalizer().filter(|_| !text.is_ascii()) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let cut = rest.bytes().enumerate().skip(NORMALIZED).find(|(_, b)| b.is_ascii());
        let (chunk, after) = rest.split_at(cut.map_or(rest.len(), |(at, _)| at));
        let mut chunk = NormalizedString::from(chunk);
        guarded("the text cannot be normalized", || normalizer.normalize(&mut chunk))?;
        out.push_str(chunk.get());
        rest = after;
    }
    Ok(Cow::Owned(out))
}

/// [`Cut::Words`], where the first pre-tokenizer is an expression and the others look at each word alone.
fn words(inner: &tokenizers::Tokenizer, normalizer: &Value) -> Option<Cut> {
    let normalize = match normalizer.get("type").and_then(Value::as_str) {
        None if normalizer.is_null() => false,
        Some("NFC" | "NFD" | "NFKC" | "NFKD") => true,
        _ => return None,
    };
    let (first, others) = match inner.get_pre_tokenizer()? {
        PreTokenizerWrapper::Sequence(list) => list.as_ref().split_first()?,
        one => (one, &[][..]),
    };
    let mut rest = Vec::new();
    let pattern = match first {
        PreTokenizerWrapper::ByteLevel(level) if level.use_regex && !level.add_prefix_space => {
            rest.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)));
            Pattern::new(GPT2)?
        }
        PreTokenizerWrapper::Split(split) => {
            let split = serde_json::to_value(split).ok()?;
            if split.get("behavior")? != "Isolated" || split.get("invert")? != false {
                return None;
            }
            Pattern::new(split.get("pattern")?.get("Regex")?.as_str()?)?
        }
        _ => return None,
    };
    for other in others {
        match other {
            PreTokenizerWrapper::ByteLevel(level) if !level.add_prefix_space => {}
            PreTokenizerWrapper::Split(_) | PreTokenizerWrapper::Digits(_) => {}
            _ => return None,
        }
        rest.push(other.clone());
    }
    Some(Cut::Words { pattern, rest, normalize })
}

/// [`Cut::Marks`], where spaces become marks, nothing else cuts the text, and the vocabulary allows it.
fn marks(model: &ModelWrapper, normalizer: &Value, pre_tokenizer: &Value) -> Option<Cut> {
    let text = |part: &Value, name: &str| part.get(name).and_then(Value::as_str).map(str::to_owned);
    let kind = |part: &Value| text(part, "type").unwrap_or_default();
    let literal = |part: &Value| part.get("pattern").and_then(|p| text(p, "String"));
    let replaced = |part: &Value| {
        let spaces = kind(part) == "Replace" && literal(part).as_deref() == Some(" ");
        text(part, "content").filter(|_| spaces)
    };
    let (mark, prepend) = match kind(normalizer).as_str() {
        "" if kind(pre_tokenizer) == "Metaspace" && pre_tokenizer.get("split")? == false => {
            let mark = text(pre_tokenizer, "replacement")?;
            match (text(pre_tokenizer, "prepend_scheme")?.as_str(), pre_tokenizer.get("add_prefix_space")) {
                ("always", None | Some(Value::Null)) => (mark, Prepend::Missing),
                ("first", None | Some(Value::Null)) => (mark, Prepend::MissingAtStart),
                ("never", _) => (mark, Prepend::Never),
                _ => return None,
            }
        }
        "Replace" => (replaced(normalizer)?, Prepend::Never),
        "Sequence" => match normalizer.get("normalizers")?.as_array()?.as_slice() {
            [first, second] if kind(first) == "Prepend" => {
                let mark = replaced(second)?;
                (text(first, "prepend").filter(|p| *p == mark)?, Prepend::Always)
            }
            _ => return None,
        },
        _ => return None,
    };
    // Gemma also splits at spaces, of which there are none left.
    let idle = kind(pre_tokenizer) == "Split" && literal(pre_tokenizer).as_deref() == Some(" ");
    if !(pre_tokenizer.is_null() || idle || kind(pre_tokenizer) == "Metaspace") {
        return None;
    }
    (mark.chars().count() == 1 && mark != " " && begins_tokens(model, &mark))
        .then_some(Cut::Marks { mark, prepend })
}

/// Whether `mark` is a token, and stands in tokens only at the beginning or after another mark; and nothing else
/// of the model looks across pieces.
fn begins_tokens(model: &ModelWrapper, mark: &str) -> bool {
    let ModelWrapper::BPE(bpe) = model else { return false };
    let affixes = [&bpe.continuing_subword_prefix, &bpe.end_of_word_suffix];
    if bpe.ignore_merges || affixes.iter().any(|affix| affix.as_ref().is_some_and(|a| !a.is_empty())) {
        return false;
    }
    let tokens = bpe.get_vocab();
    let bytes: HashSet<String> = (0..=255).map(|b| format!("<0x{b:02X}>")).collect();
    let inside = |token: &str| token.trim_start_matches(mark).contains(mark);
    tokens.contains_key(mark)
        && (!bpe.byte_fallback || bytes.iter().all(|byte| tokens.contains_key(byte)))
        && !tokens.keys().any(|token| inside(token))
}
