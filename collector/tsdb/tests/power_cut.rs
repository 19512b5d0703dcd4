//! The power goes between any two file operations: whatever was acknowledged is there after it, nothing is
//! wrong, and the folder can be used.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

mod world;

use pharos_common::matcher::Matcher;
use pharos_common::storage_io::MemoryIo;
use pharos_tsdb::{Database, TsdbError};
use std::io::ErrorKind;
use world::{START_MS, Truth, append, durable, open, stored};

/// More file operations than the work below takes.
const OPERATIONS_MAX: u64 = 1_000;

/// How often the sectors that are left of a write are drawn anew.
const SECTOR_SEEDS: u64 = 2;

#[derive(Default)]
struct Told {
    /// What was appended, acknowledged or not.
    appended: Truth,
    /// What was acknowledged.
    acknowledged: Truth,
}

/// Deletes a few samples of one series. Until that is acknowledged they may be there or not.
fn delete(database: &Database, told: &mut Told) -> Result<(), TsdbError> {
    let (start_ms, end_ms) = (START_MS + 10_000, START_MS + 40_000);
    let stays = |&(group, column, at): &(usize, usize, i64), _: &mut u64| {
        (group, column) != (1, 3) || !(start_ms..=end_ms).contains(&at)
    };
    told.acknowledged.retain(stays);
    let matchers = [Matcher::equal("group", "1"), Matcher::equal("column", "3")];
    database.delete_series(&matchers, start_ms, end_ms)?;
    told.appended.retain(stays);
    Ok(())
}

/// Everything that the engine does with files: appends, checkpoints, cuts, merges, deletions, restarts.
fn work(io: &MemoryIo, told: &mut Told) -> Result<(), TsdbError> {
    let rows = |database: &Database, told: &mut Told, from: i64, to: i64| -> Result<(), TsdbError> {
        for row in from..to {
            append(database, &mut told.appended, START_MS + row * 1_000)?;
        }
        durable(database)?;
        told.acknowledged = told.appended.clone();
        Ok(())
    };
    let (database, _) = open(io)?;
    rows(&database, told, 0, 125)?;
    database.checkpoint()?;
    rows(&database, told, 125, 130)?;
    rows(&database, told, -3, 0)?;
    database.checkpoint()?;
    database.flush()?;
    rows(&database, told, 130, 140)?;
    rows(&database, told, -6, -3)?;
    database.checkpoint()?;
    drop(database);
    let (database, _) = open(io)?;
    rows(&database, told, 140, 150)?;
    delete(&database, told)?;
    database.snapshot("one")?;
    rows(&database, told, 150, 152)?;
    database.checkpoint()?;
    database.flush()?;
    // Completes the window, so its blocks are merged.
    rows(&database, told, 7_300, 7_301)?;
    database.flush()?;
    database.clean_tombstones()?;
    rows(&database, told, 7_301, 7_302)?;
    database.close()
}

#[track_caller]
fn check(io: &MemoryIo, told: &Told, cut: &str) {
    let (database, report) = open(io).unwrap_or_else(|error| panic!("{cut}: {error}"));
    assert_eq!((report.damaged_bytes, report.rows_lost), (0, 0), "{cut}");
    let found = stored(&database);
    let lost = told.acknowledged.iter().find(|&(key, _)| !found.contains_key(key));
    assert_eq!(lost, None, "{cut}: acknowledged, and gone");
    let wrong = found.iter().find(|&(key, bits)| told.appended.get(key) != Some(bits));
    assert_eq!(wrong, None, "{cut}: never appended");
    // The folder takes more, and has it after everything was written anew.
    let mut truth = found;
    append(&database, &mut truth, START_MS + 8_000_000).unwrap();
    database.checkpoint().unwrap();
    database.flush().unwrap();
    drop(database);
    assert_eq!(stored(&open(io).unwrap().0), truth, "{cut}");
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    for operation in 0..OPERATIONS_MAX {
        let io = MemoryIo::new();
        io.fail_from(Some(operation), ErrorKind::Other);
        let mut told = Told::default();
        let finished = work(&io, &mut told).is_ok();
        check(&io.after_power_cut(), &told, &format!("cut at {operation}"));
        check(&io.after_torn_power_cut(operation), &told, &format!("torn at {operation}"));
        for seed in 0..SECTOR_SEEDS {
            let left = io.after_sector_power_cut(operation * SECTOR_SEEDS + seed);
            check(&left, &told, &format!("sectors at {operation}, {seed}"));
        }
        if finished {
            assert!(operation > 100, "the work has more than {operation} operations");
            return;
        }
    }
    panic!("the work takes more than {OPERATIONS_MAX} operations");
}

#[test]
fn nothing_is_lost_when_the_disk_refuses_for_a_while() {
    for operation in (0..OPERATIONS_MAX).step_by(7) {
        let io = MemoryIo::new();
        io.fail_from(Some(operation), ErrorKind::StorageFull);
        let mut told = Told::default();
        let finished = work(&io, &mut told).is_ok();
        io.fail_from(None, ErrorKind::StorageFull);
        check(&io, &told, &format!("full from {operation}"));
        if finished {
            return;
        }
    }
}

#[test]
fn a_failed_sync_is_seen_by_everybody_and_reads_go_on() {
    let io = MemoryIo::new();
    let mut truth = Truth::new();
    let (database, _) = open(&io).unwrap();
    append(&database, &mut truth, START_MS).unwrap();
    durable(&database).unwrap();
    assert_eq!(database.poisoned(), None);
    // The write of the next record goes through, its sync does not.
    io.fail_from(Some(io.operations() + 1), ErrorKind::Other);
    let mut later = truth.clone();
    // Its second group may come too late already.
    let _ = append(&database, &mut later, START_MS + 1_000);
    assert!(matches!(durable(&database), Err(TsdbError::Poisoned(_))));
    io.fail_from(None, ErrorKind::Other);
    assert!(database.poisoned().is_some());
    let refused = append(&database, &mut later.clone(), START_MS + 2_000);
    assert!(matches!(refused, Err(TsdbError::Poisoned(_))));
    assert!(truth.keys().all(|key| stored(&database).contains_key(key)));
    assert!(database.flush().is_err() && database.checkpoint().is_err());
    drop(database);
    check(&io.after_power_cut(), &Told { appended: later, acknowledged: truth }, "after a failed sync");
}
