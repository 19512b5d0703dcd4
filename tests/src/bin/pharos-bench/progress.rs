//! How far a step is, its rate and when it will be done: one line on stderr, if that is a terminal.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const SHOWN_EVERY_MS: u64 = 200;

/// One step's progress; tasks share it.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    total: u64,
    done: AtomicU64,
    shown_ms: AtomicU64,
    begin: Instant,
    terminal: bool,
}

impl Progress {
    /// Of a step with `total` things to do, e.g. samples.
    pub(crate) fn new(what: impl Into<String>, total: u64) -> Progress {
        Progress {
            what: what.into(),
            total,
            done: AtomicU64::new(0),
            shown_ms: AtomicU64::new(0),
            begin: Instant::now(),
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// So many more are done.
    pub(crate) fn add(&self, more: u64) {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        if !self.terminal {
            return;
        }
        let now_ms = self.begin.elapsed().as_millis() as u64;
        let shown_ms = self.shown_ms.load(Ordering::Relaxed);
        let due = now_ms >= shown_ms + SHOWN_EVERY_MS || done == self.total;
        if due
            && self.shown_ms.compare_exchange(shown_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let rate = done as f64 / (now_ms.max(1) as f64 / 1_000.0);
            let left_seconds = self.total.saturating_sub(done) as f64 / rate;
            let (what, total) = (&self.what, self.total);
            eprint!("\r\x1b[K{what}: {done} of {total}, {rate:.0}/s, {left_seconds:.0} s left");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
