//! Keeps one reader process at work: starts it, gives it deadlines, and leaves it behind where it hangs.
//!
//! A child that hangs in the driver cannot be killed before the driver lets go of it. It is told to die,
//! kept in a list until it has, and replaced: the new child leaves the GPU alone at which the old one hung,
//! so its sisters stay in sight. A third process looks at that GPU now and then, on its own, and when it
//! answers, the main reader takes it back. All of it is bounded: so many children that do not die, and no
//! more are started.

use super::child::{Heard, Reader};
use super::reading::{DriverInfo, GpuDescription, GpuReading, PeerReading, Sink};
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

/// Children that may hang in the driver at once. Each holds some 30 MiB; a driver that keeps this many is
/// beyond help by another.
pub(super) const ABANDONED_MAX: usize = 4;
/// Loading the library on a node of many GPUs without persistence takes the driver that long.
const START_MAX: Duration = Duration::from_secs(60);
/// First pause after a child that ended or hung before it touched a GPU.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// First pause before a GPU that hung is looked at again.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Readings from one look at the child's memory to the next.
const READINGS_BETWEEN_WEIGHINGS: u32 = 30;

/// How the reader is run.
#[derive(Clone, Debug)]
pub(super) struct ReaderOptions {
    /// The executable: this program's own, unless a test says otherwise.
    pub(super) program: PathBuf,
    /// NVIDIA's library; `None` where the system finds it.
    pub(super) library: Option<PathBuf>,
    /// How long a GPU may stay silent.
    pub(super) deadline: Duration,
    /// A child that holds more is replaced: drivers and libraries leak.
    pub(super) memory_bytes_max: u64,
}

/// Why a child was replaced; also the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It said nothing for a deadline.
    Hung,
    /// It ended without a word.
    Crashed,
    /// It held too much memory.
    Memory,
    /// The driver went away under it.
    Driver,
    /// GPUs came or went, and the library lists them only when it is loaded.
    Changed,
}

impl Ending {
    pub(super) const ALL: [Ending; 5] =
        [Ending::Hung, Ending::Crashed, Ending::Memory, Ending::Driver, Ending::Changed];

    pub(super) fn label(self) -> &'static str {
        match self {
            Ending::Hung => "hung",
            Ending::Crashed => "crashed",
            Ending::Memory => "memory",
            Ending::Driver => "driver",
            Ending::Changed => "changed",
        }
    }
}

/// Numbers about the reader.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReaderStats {
    /// Children replaced, by [`Ending::ALL`].
    pub(super) endings: [u64; Ending::ALL.len()],
    /// Processor time of all children, seconds.
    pub(super) cpu_seconds: f64,
}

/// How a call for a reading went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// All GPUs that are asked have answered.
    Complete,
    /// Some have not yet; the reader is at work.
    Unfinished,
    /// The reader hung or crashed, at that GPU if it is known.
    Lost(Option<u32>),
    /// There is no library or no driver.
    NoDriver(String),
    /// Nobody reads now: a pause after a failure, or too many children that do not die.
    Paused,
}

/// A GPU that is left alone because a reader hung or crashed at it.
#[derive(Debug)]
struct Avoided {
    index: u32,
    pause: Duration,
    retry_at: Instant,
}

/// The reader, whichever process it is.
#[derive(Debug)]
pub(super) struct Supervisor {
    options: ReaderOptions,
    reader: Option<Reader>,
    probe: Option<(u32, Reader)>,
    abandoned: Vec<Child>,
    avoided: Vec<Avoided>,
    not_before: Option<Instant>,
    backoff: Duration,
    readings: u32,
    child_cpu_nanoseconds: u64,
    stats: ReaderStats,
}

impl Supervisor {
    pub(super) fn new(options: ReaderOptions) -> Self {
        Supervisor {
            options,
            reader: None,
            probe: None,
            abandoned: Vec::new(),
            avoided: Vec::new(),
            not_before: None,
            backoff: BACKOFF_MIN,
            readings: 0,
            child_cpu_nanoseconds: 0,
            stats: ReaderStats::default(),
        }
    }

    pub(super) fn stats(&self) -> ReaderStats {
        self.stats
    }

    /// Children that were told to die and have not.
    pub(super) fn abandoned(&self) -> usize {
        self.abandoned.len()
    }

    /// Whether a GPU is left alone because it hung.
    pub(super) fn avoids(&self, index: u32) -> bool {
        self.avoided.iter().any(|avoided| avoided.index == index)
    }

    /// Ends the reader on purpose; the next call starts another at once.
    pub(super) fn restart(&mut self, why: Ending) {
        if let Some(reader) = self.reader.take() {
            self.put_down(reader, why);
            self.not_before = None;
        }
    }

    /// Ends everything: nothing of ours holds the driver afterwards, as soon as the children have died.
    pub(super) fn release(&mut self) {
        let readers = self.reader.take().into_iter().chain(self.probe.take().map(|(_, probe)| probe));
        self.abandoned.extend(readers.map(Reader::abandon));
        self.avoided.clear();
        self.not_before = None;
        self.reap();
    }

    /// Takes a reading. Returns within a deadline (and a little).
    pub(super) fn read(&mut self, sink: &mut impl Sink) -> Reading {
        self.reap();
        self.look_at_avoided();
        let now = Instant::now();
        if self.reader.is_none() {
            if self.not_before.is_some_and(|at| now < at) || self.abandoned.len() >= ABANDONED_MAX {
                return Reading::Paused;
            }
            let skip: Vec<u32> = self.avoided.iter().map(|avoided| avoided.index).collect();
            let started = Reader::start(&self.options.program, self.options.library.as_deref(), &skip, None);
            match started {
                Ok(reader) => self.reader = Some(reader),
                Err(error) => {
                    self.pause();
                    let program = self.options.program.display();
                    return Reading::NoDriver(format!("cannot start {program}: {error}"));
                }
            }
            self.child_cpu_nanoseconds = 0;
        }
        let Some(mut reader) = self.reader.take() else { return Reading::Paused };
        let deadline = self.options.deadline;
        match reader.read(sink, deadline, deadline, START_MAX) {
            Heard::Complete { cpu_nanoseconds } => {
                self.completed(reader, cpu_nanoseconds);
                Reading::Complete
            }
            Heard::Unfinished => {
                self.reader = Some(reader);
                Reading::Unfinished
            }
            Heard::Silent => {
                let at = reader.at_gpu;
                tracing::warn!(
                    gpu = at,
                    pid = reader.id(),
                    "The GPU reader hangs in the driver; it is abandoned"
                );
                self.put_down(reader, Ending::Hung);
                self.avoid(at);
                Reading::Lost(at)
            }
            Heard::Crashed(how) => {
                let at = reader.at_gpu;
                tracing::warn!(gpu = at, how, "The GPU reader crashed");
                self.put_down(reader, Ending::Crashed);
                self.avoid(at);
                Reading::Lost(at)
            }
            Heard::Gone(why) => {
                self.put_down(reader, Ending::Driver);
                self.pause();
                Reading::NoDriver(why)
            }
        }
    }

    fn completed(&mut self, reader: Reader, cpu_nanoseconds: u64) {
        let spent = cpu_nanoseconds.saturating_sub(self.child_cpu_nanoseconds);
        self.stats.cpu_seconds += spent as f64 / 1e9;
        self.child_cpu_nanoseconds = cpu_nanoseconds;
        self.backoff = BACKOFF_MIN;
        self.readings = self.readings.wrapping_add(1);
        if self.readings.is_multiple_of(READINGS_BETWEEN_WEIGHINGS)
            && let Some(bytes) = reader.memory_bytes().filter(|bytes| *bytes > self.options.memory_bytes_max)
        {
            tracing::warn!(bytes, "The GPU reader has grown too large; another takes its place");
            self.put_down(reader, Ending::Memory);
            return;
        }
        self.reader = Some(reader);
    }

    fn put_down(&mut self, reader: Reader, why: Ending) {
        if let Some(count) = self.stats.endings.get_mut(why as usize) {
            *count += 1;
        }
        self.abandoned.push(reader.abandon());
        self.reap();
    }

    /// Leaves a GPU alone for a while, or everything if it is not known where the reader stood.
    fn avoid(&mut self, index: Option<u32>) {
        let Some(index) = index else { return self.pause() };
        let now = Instant::now();
        self.not_before = None;
        match self.avoided.iter_mut().find(|avoided| avoided.index == index) {
            Some(avoided) => {
                avoided.pause = (avoided.pause * 2).min(RETRY_MAX);
                avoided.retry_at = now + avoided.pause;
            }
            None => self.avoided.push(Avoided { index, pause: RETRY_MIN, retry_at: now + RETRY_MIN }),
        }
    }

    fn pause(&mut self) {
        self.not_before = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// Asks a GPU that hung, in a process of its own, whether it answers again. Never waits.
    fn look_at_avoided(&mut self) {
        let now = Instant::now();
        if let Some((index, mut probe)) = self.probe.take() {
            let silence = self.options.deadline * 2;
            let heard = probe.read(&mut Nobody, Duration::ZERO, silence, START_MAX);
            match heard {
                Heard::Unfinished => self.probe = Some((index, probe)),
                Heard::Complete { .. } => {
                    tracing::info!(gpu = index, "The GPU answers again");
                    self.abandoned.push(probe.abandon());
                    self.avoided.retain(|avoided| avoided.index != index);
                    self.restart(Ending::Changed);
                }
                Heard::Silent | Heard::Gone(_) | Heard::Crashed(_) => {
                    self.abandoned.push(probe.abandon());
                    self.avoid(Some(index));
                }
            }
            return;
        }
        // A child that has not died of the last try shows that the driver has not let go either; a full list
        // must leave the main reader its place.
        if self.abandoned.len() + 1 >= ABANDONED_MAX {
            return;
        }
        let Some(due) = self.avoided.iter().find(|avoided| avoided.retry_at <= now) else { return };
        let index = due.index;
        let started = Reader::start(&self.options.program, self.options.library.as_deref(), &[], Some(index));
        match started {
            Ok(probe) => self.probe = Some((index, probe)),
            Err(_) => self.avoid(Some(index)),
        }
    }

    fn reap(&mut self) {
        // One whose state cannot be asked for is no child of ours any more.
        self.abandoned.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.release();
    }
}

/// Hears nothing: a probe only wants to know whether there is an answer.
struct Nobody;

impl Sink for Nobody {
    fn driver(&mut self, _: DriverInfo) {}
    fn describe(&mut self, _: GpuDescription) {}
    fn reading(&mut self, _: &GpuReading) {}
    fn failed(&mut self, _: u32, _: &str) {}
    fn peers(&mut self, _: u32, _: &[PeerReading]) {}
    fn event(&mut self, _: u32, _: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(program: &str) -> Supervisor {
        Supervisor::new(ReaderOptions {
            program: program.into(),
            library: None,
            deadline: Duration::from_secs(30),
            memory_bytes_max: 1 << 30,
        })
    }

    /// A process that outlives what it was told, as one that hangs in the driver does.
    fn immortal() -> Child {
        std::process::Command::new("sleep").arg("1000").spawn().unwrap()
    }

    #[test]
    fn no_more_readers_are_started_while_too_many_do_not_die() {
        let mut supervisor = supervisor("/nonexistent/reader");
        supervisor.abandoned = (0..ABANDONED_MAX).map(|_| immortal()).collect();
        assert_eq!(supervisor.read(&mut Nobody), Reading::Paused);
        assert_eq!(supervisor.abandoned(), ABANDONED_MAX);
        supervisor.abandoned[2].kill().unwrap();
        supervisor.abandoned[2].wait().unwrap();
        // There is room again, so it tries.
        assert!(matches!(supervisor.read(&mut Nobody), Reading::NoDriver(_)));
        assert_eq!(supervisor.abandoned(), ABANDONED_MAX - 1);
        for child in &mut supervisor.abandoned {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_reader_that_cannot_start_or_talks_nonsense_is_paused_and_not_trusted() {
        let mut missing = supervisor("/nonexistent/reader");
        assert!(
            matches!(missing.read(&mut Nobody), Reading::NoDriver(why) if why.contains("/nonexistent/reader"))
        );
        assert_eq!(missing.read(&mut Nobody), Reading::Paused, "not again at once");
        // It prints its arguments and ends.
        let mut nonsense = supervisor("/bin/echo");
        assert_eq!(nonsense.read(&mut Nobody), Reading::Lost(None));
        assert_eq!(nonsense.stats().endings[Ending::Crashed as usize], 1);
        assert_eq!(nonsense.read(&mut Nobody), Reading::Paused);
    }

    #[test]
    fn a_gpu_that_hangs_again_is_tried_ever_more_rarely() {
        let mut supervisor = supervisor("/nonexistent/reader");
        let mut pauses = Vec::new();
        for _ in 0..10 {
            supervisor.avoid(Some(3));
            pauses.push(supervisor.avoided[0].pause);
        }
        assert!(supervisor.avoids(3) && !supervisor.avoids(2));
        assert_eq!((pauses[0], pauses[1], pauses[9]), (RETRY_MIN, RETRY_MIN * 2, RETRY_MAX));
    }
}
