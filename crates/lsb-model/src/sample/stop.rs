//! Finds where a streamed text must end.

/// Looks for stop strings in a text that arrives in pieces.
///
/// Text that could be the start of a stop string is held back until that is decided, so that nothing of a stop
/// string is ever shown. Of several stop strings the one that is complete first ends the text, and of those
/// complete at the same place the one that begins first.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text not yet given out, at most one byte shorter than the longest stop string.
    held: String,
    stopped: bool,
}

impl StopStrings {
    /// Looks for `stops`; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> StopStrings {
        let stops = stops.into_iter().map(Into::into).filter(|s: &String| !s.is_empty()).collect();
        StopStrings { stops, held: String::new(), stopped: false }
    }

    /// Takes the next piece; returns text that can be shown, and whether a stop string was found. After that
    /// nothing more is returned.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        if self.stopped {
            return (String::new(), true);
        }
        // Whatever was held has no complete stop string in it, so one must end inside the new piece.
        let old = self.held.len();
        self.held.push_str(piece);
        if let Some(start) = self.first_complete(old) {
            self.held.truncate(start);
            self.stopped = true;
            return (std::mem::take(&mut self.held), true);
        }
        let keep_from = self.held.len() - self.longest_open();
        let rest = self.held.split_off(keep_from);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// Ends the text: what was held back is not the start of a stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string begins that is complete first, looking at ends after byte `old`.
    fn first_complete(&self, old: usize) -> Option<usize> {
        let mut found: Option<(usize, usize)> = None;
        for stop in &self.stops {
            let mut from = (old + 1).saturating_sub(stop.len());
            while !self.held.is_char_boundary(from) {
                from -= 1;
            }
            if let Some(at) = self.held.get(from..).and_then(|text| text.find(stop.as_str())) {
                let place = (from + at + stop.len(), from + at);
                found = Some(found.map_or(place, |best| best.min(place)));
            }
        }
        found.map(|(_, start)| start)
    }

    /// The bytes at the end that a stop string could begin with.
    fn longest_open(&self) -> usize {
        let open = |stop: &String| {
            let longest = self.held.len().min(stop.len() - 1);
            (1..=longest)
                .rev()
                .find(|&n| stop.is_char_boundary(n) && self.held.ends_with(stop.get(..n).unwrap_or("\0")))
        };
        self.stops.iter().filter_map(open).max().unwrap_or(0)
    }
}
