//! The spool against a collector that keeps to the protocol: nothing lost, nothing stored twice, whatever
//! breaks in between.

use super::keeper::{next_backfill, tidy};
use super::ledger::Ledger;
use super::writer::Writer;
use super::*;
use crate::directory::DefinitionSet;
use crate::frame::FrameDraft;
use crate::own_metrics::{LossReason, OwnMetrics};
use pharos_common::clock::{Clock as _, ManualClock, SharedClock};
use pharos_common::storage_io::{FolderLock, IoResult, MemoryIo, ReadableFile, StorageIo, WritableFile};
use pharos_proto::v1::Lane;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

const FOLDER: &str = "/agent";

struct Rig {
    io: MemoryIo,
    clock: Arc<ManualClock>,
    metrics: OwnMetrics,
    limits: SpoolLimits,
    ledger: Mutex<Ledger>,
    writer: Writer,
    stream: [u8; STREAM_ID_BYTES],
    definitions: Arc<DefinitionSet>,
    /// Sequences of all frames ever appended.
    appended: BTreeSet<u64>,
    collector: Collector,
    live: Option<mpsc::Receiver<LiveFrame>>,
}

/// What a collector remembers of a stream.
#[derive(Default)]
struct Collector {
    live_durable: u64,
    backfill_durable: u64,
    stored: BTreeSet<u64>,
}

impl Collector {
    fn store(&mut self, lane: Lane, sequence: u64) {
        let mark = match lane {
            Lane::Live => &mut self.live_durable,
            Lane::Backfill => &mut self.backfill_durable,
        };
        if sequence > *mark {
            *mark = sequence;
            assert!(self.stored.insert(sequence), "frame {sequence} is stored twice");
        }
    }
}

fn open(io: &MemoryIo, limits: SpoolLimits, metrics: &OwnMetrics, clock: &Arc<ManualClock>) -> Opened {
    let clock: SharedClock = Arc::clone(clock) as SharedClock;
    super::open(Arc::new(io.clone()), Path::new(FOLDER), limits, metrics.clone(), clock).unwrap()
}

impl Rig {
    fn new(limits: SpoolLimits) -> Self {
        let (io, clock) = (MemoryIo::new(), ManualClock::new(1_000_000_000));
        let metrics = OwnMetrics::register(&prometheus::Registry::new()).unwrap();
        let Opened { ledger, writer, stream_id: stream, .. } = open(&io, limits, &metrics, &clock);
        let (definitions, appended, collector) = Default::default();
        let ledger = Mutex::new(ledger);
        Rig {
            io,
            clock,
            metrics,
            limits,
            ledger,
            writer,
            stream,
            definitions,
            appended,
            collector,
            live: None,
        }
    }

    fn append(&mut self, bytes: usize) {
        self.appended.insert(self.next_sequence());
        let timestamp_ms = self.clock.now_ms();
        let definitions = Arc::clone(&self.definitions);
        let draft = FrameDraft { definitions, readings: vec![7; bytes], samples: 1, timestamp_ms };
        let (mut out, now) = (Vec::new(), self.clock.monotonic());
        self.ledger.lock().unwrap().append(draft, 1, Lane::Live, now, now, &mut out);
        self.write(out);
    }

    /// What the writer's thread does.
    fn write(&mut self, frames: Vec<super::ledger::Unwritten>) {
        for frame in frames {
            if !self.writer.write(&frame) {
                let sequence = frame.frame.sequence;
                self.ledger.lock().unwrap().not_written(sequence, LossReason::JournalFailed);
            }
            tidy(&mut self.writer, &self.ledger);
        }
    }

    fn next_sequence(&self) -> u64 {
        self.ledger.lock().unwrap().next_sequence()
    }

    fn outstanding(&self) -> u64 {
        self.ledger.lock().unwrap().outstanding()
    }

    fn acknowledge(&mut self, lane: Lane) {
        let sequence = match lane {
            Lane::Live => self.collector.live_durable,
            Lane::Backfill => self.collector.backfill_durable,
        };
        self.ledger.lock().unwrap().acknowledged(lane, sequence);
        tidy(&mut self.writer, &self.ledger);
    }

    fn connect(&mut self) {
        let (live, out) = mpsc::channel(4);
        let mut held = Vec::new();
        self.ledger.lock().unwrap().give_out(&mut held);
        self.write(held);
        let (live_durable, backfill_durable) = (self.collector.live_durable, self.collector.backfill_durable);
        let assigned = self.ledger.lock().unwrap().connected(live_durable, backfill_durable, live);
        self.writer.assign(&assigned);
        self.live = Some(out);
    }

    fn disconnect(&mut self) {
        self.live = None;
        let mut out = Vec::new();
        self.ledger.lock().unwrap().disconnected(&mut out);
        self.write(out);
    }

    /// The collector takes up to `count` live frames; the acknowledgement arrives or is lost.
    fn take_live(&mut self, count: usize, acknowledge: bool) {
        let Some(live) = &mut self.live else { return };
        for _ in 0..count {
            let Ok(frame) = live.try_recv() else { break };
            self.collector.store(Lane::Live, frame.sequence);
        }
        if acknowledge {
            self.acknowledge(Lane::Live);
        }
    }

    /// The collector takes up to `count` of the next backfilled frames; the rest is lost with the
    /// connection.
    fn take_backfill(&mut self, count: usize, acknowledge: bool) {
        let batch = next_backfill(&mut self.writer, &self.ledger);
        let all = batch.len() <= count;
        for frame in batch.into_iter().take(count) {
            self.collector.store(Lane::Backfill, frame.sequence);
        }
        if acknowledge {
            self.acknowledge(Lane::Backfill);
        }
        if !all {
            self.disconnect();
        }
    }

    /// The collector ends the stream with an error that says what it got is wrong.
    fn disconnect_refused(&mut self, set_aside: &mut Option<u64>) {
        let culprit = self.ledger.lock().unwrap().refused();
        if let Some(sequence) = culprit {
            self.writer.set_aside(sequence);
            *set_aside = Some(sequence);
        }
        self.disconnect();
    }

    /// Ends as agents do when they are asked to, and starts again.
    fn restart(&mut self) {
        let mut held = Vec::new();
        self.ledger.lock().unwrap().give_out(&mut held);
        self.write(held);
        self.start_again();
    }

    /// Starts again after being killed.
    fn start_again(&mut self) {
        self.live = None;
        let opened = open(&self.io, self.limits, &self.metrics, &self.clock);
        (self.ledger, self.writer) = (Mutex::new(opened.ledger), opened.writer);
        self.stream = opened.stream_id;
    }

    fn drain(&mut self) {
        self.connect();
        for _ in 0..1_000 {
            self.take_live(usize::MAX, true);
            self.take_backfill(usize::MAX, true);
            if self.outstanding() == 0 {
                return;
            }
        }
        panic!("{} frames never go out", self.outstanding());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append,
    Connect,
    Disconnect,
    TakeLive(usize, bool),
    TakeBackfill(usize, bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Append),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        3 => (0usize..4, any::<bool>()).prop_map(|(count, ack)| Step::TakeLive(count, ack)),
        3 => (0usize..4, any::<bool>()).prop_map(|(count, ack)| Step::TakeBackfill(count, ack)),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_breaks_every_frame_is_stored_once(steps in proptest::collection::vec(step(), 1..80)) {
        // Small segments, so that freeing and reading across them happen all the time.
        let mut rig = Rig::new(SpoolLimits { segment_bytes_max: 600, ..SpoolLimits::default() });
        for step in steps {
            match step {
                Step::Append => rig.append(200),
                Step::Connect => rig.connect(),
                Step::Disconnect => rig.disconnect(),
                Step::TakeLive(count, ack) => rig.take_live(count, ack),
                Step::TakeBackfill(count, ack) => rig.take_backfill(count, ack),
                Step::Restart => rig.restart(),
            }
        }
        rig.drain();
        prop_assert_eq!(&rig.collector.stored, &rig.appended);
        prop_assert!(LossReason::ALL.iter().all(|reason| rig.metrics.lost(*reason) == 0));
    }
}

#[test]
fn acknowledgements_free_the_journal() {
    let mut rig = Rig::new(SpoolLimits { bytes_max: 40_000, ..SpoolLimits::default() });
    rig.connect();
    for _ in 0..200 {
        rig.append(1_000);
        rig.take_live(1, true);
    }
    assert!(rig.writer.journal.total_bytes() < 25_000, "{}", rig.writer.journal.total_bytes());
    assert_eq!(rig.metrics.lost(LossReason::JournalFull), 0);
    assert_eq!(rig.collector.stored.len(), 200);
}

#[test]
fn what_is_acknowledged_at_once_is_never_written() {
    let mut rig = Rig::new(SpoolLimits::default());
    rig.connect();
    for _ in 0..100 {
        rig.append(1_000);
        rig.take_live(1, true);
        rig.clock.advance(Duration::from_secs(1));
    }
    // The first frame brought its definitions.
    assert_eq!(rig.metrics.frames.get(), 1);
    // A collector that is silent for longer than a moment is no place to leave frames.
    rig.append(1_000);
    rig.clock.advance(Duration::from_secs(1));
    rig.append(1_000);
    assert_eq!(rig.metrics.frames.get(), 3);
    rig.start_again();
    rig.drain();
    assert_eq!(rig.collector.stored, rig.appended);
}

#[test]
fn sequences_and_group_numbers_are_never_used_twice_although_little_is_written() {
    let mut rig = Rig::new(SpoolLimits::default());
    rig.connect();
    for _ in 0..100 {
        rig.append(10);
        rig.take_live(1, true);
    }
    let used = *rig.appended.last().unwrap();
    rig.definitions = Arc::default();
    rig.append(10);
    assert_eq!(rig.metrics.frames.get(), 2, "new definitions are written at once");
    rig.take_live(1, true);
    rig.start_again();
    assert!(rig.next_sequence() > used + 1);
}

#[test]
fn a_frame_that_is_refused_for_good_is_set_aside_and_the_next_goes_on() {
    let mut rig = Rig::new(SpoolLimits::default());
    for _ in 0..5 {
        rig.append(100);
    }
    // The collector takes everything but the third frame.
    let mut set_aside = None;
    for _ in 0..20 {
        rig.connect();
        for frame in next_backfill(&mut rig.writer, &rig.ledger) {
            if frame.sequence == 3 {
                break;
            }
            rig.collector.store(Lane::Backfill, frame.sequence);
        }
        rig.acknowledge(Lane::Backfill);
        if rig.outstanding() == 0 {
            break;
        }
        rig.disconnect_refused(&mut set_aside);
    }
    assert_eq!(set_aside, Some(3));
    assert_eq!(rig.collector.stored, BTreeSet::from([1, 2, 4, 5]));
    assert_eq!(rig.metrics.lost(LossReason::Refused), 1);
    let kept = rig.io.paths().into_iter().filter(|path| path.starts_with("/agent/refused"));
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_full_journal_drops_the_oldest_and_counts_them() {
    let mut rig = Rig::new(SpoolLimits { bytes_max: 40_000, ..SpoolLimits::default() });
    for _ in 0..200 {
        rig.append(1_000);
        assert!(rig.writer.journal.total_bytes() <= 40_000);
    }
    let lost = rig.metrics.lost(LossReason::JournalFull);
    assert!(lost > 150, "{lost}");
    rig.drain();
    let newest: BTreeSet<u64> = rig.appended.iter().copied().skip(lost as usize).collect();
    assert_eq!(rig.collector.stored, newest);
}

#[test]
fn frames_beyond_the_age_limit_are_dropped_and_counted() {
    let mut rig = Rig::new(SpoolLimits {
        bytes_max: 1 << 20,
        age_max: Duration::from_secs(60),
        ..SpoolLimits::default()
    });
    rig.append(300_000);
    rig.clock.advance(Duration::from_secs(50));
    rig.append(300_000);
    rig.append(1_000);
    assert_eq!(rig.metrics.lost(LossReason::TooOld), 0);
    rig.clock.advance(Duration::from_secs(30));
    rig.append(1_000);
    assert_eq!(rig.metrics.lost(LossReason::TooOld), 1);
}

#[test]
fn a_full_disk_costs_nothing_that_a_collector_takes_live() {
    let mut rig = Rig::new(SpoolLimits::default());
    rig.connect();
    rig.append(100);
    rig.take_live(1, true);
    rig.io.set_capacity(Some(0));
    for _ in 0..3 {
        rig.append(100);
        rig.take_live(1, true);
    }
    assert_eq!(rig.collector.stored.len(), 4);
    assert_eq!(rig.metrics.lost(LossReason::JournalFailed), 0);
    // Without a collector such frames are lost, and counted.
    rig.disconnect();
    rig.append(100);
    assert_eq!(rig.metrics.lost(LossReason::JournalFailed), 1);
    // Room again: the journal takes frames again.
    rig.io.set_capacity(None);
    rig.append(100);
    rig.drain();
    assert_eq!(rig.collector.stored.len(), 5);
    assert_eq!(rig.metrics.lost(LossReason::JournalFailed), 1);
}

#[test]
fn a_power_cut_takes_unsynced_frames_but_never_reuses_a_sequence() {
    let mut rig = Rig::new(SpoolLimits::default());
    rig.append(100);
    rig.writer.sync();
    for _ in 0..50 {
        rig.append(100);
    }
    let highest = *rig.appended.last().unwrap();
    let stream = rig.stream;
    rig.io = rig.io.after_power_cut();
    rig.restart();
    assert_eq!(rig.stream, stream);
    assert!(rig.next_sequence() > highest);
    rig.drain();
    assert!(rig.collector.stored.contains(&1));
}

#[test]
fn damaged_frames_are_counted_and_do_not_stop_the_others() {
    let mut rig = Rig::new(SpoolLimits::default());
    for _ in 0..10 {
        rig.append(100);
    }
    let path = rig.io.paths().into_iter().find(|path| path.extension().is_some_and(|end| end == "journal"));
    rig.io.corrupt(&path.unwrap(), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
    });
    rig.restart();
    rig.drain();
    assert_eq!(rig.collector.stored.len(), 9);
}

#[test]
fn definitions_and_numbers_survive_a_restart() {
    use crate::directory::Directory;
    use crate::group::{ColumnSpec, GroupSet};
    let mut rig = Rig::new(SpoolLimits::default());
    let mut directory = Directory::new("n", 0, []);
    let mut groups = GroupSet::default();
    groups.define("disk/sda", Vec::new(), vec![ColumnSpec::plain("node_disk_io_now")]);
    let definition = directory.define(groups.iter().next().unwrap());
    rig.definitions = Arc::new(DefinitionSet { definitions: vec![Arc::clone(&definition)] });
    rig.append(10);
    let opened = open(&rig.io, rig.limits, &rig.metrics, &rig.clock);
    assert_eq!(opened.definitions, [Arc::clone(&definition)]);
    assert!(opened.next_group > definition.group());
    rig.start_again();
    // What is backfilled carries the definitions that held then.
    rig.connect();
    let batch = next_backfill(&mut rig.writer, &rig.ledger);
    assert_eq!(batch[0].definitions.definitions, [definition]);
}

/// A disk of which every write waits until the test lets go.
#[derive(Debug, Clone)]
struct HangingIo {
    memory: MemoryIo,
    held: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct HangingFile(Box<dyn WritableFile>, Arc<Mutex<()>>);

impl WritableFile for HangingFile {
    fn write_all(&mut self, bytes: &[u8]) -> IoResult<()> {
        let _held = self.1.lock().unwrap();
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> IoResult<()> {
        let _held = self.1.lock().unwrap();
        self.0.sync()
    }

    fn truncate(&mut self, length: u64) -> IoResult<()> {
        self.0.truncate(length)
    }
}

impl StorageIo for HangingIo {
    fn create_dir_all(&self, path: &Path) -> IoResult<()> {
        self.memory.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> IoResult<Vec<String>> {
        self.memory.list(path)
    }
    fn create(&self, path: &Path) -> IoResult<Box<dyn WritableFile>> {
        Ok(Box::new(HangingFile(self.memory.create(path)?, Arc::clone(&self.held))))
    }
    fn append(&self, path: &Path) -> IoResult<Box<dyn WritableFile>> {
        Ok(Box::new(HangingFile(self.memory.append(path)?, Arc::clone(&self.held))))
    }
    fn open(&self, path: &Path) -> IoResult<Arc<dyn ReadableFile>> {
        self.memory.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> IoResult<()> {
        self.memory.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> IoResult<()> {
        self.memory.hard_link(from, to)
    }
    fn remove_file(&self, path: &Path) -> IoResult<()> {
        self.memory.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> IoResult<()> {
        self.memory.remove_dir_all(path)
    }
    fn lock(&self, path: &Path) -> IoResult<Box<dyn FolderLock>> {
        self.memory.lock(path)
    }
    fn sync_dir(&self, path: &Path) -> IoResult<()> {
        self.memory.sync_dir(path)
    }
}

#[test]
fn a_disk_that_hangs_does_not_hold_up_live_frames() {
    let held = Arc::new(Mutex::new(()));
    let io = HangingIo { memory: MemoryIo::new(), held: Arc::clone(&held) };
    let metrics = OwnMetrics::register(&prometheus::Registry::new()).unwrap();
    let clock = ManualClock::new(1_000_000_000);
    let shared = Arc::clone(&clock) as SharedClock;
    let opened =
        super::open(Arc::new(io), Path::new(FOLDER), SpoolLimits::default(), metrics.clone(), shared)
            .unwrap();
    let (spool, thread) = super::start(opened).unwrap();
    let (live, mut out) = mpsc::channel(8);
    spool.connected(0, 0, live);
    let hangs = held.lock().unwrap();
    let definitions: Arc<DefinitionSet> = Arc::default();
    // Many more than the journal's queue holds, and none of them acknowledged in time.
    for sequence in 1..=400 {
        clock.advance(Duration::from_secs(1));
        let definitions = Arc::clone(&definitions);
        let draft = FrameDraft { definitions, readings: vec![7; 10], samples: 1, timestamp_ms: 1 };
        spool.append(draft, 1, Duration::ZERO);
        assert_eq!(out.try_recv().unwrap().sequence, sequence);
        spool.acknowledged(Lane::Live, sequence.saturating_sub(2));
    }
    spool.acknowledged(Lane::Live, 400);
    assert_eq!((spool.outstanding(), spool.in_flight()), (0, 0));
    assert!(LossReason::ALL.iter().all(|reason| metrics.lost(*reason) == 0));
    drop(hangs);
    drop(spool);
    thread.join().unwrap();
}

#[tokio::test]
async fn who_waits_for_something_to_tell_hears_of_a_frame_that_cannot_leave() {
    let metrics = OwnMetrics::register(&prometheus::Registry::new()).unwrap();
    let shared = ManualClock::new(1_000_000_000) as SharedClock;
    let io = Arc::new(MemoryIo::new());
    let opened = super::open(io, Path::new(FOLDER), SpoolLimits::default(), metrics, shared).unwrap();
    let (spool, thread) = super::start(opened).unwrap();
    let waits = tokio::spawn({
        let spool = spool.clone();
        async move { spool.until_outstanding().await }
    });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished(), "there is nothing to tell");
    let draft =
        || FrameDraft { definitions: Arc::default(), readings: vec![7; 10], samples: 1, timestamp_ms: 1 };
    spool.append(draft(), 1, Duration::ZERO);
    waits.await.unwrap();
    // What is there is heard of at once, also by the next.
    spool.until_outstanding().await;
    drop(spool);
    thread.join().unwrap();
}
