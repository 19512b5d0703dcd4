//! When the head is cut, by a clock that is moved by hand.

use super::*;
use crate::database::{Database, Options};
use crate::row::{AppendBatch, Row};
use pharos_common::clock::ManualClock;
use pharos_common::labels::Labels;
use pharos_common::storage_io::MemoryIo;
use std::path::Path;

const NOW_MS: i64 = 20_000 * BLOCK_SPAN_MS;
const STEP_MS: i64 = 10_000;
const WIDTH: usize = 4;

struct Rig {
    database: Database,
    clock: Arc<ManualClock>,
}

impl Rig {
    fn new(head_bytes_max: usize) -> Rig {
        let options = Options { housekeeping: false, head_bytes_max, ..Options::default() };
        let clock = ManualClock::new(NOW_MS);
        let io = Arc::new(MemoryIo::new());
        let (database, _) = Database::open(io, Path::new("/tsdb"), options, clock.clone()).unwrap();
        Rig { database, clock }
    }

    /// Rows of a node's group, in steps.
    fn append(&self, node: &str, from_ms: i64, to_ms: i64) {
        let labels = |column: usize| Labels::from_pairs([("node", node), ("column", &column.to_string())]);
        let columns: Vec<Labels> = (0..WIDTH).map(labels).collect();
        for timestamp_ms in (from_ms..to_ms).step_by(STEP_MS as usize) {
            let group = self.database.define_group(&columns).unwrap();
            // Nothing that compresses.
            let values = [0, 1, 2, 3].map(|column| ((timestamp_ms + column) as f64).sqrt());
            let rows = [Row { group, timestamp_ms, values: &values }];
            self.database.append(&AppendBatch { rows: &rows, mark: None }).unwrap();
        }
    }

    /// What the engine does by itself every second.
    fn tidy(&self) {
        self.database.inner.tidy(|| true).unwrap();
    }

    fn second(&self) {
        self.clock.advance(Duration::from_secs(1));
        self.tidy();
    }
}

#[test]
fn past_data_that_comes_in_order_is_not_late_though_others_are_of_today() {
    let rig = Rig::new(1 << 30);
    let begin_ms = NOW_MS - 10 * BLOCK_SPAN_MS;
    rig.append("today", NOW_MS, NOW_MS + 1);
    for part in 0..48 {
        let from_ms = begin_ms + part * BLOCK_SPAN_MS / 12;
        for node in ["a", "b"] {
            rig.append(node, from_ms, from_ms + BLOCK_SPAN_MS / 12);
            rig.second();
        }
    }
    let stats = rig.database.stats();
    assert_eq!(stats.samples_late, 0);
    assert!(stats.blocks >= 2, "windows that are full are cut: {stats:?}");
    assert!(
        stats.head_min_ms.is_some_and(|oldest_ms| oldest_ms >= begin_ms + 2 * BLOCK_SPAN_MS),
        "{stats:?}"
    );
}

#[test]
fn who_stopped_does_not_keep_a_window_open() {
    let rig = Rig::new(1 << 30);
    rig.append("gone", NOW_MS - 4 * BLOCK_SPAN_MS, NOW_MS - 4 * BLOCK_SPAN_MS + 1);
    rig.append("today", NOW_MS, NOW_MS + 1);
    rig.tidy();
    assert_eq!(rig.database.stats().blocks, 0);
    rig.clock.advance(Duration::from_millis(WRITTEN_WITHIN_MS as u64));
    rig.tidy();
    assert_eq!(rig.database.stats().blocks, 1);
}

#[test]
fn a_clock_that_is_behind_keeps_no_window_open_for_ever() {
    let rig = Rig::new(1 << 30);
    let behind_ms = NOW_MS - 4 * BLOCK_SPAN_MS;
    for second in 0..=WAIT_FOR_WINDOW_MS / 1_000 {
        assert_eq!(rig.database.stats().blocks, 0, "{second}");
        for (node, from_ms) in [("behind", behind_ms), ("today", NOW_MS)] {
            let at_ms = from_ms + second * 1_000;
            rig.append(node, at_ms, at_ms + 1);
        }
        rig.second();
    }
    assert_eq!(rig.database.stats().blocks, 1);
}

#[test]
fn a_head_that_is_full_gives_back_what_makes_nobody_late() {
    let rig = Rig::new(16 << 10);
    let begin_ms = NOW_MS - 4 * BLOCK_SPAN_MS;
    rig.append("today", NOW_MS, NOW_MS + 1);
    let mut from_ms = begin_ms;
    while rig.database.stats().blocks == 0 {
        rig.append("past", from_ms, from_ms + 100 * STEP_MS);
        from_ms += 100 * STEP_MS;
        rig.second();
        assert!(from_ms < begin_ms + BLOCK_SPAN_MS, "{:?}", rig.database.stats());
    }
    rig.append("past", from_ms, from_ms + 10 * STEP_MS);
    assert_eq!(rig.database.stats().samples_late, 0);
}

#[test]
fn there_is_no_room_while_too_much_is_late_and_there_is_again_behind_the_cut() {
    let rig = Rig::new(1 << 20);
    let inner = &rig.database.inner;
    rig.append("a", NOW_MS, NOW_MS + 1);
    let mut from_ms = NOW_MS - 50 * BLOCK_SPAN_MS;
    while inner.has_room() {
        assert!(inner.head.late_len() <= 2 * inner.late_max());
        rig.append("a", from_ms, from_ms + 100 * STEP_MS);
        from_ms += 100 * STEP_MS;
    }
    rig.tidy();
    assert!(inner.has_room());
    assert_eq!(inner.head.late_len(), 0);
}
