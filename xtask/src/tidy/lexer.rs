//! Just enough of Rust's lexical rules to tell code from comments and strings.

/// The source with the content of comments, strings and character literals replaced by spaces. Lines keep their
/// numbers and lengths in characters.
pub(super) fn blank(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut i = 0;
    while i < chars.len() {
        let end = token_to_blank(&chars, i);
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(chars[i..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            i = end;
        }
    }
    out
}

/// Where the comment or literal that starts at `i` ends; `i` itself where none starts there.
fn token_to_blank(chars: &[char], i: usize) -> usize {
    let at = |k: usize| chars.get(k).copied().unwrap_or('\0');
    let in_word = i > 0 && is_word(chars[i - 1]);
    match at(i) {
        '/' if at(i + 1) == '/' => (i..chars.len()).find(|&k| chars[k] == '\n').unwrap_or(chars.len()),
        '/' if at(i + 1) == '*' => block_comment(chars, i),
        '"' => quoted(chars, i + 1, '"'),
        'r' | 'b' | 'c' if !in_word => {
            let raw = (i..i + 3).find(|&k| !matches!(at(k), 'b' | 'c')).filter(|&k| at(k) == 'r');
            match raw {
                Some(r) => raw_string(chars, r + 1).unwrap_or(i),
                // The prefix is copied; the quote after it starts the literal.
                None => i,
            }
        }
        '\'' if at(i + 1) == '\\' => quoted(chars, i + 1, '\''),
        // A character literal closes after one character; anything else is a lifetime.
        '\'' if at(i + 2) == '\'' && at(i + 1) != '\'' => i + 3,
        _ => i,
    }
}

fn block_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted(chars: &[char], mut i: usize, quote: char) -> usize {
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `i` is just after the `r`. `None` for a raw identifier.
fn raw_string(chars: &[char], i: usize) -> Option<usize> {
    let hashes = chars[i..].iter().take_while(|&&c| c == '#').count();
    if chars.get(i + hashes) != Some(&'"') {
        return None;
    }
    let mut k = i + hashes + 1;
    while k < chars.len() {
        if chars[k] == '"' && chars[k + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes {
            return Some(k + 1 + hashes);
        }
        k += 1;
    }
    Some(chars.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `line` as a whole word.
pub(super) fn find_word(line: &str, word: &str) -> Option<usize> {
    line.match_indices(word).map(|(at, _)| at).find(|&at| {
        let before = line[..at].chars().next_back().is_some_and(is_word);
        let after = line[at + word.len()..].chars().next().is_some_and(is_word);
        !before && !after
    })
}
