//! A thread that asks one file system for its statistics and may be left hanging.

use rustix::fs::StatVfs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Time a file system gets to answer; what is later belongs to the next reading.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(200);
/// The thread does one system call at a time.
const STACK_BYTES: usize = 128 << 10;

/// What a file system said.
pub(super) enum Answer {
    /// Its statistics.
    Known(StatVfs),
    /// The system refused.
    Failed(io::Error),
    /// Nothing so far.
    Hangs,
}

/// Asks for one mount point.
pub(super) struct StatWorker {
    path: PathBuf,
    running: Option<Running>,
}

struct Running {
    questions: SyncSender<()>,
    answers: Receiver<io::Result<StatVfs>>,
    outstanding: bool,
}

impl StatWorker {
    pub(super) fn new(path: PathBuf) -> Self {
        StatWorker { path, running: None }
    }

    /// The mount's statistics, or that it hangs. While it does, every call looks for the late answer
    /// without waiting for it, so a dead mount delays its sampler once.
    pub(super) fn ask(&mut self) -> Answer {
        let running = match &mut self.running {
            Some(running) => running,
            None => match start(self.path.clone()) {
                Ok(running) => self.running.insert(running),
                Err(error) => return Answer::Failed(error),
            },
        };
        if running.outstanding {
            match running.answers.recv_timeout(Duration::ZERO) {
                // It is alive again, but what it says is old.
                Ok(_) => running.outstanding = false,
                Err(RecvTimeoutError::Timeout) => return Answer::Hangs,
                Err(RecvTimeoutError::Disconnected) => return self.lost(),
            }
        }
        match running.questions.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => return self.lost(),
        }
        match running.answers.recv_timeout(ANSWER_TIME_MAX) {
            Ok(Ok(answer)) => Answer::Known(answer),
            Ok(Err(error)) => Answer::Failed(error),
            Err(RecvTimeoutError::Timeout) => {
                running.outstanding = true;
                Answer::Hangs
            }
            Err(RecvTimeoutError::Disconnected) => self.lost(),
        }
    }

    fn lost(&mut self) -> Answer {
        self.running = None;
        Answer::Failed(io::Error::other("the helper thread ended"))
    }
}

fn start(path: PathBuf) -> io::Result<Running> {
    let (questions, inbox) = sync_channel(1);
    let (outbox, answers) = sync_channel(1);
    std::thread::Builder::new().name("pharos-statvfs".into()).stack_size(STACK_BYTES).spawn(move || {
        while inbox.recv().is_ok() {
            let answer = rustix::fs::statvfs(&path).map_err(io::Error::from);
            if outbox.send(answer).is_err() {
                return;
            }
        }
    })?;
    Ok(Running { questions, answers, outstanding: false })
}
