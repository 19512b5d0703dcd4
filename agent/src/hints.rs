//! Hints of the collector on their way to the scheduler: which series are near a threshold.

use crate::schedule::Control;
use pharos_proto::v1::Hint;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

/// Hints that wait for the scheduler; a node has fewer groups than this. What is beyond is left out, and
/// the collector repeats what still holds.
const HINTS_WAITING_MAX: usize = 4_096;

/// Hints that the scheduler has not seen yet.
#[derive(Debug, Default)]
pub struct HintInbox {
    waiting: Mutex<Vec<Hint>>,
}

impl HintInbox {
    /// Takes what has come since the last call.
    pub fn take(&self) -> Vec<Hint> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Leaves hints; whether the inbox was empty, so that somebody must be woken.
    pub fn put(&self, hints: Vec<Hint>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = waiting.is_empty();
        let room = HINTS_WAITING_MAX.saturating_sub(waiting.len());
        waiting.extend(hints.into_iter().take(room));
        was_empty && !waiting.is_empty()
    }
}

/// The push client's way to the inbox.
#[derive(Clone, Debug)]
pub struct HintSender {
    /// Where hints are left.
    pub inbox: Arc<HintInbox>,
    /// How the scheduler is woken.
    pub control: Sender<Control>,
}

impl HintSender {
    /// Hands hints over and wakes the scheduler. Never waits.
    pub fn send(&self, hints: Vec<Hint>) {
        if self.inbox.put(hints) {
            // A scheduler that has ended needs no hints.
            let _ = self.control.send(Control::Hints);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_hints_is_cut_and_wakes_once() {
        let inbox = HintInbox::default();
        assert!(!inbox.put(Vec::new()));
        assert!(inbox.put(vec![Hint::default(); 3]));
        assert!(!inbox.put(vec![Hint::default(); 2 * HINTS_WAITING_MAX]));
        assert_eq!(inbox.take().len(), HINTS_WAITING_MAX);
        assert!(inbox.take().is_empty());
    }
}
