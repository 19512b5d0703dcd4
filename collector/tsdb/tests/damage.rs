//! A flipped byte or a missing end of any file: the right answer or a report, never a wrong value, and
//! everything that is not damaged is served.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

mod world;

use pharos_common::matcher::Matcher;
use pharos_common::storage_io::{MemoryIo, StorageIo};
use pharos_tsdb::{Database, TsdbError, Unlimited, Verdict};
use std::path::{Path, PathBuf};
use world::{START_MS, Truth, append, durable, open, stored};

/// A folder with two blocks, two checkpoints and a journal of several records.
fn folder() -> (MemoryIo, Truth) {
    let io = MemoryIo::new();
    let mut truth = Truth::new();
    let (database, _) = open(&io).unwrap();
    let mut rows = |rows: std::ops::Range<i64>| {
        for row in rows {
            append(&database, &mut truth, START_MS + row * 1_000).unwrap();
            durable(&database).unwrap();
        }
    };
    rows(0..1_100);
    database.flush().unwrap();
    rows(7_200..7_230);
    database.flush().unwrap();
    rows(7_230..7_360);
    database.checkpoint().unwrap();
    rows(7_360..7_365);
    database.checkpoint().unwrap();
    rows(7_365..7_370);
    database.close().unwrap();
    (io, truth)
}

fn kind(path: &Path) -> &str {
    path.extension().or(path.file_name()).and_then(|end| end.to_str()).unwrap_or_default()
}

/// What a reader finds: an error names the file, an answer has nothing wrong. Whether it was whole.
#[track_caller]
fn check(io: &MemoryIo, truth: &Truth, path: &Path, what: &str) -> bool {
    let (database, report) = match open(io) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(
                error.to_string().contains(path.file_name().unwrap().to_str().unwrap()),
                "{what}: {error}"
            );
            assert!(!matches!(error, TsdbError::Poisoned(_)));
            return false;
        }
    };
    if let Err(error) = database.select(&[], i64::MIN, i64::MAX, &Unlimited) {
        assert!(error.to_string().contains("block"), "{what}: {error}");
        // Another range, whose files are whole, is answered all the same.
        assert!(database.select(&[], START_MS + 7_300_000, i64::MAX, &Unlimited).is_ok(), "{what}");
        return false;
    }
    let stored = stored(&database);
    let wrong = stored.iter().find(|&(key, bits)| truth.get(key) != Some(bits));
    assert_eq!(wrong, None, "{what}");
    let whole = stored == *truth;
    assert!(
        whole
            || report.damaged_bytes > 0
            || !report.set_aside.is_empty()
            || database.stats().damaged_bytes > 0,
        "{what}: lost without a report"
    );
    whole
}

#[test]
fn a_flipped_byte_of_any_file_is_noticed_or_harmless() {
    let (io, truth) = folder();
    for path in io.paths() {
        let length = io.read(&path).unwrap().len();
        let step = length / 30 + 1;
        for place in (0..length).step_by(step).chain(length.saturating_sub(3)..length) {
            let io = io.after_power_cut();
            io.corrupt(&path, |bytes| bytes[place] ^= 1 << (place % 8));
            let whole = check(&io, &truth, &path, &format!("{} byte {place}", path.display()));
            // A checkpoint repeats what the journal has.
            assert!(whole || kind(&path) != "checkpoint");
        }
    }
}

#[test]
fn verification_names_the_file_that_is_damaged_and_changes_nothing() {
    let (io, _) = folder();
    let damaged = |io: &MemoryIo| -> Vec<PathBuf> {
        let before: Vec<Vec<u8>> = io.paths().iter().map(|path| io.read(path).unwrap()).collect();
        let checks = Database::verify(io, Path::new(world::FOLDER)).unwrap();
        assert_eq!(checks.len(), before.len(), "every file is looked at");
        assert_eq!(io.paths().iter().map(|path| io.read(path).unwrap()).collect::<Vec<_>>(), before);
        checks.into_iter().filter(|check| check.verdict != Verdict::Whole).map(|check| check.path).collect()
    };
    assert_eq!(damaged(&io), [] as [PathBuf; 0]);
    for path in io.paths() {
        let length = io.read(&path).unwrap().len();
        for place in (0..length).step_by(length / 12 + 1) {
            let io = io.after_power_cut();
            io.corrupt(&path, |bytes| bytes[place] ^= 0x40);
            assert_eq!(damaged(&io), std::slice::from_ref(&path), "byte {place}");
        }
    }
}

#[test]
fn a_missing_end_of_any_file_is_noticed_or_harmless() {
    let (io, truth) = folder();
    for path in io.paths() {
        let length = io.read(&path).unwrap().len();
        for cut in (0..length).step_by(length / 25 + 1) {
            let io = io.after_power_cut();
            io.corrupt(&path, |bytes| bytes.truncate(cut));
            // The journal's end may be missing: nobody can tell a record that a crash cut short from one
            // that was cut off later.
            if kind(&path) == "journal" {
                let stored = stored(&open(&io).unwrap().0);
                assert!(stored.iter().all(|(key, bits)| truth.get(key) == Some(bits)));
            } else {
                check(&io, &truth, &path, &format!("{} cut at {cut}", path.display()));
            }
        }
    }
}

#[test]
fn a_damaged_block_costs_its_own_samples_and_is_set_aside_or_named() {
    let (io, truth) = folder();
    let blocks: Vec<PathBuf> = io.paths().into_iter().filter(|path| kind(path) == "block").collect();
    for path in blocks {
        let io = io.after_power_cut();
        io.corrupt(&path, |bytes| {
            let end = bytes.len();
            bytes[end - 70] ^= 1;
        });
        // Its index is damaged, which nobody has read yet: whoever asks for its samples first, or keeps house, sets
        // it aside.
        let (database, _) = open(&io).unwrap();
        assert!(database.select(&[], START_MS + 7_300_000, i64::MAX, &Unlimited).is_ok());
        database.flush().unwrap();
        let aside: Vec<PathBuf> =
            io.paths().into_iter().filter(|path| path.starts_with("/tsdb/damaged")).collect();
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert!(database.stats().damaged_bytes > 0);
        for restarted in [false, true] {
            let database = if restarted { open(&io.after_power_cut()).unwrap().0 } else { database.clone() };
            let stored = stored(&database);
            assert!(stored.keys().any(|(_, _, at)| *at >= START_MS + 7_360_000));
            assert!(stored.iter().all(|(key, bits)| truth.get(key) == Some(bits)));
            assert_eq!(database.stats().blocks_missing, 0, "it is known where it is");
        }
    }
}

#[test]
fn without_the_list_of_blocks_a_damaged_index_is_found_when_the_folder_is_opened() {
    let (io, truth) = folder();
    io.remove_file(Path::new("/tsdb/manifest")).unwrap();
    let block = io.paths().into_iter().find(|path| kind(path) == "block").unwrap();
    io.corrupt(&block, |bytes| {
        let end = bytes.len();
        bytes[end - 70] ^= 1;
    });
    let (database, report) = open(&io).unwrap();
    assert_eq!(report.set_aside.len(), 1);
    assert!(stored(&database).iter().all(|(key, bits)| truth.get(key) == Some(bits)));
}

#[test]
fn an_opening_reads_no_index_that_the_list_of_blocks_speaks_of() {
    let (io, truth) = folder();
    let (database, _) = open(&io).unwrap();
    let misses = |database: &Database| database.stats().index_cache_misses;
    assert_eq!((database.stats().blocks, misses(&database)), (2, 0));
    assert_eq!(stored(&database), truth);
    assert_eq!(misses(&database), 2);
    assert!(database.stats().index_cache_bytes > 0);
    assert_eq!(stored(&database), truth);
    assert_eq!(misses(&database), 2, "they are kept");
    drop(database);
    // A file in the place of another is not what the list speaks of.
    let blocks: Vec<PathBuf> = io.paths().into_iter().filter(|path| kind(path) == "block").collect();
    let other = io.read(&blocks[1]).unwrap();
    io.corrupt(&blocks[0], |bytes| *bytes = other);
    assert_eq!(misses(&open(&io).unwrap().0), 1);
}

#[test]
fn a_read_that_meets_a_damaged_index_sets_the_block_aside_and_is_answered() {
    let (io, truth) = folder();
    let block = io.paths().into_iter().find(|path| kind(path) == "block").unwrap();
    // Before the footer, which says where it is: the index.
    let index = io.read(&block).unwrap().len() - 100;
    io.corrupt(&block, |bytes| bytes[index] ^= 1);
    let (database, _) = open(&io).unwrap();
    assert_eq!(database.stats().blocks, 2, "an opening reads no index");
    assert!(!database.series(&[], i64::MIN, i64::MAX).unwrap().is_empty());
    assert_eq!(database.stats().blocks, 1);
    assert!(database.stats().damaged_bytes > 0);
    assert!(io.paths().iter().any(|path| path.parent().unwrap().ends_with("damaged")), "{:?}", io.paths());
    let left = stored(&database);
    assert!(!left.is_empty() && left.len() < truth.len());
    assert!(left.iter().all(|(key, value)| truth.get(key) == Some(value)));
}

#[test]
fn a_version_that_is_not_ours_is_refused_and_one_that_is_damaged_is_told() {
    let (io, _) = folder();
    let path = Path::new("/tsdb/VERSION");
    let refused = |text: &[u8]| {
        let io = io.after_power_cut();
        io.corrupt(path, |bytes| *bytes = text.to_vec());
        open(&io).unwrap_err()
    };
    let newer = refused(b"3\n");
    assert!(matches!(newer, TsdbError::NewerFormat { version: 3, .. }));
    assert!(
        newer.to_string().contains("storage format 3 is newer than this program knows (2); upgrade Pharos")
    );
    for damaged in [b"".as_slice(), b"\n", b"1", b"1 \n", b"01\n", b"x", b"\xff", b"-1\n"] {
        let error = refused(damaged).to_string();
        assert!(error.contains("VERSION") && error.contains("remove it"), "{error}");
    }
}

#[test]
fn a_block_that_does_not_read_back_as_written_replaces_nothing() {
    let io = MemoryIo::new();
    let mut truth = Truth::new();
    let (database, _) = open(&io).unwrap();
    let blocks = || io.paths().into_iter().filter(|path| kind(path) == "block").count();
    for (round, base) in [0, 7_200].into_iter().enumerate() {
        for row in 0..40 {
            append(&database, &mut truth, START_MS + (base + row) * 1_000).unwrap();
        }
        io.flip_writes(Some(".block.tmp"));
        database.flush().unwrap_err();
        assert_eq!(blocks(), round, "what cannot be read is not kept");
        assert_eq!(stored(&database), truth, "the head has it still");
        durable(&database).unwrap();
        assert_eq!(stored(&open(&io.after_power_cut()).unwrap().0), truth, "and the journal");
        io.flip_writes(None);
        database.flush().unwrap();
        assert_eq!(blocks(), round + 1);
        assert_eq!(stored(&database), truth);
    }
    // Late rows make a second block of the first window; merging them fails, and loses neither.
    append(&database, &mut truth, START_MS + 500_000).unwrap();
    io.flip_writes(Some("00000006.block.tmp"));
    database.flush().unwrap_err();
    io.flip_writes(None);
    database.flush().unwrap();
    assert_eq!(stored(&database), truth);
    assert_eq!(stored(&open(&io.after_power_cut()).unwrap().0), truth);
}

#[test]
fn damage_to_one_list_of_deletions_loses_none_and_damage_to_both_is_counted() {
    let (io, mut truth) = folder();
    let (database, _) = open(&io).unwrap();
    database.delete_series(&[Matcher::equal("group", "1")], i64::MIN, i64::MAX).unwrap();
    truth.retain(|(group, ..), _| *group != 1);
    assert_eq!(stored(&database), truth);
    drop(database);
    let lists = ["/tsdb/tombstones", "/tsdb/tombstones.copy"].map(Path::new);
    for path in lists {
        let io = io.after_power_cut();
        io.corrupt(path, |bytes| bytes[9] ^= 1);
        // The second opening finds both as they should be, and still tells that a file was damaged.
        for set_aside in [1, 0] {
            let (database, report) = open(&io).unwrap();
            assert_eq!(report.set_aside.len(), set_aside);
            assert!(database.stats().damaged_bytes > 0);
            assert_eq!(stored(&database), truth);
        }
        let again = io.after_power_cut();
        again.remove_file(path).unwrap();
        assert_eq!(stored(&open(&again).unwrap().0), truth);
    }
    lists.iter().for_each(|path| io.corrupt(path, |bytes| bytes[9] ^= 1));
    let (database, report) = open(&io).unwrap();
    assert_eq!(report.set_aside.len(), 2);
    assert!(database.stats().damaged_bytes > 0 && stored(&database).len() > truth.len());
}

#[test]
fn a_block_that_somebody_took_away_is_told_until_it_is_back_or_forgotten() {
    let (io, truth) = folder();
    let block = io.paths().into_iter().find(|path| kind(path) == "block").unwrap();
    let name = block.file_name().unwrap().to_str().unwrap().to_owned();
    let bytes = io.read(&block).unwrap();
    let missing = |io: &MemoryIo| {
        let checks = Database::verify(io, Path::new(world::FOLDER)).unwrap();
        let missing = checks.into_iter().filter(|check| check.verdict == Verdict::Missing);
        missing.map(|check| check.path).collect::<Vec<_>>()
    };
    assert_eq!(missing(&io), [] as [PathBuf; 0]);
    io.remove_file(&block).unwrap();
    assert_eq!(missing(&io), std::slice::from_ref(&block));
    for _ in 0..2 {
        let (database, report) = open(&io).unwrap();
        assert_eq!(report.missing_blocks, std::slice::from_ref(&name));
        assert_eq!(database.stats().blocks_missing, 1);
        assert!(stored(&database).len() < truth.len());
        // It is told also after the list was written anew.
        database.flush().unwrap();
        assert_eq!(database.stats().blocks_missing, 1);
    }
    let mut file = io.create(&block).unwrap();
    file.write_all(&bytes).unwrap();
    drop(file);
    let (database, report) = open(&io).unwrap();
    assert_eq!((report.missing_blocks.len(), database.stats().blocks_missing), (0, 0));
    assert_eq!(stored(&database), truth);
}
