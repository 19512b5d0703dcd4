//! A thread that asks one file system for its statistics and may be left hanging.

use rustix::fs::StatVfs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Time that a reading waits for the answer; what is later belongs to the next reading.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(200);
/// The thread does one system call at a time.
const STACK_BYTES: usize = 128 << 10;

/// What a file system said.
pub(super) enum Answer {
    /// Its statistics.
    Known(StatVfs),
    /// The system refused.
    Failed(io::Error),
    /// Nothing so far, and there is time still.
    Waits,
    /// Nothing within the time that a mount gets.
    Hangs,
}

/// Asks for one mount point.
pub(super) struct StatWorker {
    path: PathBuf,
    timeout: Duration,
    running: Option<Running>,
}

struct Running {
    questions: SyncSender<()>,
    /// What it said, and how long that took.
    answers: Receiver<(io::Result<StatVfs>, Duration)>,
    /// When the question was asked that has no answer yet.
    asked: Option<Instant>,
}

impl StatWorker {
    /// A mount that takes longer than `timeout` to answer counts as hanging.
    pub(super) fn new(path: PathBuf, timeout: Duration) -> Self {
        StatWorker { path, timeout, running: None }
    }

    /// The mount's statistics, or that it hangs. A late answer counts for the next reading, so that a slow mount
    /// is seen; while there is none, no call waits for it again, so a dead mount delays its sampler once.
    pub(super) fn ask(&mut self) -> Answer {
        let timeout = self.timeout;
        let running = match &mut self.running {
            Some(running) => running,
            None => match start(self.path.clone()) {
                Ok(running) => self.running.insert(running),
                Err(error) => return Answer::Failed(error),
            },
        };
        if let Some(asked) = running.asked {
            match running.answers.recv_timeout(Duration::ZERO) {
                // It is quick again, so it is asked as every other.
                Ok((_, took)) if took <= ANSWER_TIME_MAX => running.asked = None,
                Ok((answer, _)) => {
                    let asked_again = running.questions.try_send(());
                    running.asked = asked_again.is_ok().then(Instant::now);
                    // One that hung is alive, but what it says is old.
                    return if asked.elapsed() > timeout { Answer::Waits } else { of(answer) };
                }
                Err(RecvTimeoutError::Timeout) if asked.elapsed() > timeout => return Answer::Hangs,
                Err(RecvTimeoutError::Timeout) => return Answer::Waits,
                Err(RecvTimeoutError::Disconnected) => return self.lost(),
            }
        }
        match running.questions.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => return self.lost(),
        }
        match running.answers.recv_timeout(ANSWER_TIME_MAX.min(timeout)) {
            Ok((answer, _)) => of(answer),
            Err(RecvTimeoutError::Timeout) => {
                running.asked = Some(Instant::now());
                if timeout <= ANSWER_TIME_MAX { Answer::Hangs } else { Answer::Waits }
            }
            Err(RecvTimeoutError::Disconnected) => self.lost(),
        }
    }

    fn lost(&mut self) -> Answer {
        self.running = None;
        Answer::Failed(io::Error::other("the helper thread ended"))
    }
}

fn of(answer: io::Result<StatVfs>) -> Answer {
    answer.map_or_else(Answer::Failed, Answer::Known)
}

fn start(path: PathBuf) -> io::Result<Running> {
    let (questions, inbox) = sync_channel(1);
    let (outbox, answers) = sync_channel(1);
    std::thread::Builder::new().name("pharos-statvfs".into()).stack_size(STACK_BYTES).spawn(move || {
        while inbox.recv().is_ok() {
            let began = Instant::now();
            let answer = rustix::fs::statvfs(&path).map_err(io::Error::from);
            if outbox.send((answer, began.elapsed())).is_err() {
                return;
            }
        }
    })?;
    Ok(Running { questions, answers, asked: None })
}
