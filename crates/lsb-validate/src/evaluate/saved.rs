//! References: an original's predictions, saved once and compared with many times.

use super::scored::Scored;
use super::{
    Against, EvaluateError, EvaluateProgress, Evaluation, PerplexityFigures, TokenizedText, stream_logits,
};
use crate::activation::SignalTable;
use crate::logits::{LogitComparison, Reference, ReferenceHeader, ReferenceTally, ReferenceWriter, TopTally};
use crate::protocol::Protocol;
use lsb_model::ModelRunner;
use std::path::Path;

/// Runs `model` over `text` and saves, for each scored token, its `top` most likely ids at `path`. `name` says which
/// model it was. Holds `8 top` bytes and some for each scored token in memory.
///
/// # Errors
/// If the text is too short, the model cannot be run, a logit is not a finite number, or the file cannot be written.
pub fn save_reference(
    model: &ModelRunner,
    name: &str,
    text: TokenizedText<'_>,
    protocol: &Protocol,
    top: usize,
    path: &Path,
    progress: &mut dyn FnMut(EvaluateProgress),
) -> Result<Evaluation, EvaluateError> {
    let windows = protocol.windows(text.ids)?;
    let record = protocol.record(text.bytes, text.ids, &windows);
    let scored = Scored::new(&windows);
    let feeds: Vec<Vec<u32>> = windows.into_iter().map(|w| w.feed).collect();
    let mut tally = TopTally::new(scored.targets.clone(), top, model.logits());
    let header = ReferenceHeader {
        model: name.to_owned(),
        protocol: record.clone(),
        vocabulary: model.logits(),
        top: tally.top(),
    };
    // Before the work: a folder that cannot be written shows now.
    let mut writer = ReferenceWriter::create(path, header)?;
    stream_logits(model, &feeds, &scored, progress, |tokens, first, logits| {
        tally.observe(tokens, first, logits)
    })?;
    let rows = tally.finish().map_err(lsb_stream::Error::from)?;
    let perplexity = PerplexityFigures::of((0..rows.len()).map(|token| rows.row(token).nll));
    writer.push(&rows)?;
    writer.finish()?;
    Ok(Evaluation { protocol: record, perplexity, against: None })
}

/// Runs `model` over `text` and compares it with a saved reference of its original. KL divergences are then lower
/// bounds, and there is nothing to say of layers.
///
/// # Errors
/// If the reference is of another text, protocol or vocabulary, or the model cannot be run.
pub fn evaluate_against_reference(
    model: &ModelRunner,
    reference: &Reference,
    text: TokenizedText<'_>,
    protocol: &Protocol,
    progress: &mut dyn FnMut(EvaluateProgress),
) -> Result<Evaluation, EvaluateError> {
    let windows = protocol.windows(text.ids)?;
    let record = protocol.record(text.bytes, text.ids, &windows);
    if let Some(difference) = reference.header.difference(&record, model.logits()) {
        return Err(EvaluateError::Different(difference));
    }
    let scored = Scored::new(&windows);
    let sizes: Vec<usize> = windows.iter().map(|w| w.targets.len()).collect();
    let feeds: Vec<Vec<u32>> = windows.into_iter().map(|w| w.feed).collect();
    let mut tally = ReferenceTally::new(&reference.rows, 0, scored.targets.clone());
    stream_logits(model, &feeds, &scored, progress, |tokens, first, logits| {
        tally.observe(tokens, first, logits)
    })?;
    let mut logits = LogitComparison::of(&tally.finish(), &sizes);
    logits.kl_top = u32::try_from(reference.header.top).ok();
    let nothing = || SignalTable::default().report();
    let perplexity = logits.model;
    let against = Against { logits, layers: nothing(), maps: nothing() };
    Ok(Evaluation { protocol: record, perplexity, against: Some(against) })
}
