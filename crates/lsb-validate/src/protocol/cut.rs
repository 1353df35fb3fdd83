//! Cutting ids into windows, one function per convention.

use super::{Protocol, ProtocolError, ProtocolKind, Window};

pub(super) fn windows(protocol: &Protocol, ids: &[u32]) -> Result<Vec<Window>, ProtocolError> {
    let used = protocol.max_tokens.map_or(ids.len(), |most| ids.len().min(most.saturating_add(1)));
    let ids = &ids[..used];
    match (protocol.kind, protocol.stride) {
        (ProtocolKind::LlamaCpp, None) => llama_cpp(protocol, ids),
        (ProtocolKind::LlamaCpp, Some(_)) => Err(ProtocolError::LlamaCppStride),
        (ProtocolKind::Default, None) => side_by_side(protocol, ids),
        (ProtocolKind::Default, Some(stride)) => sliding(protocol, stride, ids),
    }
}

/// Ids of the text that fit beside the `bos` of a window.
fn ids_per_window(protocol: &Protocol) -> Result<usize, ProtocolError> {
    let taken = usize::from(protocol.bos.is_some());
    match protocol.window.checked_sub(taken) {
        Some(ids) if ids > 0 => Ok(ids),
        _ => Err(ProtocolError::Window { window: protocol.window, least: 1 + taken }),
    }
}

/// Feeds `ids[start..end)` behind the `bos` and scores `ids[from..to)`, where `start < from`.
fn window(bos: Option<u32>, ids: &[u32], feed: (usize, usize), score: (usize, usize)) -> Window {
    let ((start, end), (from, to)) = (feed, score);
    let shift = usize::from(bos.is_some());
    Window {
        feed: bos.into_iter().chain(ids[start..end].iter().copied()).collect(),
        score: from - 1 - start + shift..to - 1 - start + shift,
        targets: ids[from..to].to_vec(),
    }
}

fn at_least_two(ids: &[u32]) -> Result<(), ProtocolError> {
    if ids.len() < 2 { Err(ProtocolError::TooShort { ids: ids.len(), least: 2 }) } else { Ok(()) }
}

fn side_by_side(protocol: &Protocol, ids: &[u32]) -> Result<Vec<Window>, ProtocolError> {
    let width = ids_per_window(protocol)?;
    at_least_two(ids)?;
    let last = ids.len() - 1;
    if last < width {
        return Ok(vec![window(protocol.bos, ids, (0, last), (1, last + 1))]);
    }
    let starts = (0..last / width).map(|k| k * width);
    Ok(starts.map(|s| window(protocol.bos, ids, (s, s + width), (s + 1, s + width + 1))).collect())
}

fn sliding(protocol: &Protocol, stride: usize, ids: &[u32]) -> Result<Vec<Window>, ProtocolError> {
    let width = ids_per_window(protocol)?;
    if width < 2 {
        let window = protocol.window;
        return Err(ProtocolError::Window { window, least: window + 2 - width });
    }
    if !(1..=width).contains(&stride) {
        return Err(ProtocolError::Stride { stride, ids: width });
    }
    at_least_two(ids)?;
    let (mut out, mut start, mut scored) = (Vec::new(), 0, 1);
    loop {
        let end = ids.len().min(start + width);
        // At a stride as long as the window its first id has nothing before it to predict it.
        let from = scored.max(start + 1);
        if from < end {
            out.push(window(protocol.bos, ids, (start, end), (from, end)));
        }
        if end == ids.len() {
            return Ok(out);
        }
        (start, scored) = (start + stride, end);
    }
}

fn llama_cpp(protocol: &Protocol, ids: &[u32]) -> Result<Vec<Window>, ProtocolError> {
    let width = protocol.window;
    let first = width / 2;
    if first + 1 >= width {
        return Err(ProtocolError::Window { window: width, least: 3 });
    }
    let all: Vec<u32> = protocol.bos.into_iter().chain(ids.iter().copied()).collect();
    let least = width.saturating_mul(2);
    if all.len() < least {
        return Err(ProtocolError::TooShort { ids: all.len(), least });
    }
    let of_chunk = |chunk: &[u32]| {
        let mut feed = chunk.to_vec();
        if let (Some(bos), Some(id)) = (protocol.bos, feed.first_mut()) {
            *id = bos;
        }
        Window { feed, score: first..width - 1, targets: chunk[first + 1..].to_vec() }
    };
    Ok(all.chunks_exact(width).map(of_chunk).collect())
}
