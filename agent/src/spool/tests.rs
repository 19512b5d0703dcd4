//! The spool against a collector that keeps to the protocol: nothing lost, nothing stored twice, whatever
//! breaks in between.

use super::*;
use pharos_common::clock::ManualClock;
use pharos_common::storage_io::MemoryIo;
use proptest::prelude::*;
use std::collections::BTreeSet;

const FOLDER: &str = "/agent";

struct Rig {
    io: MemoryIo,
    clock: Arc<ManualClock>,
    metrics: OwnMetrics,
    limits: SpoolLimits,
    spool: Spool,
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

fn open(io: &MemoryIo, limits: SpoolLimits, metrics: &OwnMetrics, clock: &Arc<ManualClock>) -> Spool {
    let clock: SharedClock = Arc::clone(clock) as SharedClock;
    Spool::open(Arc::new(io.clone()), Path::new(FOLDER), limits, metrics.clone(), clock).unwrap().spool
}

impl Rig {
    fn new(limits: SpoolLimits) -> Self {
        let (io, clock) = (MemoryIo::new(), ManualClock::new(1_000_000_000));
        let metrics = OwnMetrics::register(&prometheus::Registry::new()).unwrap();
        let spool = open(&io, limits, &metrics, &clock);
        let (definitions, appended, collector) = Default::default();
        Rig { io, clock, metrics, limits, spool, definitions, appended, collector, live: None }
    }

    fn append(&mut self, bytes: usize) {
        self.appended.insert(self.spool.next_sequence);
        let timestamp_ms = pharos_common::clock::Clock::now_ms(&*self.clock);
        let definitions = Arc::clone(&self.definitions);
        self.spool.append(
            FrameDraft { definitions, readings: vec![7; bytes], samples: 1, timestamp_ms },
            1,
            Lane::Live,
        );
    }

    fn connect(&mut self) {
        let (live, out) = mpsc::channel(4);
        self.spool.connected(self.collector.live_durable, self.collector.backfill_durable, live);
        self.live = Some(out);
    }

    fn disconnect(&mut self) {
        self.live = None;
        self.spool.disconnected();
    }

    /// The collector takes up to `count` live frames; the acknowledgement arrives or is lost.
    fn take_live(&mut self, count: usize, acknowledge: bool) {
        let Some(live) = &mut self.live else { return };
        for _ in 0..count {
            let Ok(frame) = live.try_recv() else { break };
            self.collector.store(Lane::Live, frame.sequence);
        }
        if acknowledge {
            self.spool.acknowledged(Lane::Live, self.collector.live_durable);
        }
    }

    /// The collector takes up to `count` of the next backfilled frames; the rest is lost with the
    /// connection.
    fn take_backfill(&mut self, count: usize, acknowledge: bool) {
        let batch = self.spool.next_backfill().unwrap();
        let all = batch.len() <= count;
        for frame in batch.into_iter().take(count) {
            self.collector.store(Lane::Backfill, frame.sequence);
        }
        if acknowledge {
            self.spool.acknowledged(Lane::Backfill, self.collector.backfill_durable);
        }
        if !all {
            self.disconnect();
        }
    }

    fn restart(&mut self) {
        self.live = None;
        self.spool = open(&self.io, self.limits, &self.metrics, &self.clock);
    }

    fn drain(&mut self) {
        self.connect();
        for _ in 0..1_000 {
            self.take_live(usize::MAX, true);
            self.take_backfill(usize::MAX, true);
            if self.spool.outstanding() == 0 {
                return;
            }
        }
        panic!("{} frames never go out", self.spool.outstanding());
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
    assert!(rig.spool.journal.total_bytes() < 25_000, "{}", rig.spool.journal.total_bytes());
    assert_eq!(rig.metrics.lost(LossReason::JournalFull), 0);
    assert_eq!(rig.collector.stored.len(), 200);
}

#[test]
fn a_full_journal_drops_the_oldest_and_counts_them() {
    let mut rig = Rig::new(SpoolLimits { bytes_max: 40_000, ..SpoolLimits::default() });
    for _ in 0..200 {
        rig.append(1_000);
        assert!(rig.spool.journal.total_bytes() <= 40_000);
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
    rig.spool.sync();
    for _ in 0..50 {
        rig.append(100);
    }
    let highest = *rig.appended.last().unwrap();
    let stream = rig.spool.stream_id();
    rig.io = rig.io.after_power_cut();
    rig.restart();
    assert_eq!(rig.spool.stream_id(), stream);
    assert!(rig.spool.next_sequence > highest);
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
    let clock: SharedClock = Arc::clone(&rig.clock) as SharedClock;
    let opened =
        Spool::open(Arc::new(rig.io.clone()), Path::new(FOLDER), rig.limits, rig.metrics.clone(), clock)
            .unwrap();
    assert_eq!(opened.definitions, [Arc::clone(&definition)]);
    assert!(opened.next_group > definition.group());
    rig.spool = opened.spool;
    // What is backfilled carries the definitions that held then.
    rig.connect();
    let batch = rig.spool.next_backfill().unwrap();
    assert_eq!(batch[0].definitions.definitions, [definition]);
}
