//! Texts to words, by the rules that each score fixes.

/// Python's white space: that of Unicode and four separators that Unicode counts among the controls.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Words as the BLEU script mteval-v13a cuts them, in sacreBLEU's version (`13a`): case kept, punctuation
/// apart, except a point or comma between digits and a dash not after a digit.
pub(super) fn thirteen_a(text: &str) -> Vec<String> {
    let mut line =
        text.trim_end_matches(is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, plain) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        line = line.replace(entity, plain);
    }
    let mut chars: Vec<char> = Vec::with_capacity(2 * line.len());
    for c in std::iter::once(' ').chain(line.chars()).chain([' ']) {
        if is_mark(c) { chars.extend([' ', c, ' ']) } else { chars.push(c) }
    }
    let is_stop = |c: char| c == '.' || c == ',';
    let is_digit = |c: char| c.is_ascii_digit();
    let chars = part(&chars, |a, b| !is_digit(a) && is_stop(b), |a, b| [a, ' ', b, ' ']);
    let chars = part(&chars, |a, b| is_stop(a) && !is_digit(b), |a, b| [' ', a, ' ', b]);
    let chars = part(&chars, |a, b| is_digit(a) && b == '-', |a, b| [a, ' ', b, ' ']);
    let line: String = chars.into_iter().collect();
    line.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// ASCII punctuation that always stands apart: all but the apostrophe, comma, dash and point. The space is
/// one of them, which changes nothing.
fn is_mark(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

/// Rewrites each pair of neighbours that matches, from left to right; a rewritten pair is not looked at again.
fn part(
    chars: &[char],
    matches: impl Fn(char, char) -> bool,
    rewrite: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let (mut out, mut rest) = (Vec::with_capacity(chars.len() + chars.len() / 4), chars);
    loop {
        rest = match rest {
            [a, b, after @ ..] if matches(*a, *b) => {
                out.extend(rewrite(*a, *b));
                after
            }
            [a, after @ ..] => {
                out.push(*a);
                after
            }
            [] => return out,
        };
    }
}

/// Words as the `rouge-score` package cuts them without a stemmer: runs of `a-z` and `0-9` in lower case.
pub(super) fn alphanumeric(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let runs = lower.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
    runs.filter(|run| !run.is_empty()).map(str::to_owned).collect()
}

/// How many runs of `n` words two texts share, a run counted as often as both have it, and how many each has.
pub(super) fn shared_runs(a: &[String], b: &[String], n: usize) -> (usize, usize, usize) {
    // Sorted lists are merged: no hash, no dependence on its order.
    let (a, b) = (sorted_runs(a, n), sorted_runs(b, n));
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        match x.cmp(y) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, shared) = (i + 1, j + 1, shared + 1),
        }
    }
    (shared, a.len(), b.len())
}

fn sorted_runs(words: &[String], n: usize) -> Vec<&[String]> {
    let mut runs: Vec<&[String]> = words.windows(n).collect();
    runs.sort_unstable();
    runs
}
