//! Checkpoints make a restart short and change nothing else, whatever becomes of their files.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod world;

use pharos_common::storage_io::{MemoryIo, StorageIo};
use pharos_tsdb::Database;
use std::path::PathBuf;
use world::{START_MS, Truth, append, durable, open, stored};

/// Rows `from..to`, a second apart, each in a record of its own.
fn rows(database: &Database, truth: &mut Truth, rows: std::ops::Range<i64>) {
    for row in rows {
        append(database, truth, START_MS + row * 1_000).unwrap();
        durable(database).unwrap();
    }
}

/// A folder with a chain of three checkpoints, of which the second has late rows, and rows behind them.
fn chain() -> (MemoryIo, Truth) {
    let io = MemoryIo::new();
    let mut truth = Truth::new();
    let (database, _) = open(&io).unwrap();
    rows(&database, &mut truth, 0..130);
    database.checkpoint().unwrap();
    rows(&database, &mut truth, 130..200);
    rows(&database, &mut truth, -20..0);
    database.checkpoint().unwrap();
    rows(&database, &mut truth, 200..300);
    database.checkpoint().unwrap();
    rows(&database, &mut truth, 300..310);
    database.close().unwrap();
    (io, truth)
}

fn checkpoints(io: &MemoryIo) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|end| end == "checkpoint");
    io.paths().into_iter().filter(|path| is_one(path) && !path.starts_with("/tsdb/damaged")).collect()
}

#[test]
fn what_the_files_take_is_known() {
    let (io, _) = chain();
    let on_disk = || checkpoints(&io).iter().map(|path| io.read(path).unwrap().len() as u64).sum::<u64>();
    let (database, _) = open(&io).unwrap();
    assert!(on_disk() > 0);
    assert_eq!(database.stats().checkpoint_bytes, on_disk());
    append(&database, &mut Truth::new(), START_MS + 400_000).unwrap();
    database.checkpoint().unwrap();
    assert_eq!(database.stats().checkpoint_bytes, on_disk());
    database.flush().unwrap();
    assert_eq!(database.stats().checkpoint_bytes, on_disk());
}

#[test]
fn a_restart_replays_only_what_came_behind_the_newest_checkpoint() {
    let (io, truth) = chain();
    let (database, report) = open(&io).unwrap();
    let behind = truth.keys().filter(|(_, _, at)| *at >= START_MS + 300_000).count() as u64;
    assert_eq!((report.replayed_samples, report.checkpoint_samples), (behind, truth.len() as u64 - behind));
    assert_eq!(stored(&database), truth);
    assert_eq!(database.stats().head_samples, truth.len() as u64);
}

#[test]
fn a_chain_goes_on_over_restarts_and_cuts() {
    let (io, mut truth) = chain();
    for run in 0..3i64 {
        let (database, _) = open(&io).unwrap();
        assert_eq!(stored(&database), truth);
        rows(&database, &mut truth, 310 + run * 60..370 + run * 60);
        if run == 1 {
            database.flush().unwrap();
            rows(&database, &mut truth, -40 - run..-30);
        }
        database.checkpoint().unwrap();
        rows(&database, &mut truth, -60 - run..-59);
        assert_eq!(stored(&database), truth);
    }
    let (database, report) = open(&io).unwrap();
    assert_eq!(stored(&database), truth);
    assert!(report.replayed_samples < 20);
}

#[test]
fn files_whose_rows_are_in_blocks_go() {
    let (io, truth) = chain();
    assert_eq!(checkpoints(&io).len(), 3);
    let (database, _) = open(&io).unwrap();
    database.flush().unwrap();
    assert_eq!(checkpoints(&io).len(), 0);
    assert_eq!(stored(&database), truth);
}

#[test]
fn a_damaged_or_missing_file_costs_time_only() {
    let (io, truth) = chain();
    for (number, path) in checkpoints(&io).iter().enumerate() {
        let length = io.read(path).unwrap().len();
        let places = (0..length).step_by(length / 23 + 1).chain([length - 1]);
        let changes = places.map(Some).chain([None]);
        for change in changes {
            let io = io.after_power_cut();
            match change {
                Some(place) => io.corrupt(path, |bytes| bytes[place] ^= 0x20),
                None => io.remove_file(path).unwrap(),
            }
            let (database, report) = open(&io).unwrap();
            assert_eq!(stored(&database), truth, "file {number}, {change:?}");
            assert_eq!(report.damaged_bytes, change.map_or(0, |_| length as u64));
            // What cannot be used is gone, and the chain grows again from what can.
            assert!(checkpoints(&io).len() <= number);
            database.checkpoint().unwrap();
            drop(database);
            let (database, report) = open(&io).unwrap();
            assert_eq!((report.damaged_bytes, report.replayed_samples), (0, 0));
            assert_eq!(stored(&database), truth);
        }
    }
}

#[test]
fn every_truncation_of_the_newest_file_is_noticed() {
    let (io, truth) = chain();
    let path = checkpoints(&io).pop().unwrap();
    let length = io.read(&path).unwrap().len();
    for cut in (0..length).step_by(length / 40 + 1) {
        let io = io.after_power_cut();
        io.corrupt(&path, |bytes| bytes.truncate(cut));
        let (database, report) = open(&io).unwrap();
        assert_eq!(report.damaged_bytes, cut as u64);
        assert_eq!(stored(&database), truth);
    }
}

#[test]
fn what_is_appended_after_the_journal_was_removed_is_found_again() {
    let (io, mut truth) = chain();
    for path in io.paths().into_iter().filter(|path| path.starts_with("/tsdb/journal")) {
        io.remove_file(&path).unwrap();
    }
    truth.retain(|(_, _, at), _| *at < START_MS + 300_000);
    let (database, _) = open(&io).unwrap();
    assert_eq!(stored(&database), truth);
    rows(&database, &mut truth, 400..410);
    drop(database);
    assert_eq!(stored(&open(&io).unwrap().0), truth);
}

#[test]
fn damage_in_the_journal_behind_a_checkpoint_costs_only_what_it_hits() {
    let (io, truth) = chain();
    let journal = io.paths().into_iter().find(|path| path.starts_with("/tsdb/journal")).unwrap();
    let length = io.read(&journal).unwrap().len();
    for place in (length - 900..length).step_by(19) {
        let io = io.after_power_cut();
        io.corrupt(&journal, |bytes| bytes[place] ^= 1);
        let (database, _) = open(&io).unwrap();
        let stored = stored(&database);
        assert!(stored.iter().all(|(key, bits)| truth.get(key) == Some(bits)), "{place}");
        assert!(truth.iter().all(|(key, _)| key.2 >= START_MS + 300_000 || stored.contains_key(key)));
    }
}
