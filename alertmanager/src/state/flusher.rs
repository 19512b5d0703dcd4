//! One task that flushes for everybody who waits: a hundred writers that arrive during one flush share
//! the next.

use super::StateError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, watch};

/// How far flushing has come.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Every request up to this number is on disk.
    done: u64,
    /// Why flushing ended, if it did.
    broken: Option<String>,
}

#[derive(Debug)]
pub(super) struct Flusher {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

#[derive(Debug)]
struct Shared {
    requested: AtomicU64,
    wake: Notify,
    closed: AtomicBool,
    poison: Mutex<Option<String>>,
}

impl Flusher {
    /// Starts the task; it ends when the flusher is dropped.
    pub(super) fn start(db: sled::Db) -> Self {
        let shared = Arc::new(Shared {
            requested: AtomicU64::new(0),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            poison: Mutex::new(None),
        });
        let (sender, progress) = watch::channel(Progress::default());
        tokio::spawn(run(db, Arc::clone(&shared), sender));
        Flusher { shared, progress }
    }

    /// From now on nothing is durable: a write before was refused.
    /// Returns whether this is news.
    pub(super) fn poison(&self, error: &str) -> bool {
        let mut poison = self.shared.poison.lock().unwrap_or_else(PoisonError::into_inner);
        let new = poison.is_none();
        poison.get_or_insert_with(|| error.to_owned());
        new
    }

    /// Ends the task without another flush, so that it lets go of the database.
    pub(super) fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.wake.notify_one();
    }

    /// Why nothing is durable any more, if so.
    pub(super) fn broken(&self) -> Option<String> {
        let poison = self.shared.poison.lock().unwrap_or_else(PoisonError::into_inner).clone();
        poison.or_else(|| self.progress.borrow().broken.clone())
    }

    pub(super) async fn durable(&self) -> Result<(), StateError> {
        if let Some(error) = self.broken() {
            return Err(StateError::Flush(error));
        }
        let mine = self.shared.requested.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.wake.notify_one();
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| progress.done >= mine || progress.broken.is_some()).await;
        match reached.map(|progress| progress.clone()) {
            Ok(Progress { broken: None, .. }) => Ok(()),
            Ok(Progress { done, .. }) if done >= mine => Ok(()),
            Ok(Progress { broken: Some(error), .. }) => Err(StateError::Flush(error)),
            Err(_) => Err(StateError::Flush("the flusher has ended".to_owned())),
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.wake.notify_one();
    }
}

async fn run(db: sled::Db, shared: Arc<Shared>, progress: watch::Sender<Progress>) {
    loop {
        shared.wake.notified().await;
        if shared.closed.load(Ordering::SeqCst) {
            return;
        }
        // Everything requested up to here was written before, so this flush covers it.
        let target = shared.requested.load(Ordering::SeqCst);
        let outcome = db.flush_async().await;
        progress.send_modify(|progress| match outcome {
            Ok(_) => progress.done = target,
            Err(error) => {
                tracing::error!(%error, "The state folder cannot be flushed");
                progress.broken = Some(error.to_string());
            }
        });
        if progress.is_closed() || progress.borrow().broken.is_some() {
            return;
        }
    }
}
