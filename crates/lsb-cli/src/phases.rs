//! Where the time goes: seconds of every kind of work, told by spans that the libraries open.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// Kinds of work that are told apart, in the order they are shown.
const NAMES: [&str; 13] = [
    "reading",
    "survey",
    "gradients",
    "forward",
    "moments",
    "factorization",
    "planning",
    "search",
    "coding",
    "encoding",
    "checking",
    "decoding",
    "writing",
];

/// Names the file that [`record`] writes.
const FILE_VARIABLE: &str = "LSB_PHASES";

static SECONDS: LazyLock<Mutex<BTreeMap<&'static str, f64>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// Spans this thread is in, and when it began or went on with the innermost.
    static STACK: RefCell<(Vec<&'static str>, Option<Instant>)> = const { RefCell::new((Vec::new(), None)) };
}

/// Sums up seconds, over all threads. While a thread is in a span within another, only the inner one counts.
pub(crate) struct Phases;

/// Lets only the spans through that are counted.
pub(crate) struct Counted;

impl<S> Filter<S> for Counted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.is_span() && NAMES.contains(&metadata.name())
    }
}

/// Gives the time since the last change to the innermost span.
fn charge(stack: &[&'static str], since: &mut Option<Instant>) {
    let now = Instant::now();
    if let (Some(name), Some(then)) = (stack.last(), *since) {
        let mut all = SECONDS.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(name).or_default() += (now - then).as_secs_f64();
    }
    *since = Some(now);
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Phases {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {}

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(name) = context.span(id).map(|span| span.name()) else { return };
        STACK.with_borrow_mut(|(stack, since)| {
            charge(stack, since);
            stack.push(name);
        });
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        STACK.with_borrow_mut(|(stack, since)| {
            charge(stack, since);
            stack.pop();
        });
    }
}

/// Thread seconds of every kind of work so far, in order; kinds that did not occur are left out.
pub(crate) fn seconds() -> Vec<(&'static str, f64)> {
    let all = SECONDS.lock().unwrap_or_else(PoisonError::into_inner);
    NAMES.iter().filter_map(|name| all.get(name).map(|s| (*name, *s))).collect()
}

/// Writes what is known at the end of a command to the file that the environment variable `LSB_PHASES` names, where it is
/// set: for `cargo xtask profile`. One JSON document: seconds on the clock, thread seconds by kind of work, peak memory.
pub(crate) fn record(elapsed: Duration) -> io::Result<()> {
    let Some(path) = std::env::var_os(FILE_VARIABLE) else { return Ok(()) };
    let phases: serde_json::Map<_, _> =
        seconds().into_iter().map(|(name, s)| (name.to_owned(), s.into())).collect();
    let document = serde_json::json!({
        "seconds": elapsed.as_secs_f64(), "phases": phases, "peak_rss_bytes": lsb_stream::peak_rss_bytes(),
    });
    std::fs::write(path, document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn time_goes_to_the_innermost_span() {
        let subscriber = tracing_subscriber::registry().with(Phases.with_filter(Counted));
        tracing::subscriber::with_default(subscriber, || {
            let _outer = tracing::debug_span!("planning").entered();
            std::thread::sleep(Duration::from_millis(20));
            let _other = tracing::debug_span!("something else").entered();
            let _inner = tracing::debug_span!("factorization").entered();
            std::thread::sleep(Duration::from_millis(60));
        });
        let seconds: BTreeMap<_, _> = seconds().into_iter().collect();
        assert!(seconds["planning"] >= 0.02 && seconds["factorization"] >= 0.06, "{seconds:?}");
        assert!(seconds["planning"] < seconds["factorization"], "{seconds:?}");
        assert!(!seconds.contains_key("something else"));
    }
}
