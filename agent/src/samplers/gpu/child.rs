//! One reader process as the agent sees it: a pipe to ask by, a pipe to hear by, and how long it has said
//! nothing. Nothing here ever waits longer than it is told to.

use super::reader;
use super::reading::Sink;
use super::wire::{Decoder, Progress, READ, WireError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes taken from the pipe at once.
const CHUNK_BYTES: usize = 64 << 10;

/// How a call for a reading went.
#[derive(Debug)]
pub(super) enum Heard {
    /// All GPUs have been told.
    Complete {
        /// Processor time of the child so far, nanoseconds.
        cpu_nanoseconds: u64,
    },
    /// Not all yet; it is still talking, or still starting.
    Unfinished,
    /// It has said nothing for too long.
    Silent,
    /// It said why and ended: no library, no driver.
    Gone(String),
    /// It ended without a word.
    Crashed(String),
}

/// A reader process.
#[derive(Debug)]
pub(super) struct Reader {
    child: Child,
    orders: ChildStdin,
    answers: ChildStdout,
    decoder: Decoder,
    input: Vec<u8>,
    filled: usize,
    asked: Option<Instant>,
    /// When it said something last.
    progress: Instant,
    /// Whether it has ever completed a reading.
    warm: bool,
    /// The GPU it asks now.
    pub(super) at_gpu: Option<u32>,
}

impl Reader {
    /// Starts a process.
    pub(super) fn start(
        program: &Path,
        library: Option<&Path>,
        skip: &[u32],
        only: Option<u32>,
    ) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(reader::arguments(library, skip, only))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the GPU reader has no pipes"));
        };
        Ok(Reader {
            child,
            orders,
            answers,
            decoder: Decoder::default(),
            input: vec![0; CHUNK_BYTES],
            filled: 0,
            asked: None,
            progress: Instant::now(),
            warm: false,
            at_gpu: None,
        })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks for a reading unless one is on its way, and listens for at most `patience`. It is silent if it has
    /// said nothing for `silence_max`, or `start_max` before its first reading.
    pub(super) fn read(
        &mut self,
        sink: &mut impl Sink,
        patience: Duration,
        silence_max: Duration,
        start_max: Duration,
    ) -> Heard {
        let called = Instant::now();
        if self.asked.is_none() {
            // One byte into an empty pipe: never blocks.
            if self.orders.write_all(&[READ]).is_err() {
                return self.crashed(sink);
            }
            self.asked = Some(called);
            self.progress = called;
        }
        loop {
            let silence_max = if self.warm { silence_max } else { start_max };
            let left = patience.saturating_sub(called.elapsed());
            let left = left.min(silence_max.saturating_sub(self.progress.elapsed()));
            match self.has_answer(left) {
                Ok(true) => {}
                Ok(false) if self.progress.elapsed() >= silence_max => return Heard::Silent,
                Ok(false) if called.elapsed() >= patience => return Heard::Unfinished,
                Ok(false) => continue,
                Err(error) => return Heard::Crashed(error.to_string()),
            }
            let free = self.input.get_mut(self.filled..).unwrap_or_default();
            match self.answers.read(free) {
                Ok(0) => return self.crashed(sink),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Heard::Crashed(error.to_string()),
            }
            self.progress = Instant::now();
            // What was asked for long ago (a slow start) describes GPUs but says nothing of now.
            let old =
                self.asked.is_some_and(|asked| asked.elapsed() > silence_max_for(silence_max, self.warm));
            match self.take_frames(sink, old) {
                Ok(Some(heard)) => return heard,
                Ok(None) => {}
                Err(error) => return Heard::Crashed(error.to_string()),
            }
        }
    }

    fn has_answer(&self, wait: Duration) -> io::Result<bool> {
        let mut polled = [PollFd::new(&self.answers, PollFlags::IN)];
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        match poll(&mut polled, Some(&wait)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn take_frames(&mut self, sink: &mut impl Sink, old: bool) -> Result<Option<Heard>, WireError> {
        let mut at = 0;
        let mut heard = None;
        while heard.is_none() {
            let waiting = self.input.get(at..self.filled).unwrap_or_default();
            let Some(length) = Decoder::frame_length(waiting)? else { break };
            let Some(frame) = waiting.get(4..length) else {
                // A frame larger than the buffer; the decoder has checked that it is allowed.
                if at == 0 && length > self.input.len() {
                    self.input.resize(length, 0);
                }
                break;
            };
            let progress = if old {
                self.decoder.take(frame, &mut WithoutReadings(sink))?
            } else {
                self.decoder.take(frame, sink)?
            };
            match progress {
                Progress::Taken => {}
                Progress::Begins(index) => self.at_gpu = Some(index),
                Progress::Done(cpu_nanoseconds) => {
                    self.asked = None;
                    self.at_gpu = None;
                    self.warm = true;
                    heard = Some(if old { Heard::Unfinished } else { Heard::Complete { cpu_nanoseconds } });
                }
                Progress::Gone(why) => heard = Some(Heard::Gone(why)),
            }
            at += length;
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(heard)
    }

    /// It closed its pipe. What it said before it ended is in the buffer: perhaps why.
    fn crashed(&mut self, sink: &mut impl Sink) -> Heard {
        while let Ok(true) = self.has_answer(Duration::ZERO) {
            let free = self.input.get_mut(self.filled..).unwrap_or_default();
            match self.answers.read(free) {
                Ok(count) if count > 0 => self.filled += count,
                _ => break,
            }
        }
        if let Ok(Some(gone @ Heard::Gone(_))) = self.take_frames(sink, true) {
            return gone;
        }
        let how = match self.child.try_wait() {
            Ok(Some(status)) => status.to_string(),
            _ => "its pipe closed".to_owned(),
        };
        Heard::Crashed(how)
    }

    /// Memory it holds, bytes.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    }

    /// Lets it go: kills it without waiting, for in the driver it cannot die. Who takes it reaps it when it
    /// has.
    pub(super) fn abandon(mut self) -> Child {
        // If it is gone already there is nothing to kill.
        let _ = self.child.kill();
        self.child
    }
}

/// How old a request may be for its readings to be of now.
fn silence_max_for(silence_max: Duration, warm: bool) -> Duration {
    if warm { silence_max * 2 } else { silence_max.min(Duration::from_secs(2)) }
}

/// Passes everything on but values.
struct WithoutReadings<'a, S: Sink>(&'a mut S);

impl<S: Sink> Sink for WithoutReadings<'_, S> {
    fn driver(&mut self, driver: super::reading::DriverInfo) {
        self.0.driver(driver);
    }

    fn describe(&mut self, gpu: super::reading::GpuDescription) {
        self.0.describe(gpu);
    }

    fn reading(&mut self, _: &super::reading::GpuReading) {}

    fn failed(&mut self, index: u32, error: &str) {
        self.0.failed(index, error);
    }

    fn peers(&mut self, index: u32, peers: &[super::reading::PeerReading]) {
        self.0.peers(index, peers);
    }

    fn event(&mut self, index: u32, xid: u32) {
        self.0.event(index, xid);
    }
}
