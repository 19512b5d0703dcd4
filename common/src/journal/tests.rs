use super::*;
use crate::storage_io::MemoryIo;
use proptest::prelude::*;
use std::io::ErrorKind;

const FOLDER: &str = "/journal";

fn open(io: &MemoryIo) -> (Journal, Recovery, Vec<Vec<u8>>) {
    let mut records = Vec::new();
    let (journal, recovery) = Journal::open(Arc::new(io.clone()), Path::new(FOLDER), |_, payload| {
        records.push(payload.to_vec());
        Ok(())
    })
    .unwrap();
    (journal, recovery, records)
}

fn segment(number: u64) -> PathBuf {
    segment_path(Path::new(FOLDER), number)
}

#[test]
fn records_come_back_in_order_across_segments() {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    journal.append(b"one").unwrap();
    journal.rotate().unwrap();
    journal.append(b"").unwrap();
    journal.append(b"three").unwrap();
    let (_, recovery, records) = open(&io);
    assert_eq!(records, [b"one".to_vec(), vec![], b"three".to_vec()]);
    assert_eq!(recovery, Recovery { records: 3, ..Recovery::default() });
}

#[test]
fn zeros_behind_the_last_record_are_no_damage() {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    journal.append(b"one").unwrap();
    journal.rotate().unwrap();
    journal.append(b"two").unwrap();
    for number in [1, 2] {
        io.corrupt(&segment(number), |bytes| bytes.resize(bytes.len() + 500, 0));
        let bytes = io.read(&segment(number)).unwrap();
        let check = check_segment(&segment(number), &bytes).unwrap();
        assert_eq!(check, Some(SegmentCheck { records: 1, ..SegmentCheck::default() }));
    }
    let (mut journal, recovery, _) = open(&io);
    assert_eq!(recovery, Recovery { records: 2, ..Recovery::default() });
    journal.write_directly().unwrap();
    journal.append(b"three").unwrap();
    assert_eq!(open(&io).2, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
}

#[test]
fn a_journal_on_a_disk_is_written_directly() {
    let folder = tempfile::tempdir().unwrap();
    let records = |folder: &Path| {
        let mut records = Vec::new();
        let io = Arc::new(crate::storage_io::DiskIo);
        let visit = |_: Position, payload: &[u8]| {
            records.push(payload.to_vec());
            Ok(())
        };
        let (journal, recovery) = Journal::open(io, folder, visit).unwrap();
        assert_eq!((recovery.torn_bytes, recovery.damaged_bytes), (0, 0));
        (journal, records)
    };
    let want: Vec<Vec<u8>> = (0..40).map(|number| vec![number as u8; number * 37]).collect();
    let (mut journal, _) = records(folder.path());
    journal.write_directly().unwrap();
    for (number, record) in want.iter().enumerate() {
        journal.append(record).unwrap();
        journal.sync().unwrap();
        if number == 20 {
            journal.rotate().unwrap();
        }
    }
    // As a kill leaves it: the zeros stay.
    let killed = folder.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    for name in ["00000000000000000001.journal", "00000000000000000002.journal"] {
        std::fs::copy(folder.path().join(name), killed.join(name)).unwrap();
    }
    assert_eq!(records(&killed).1, want);
    drop(journal);
    assert_eq!(records(folder.path()).1, want);
}

#[test]
fn what_was_synced_survives_a_power_cut_at_any_operation() {
    let run = |fail_at: Option<u64>| {
        let io = MemoryIo::new();
        io.fail_from(fail_at, ErrorKind::Other);
        let mut promised = Vec::new();
        let mut work = || -> Result<(), JournalError> {
            let (mut journal, _) = Journal::open(Arc::new(io.clone()), Path::new(FOLDER), |_, _| Ok(()))?;
            for number in 0..6u8 {
                journal.append(&[number; 5])?;
                journal.sync()?;
                promised.push(vec![number; 5]);
                if number % 2 == 1 {
                    journal.rotate()?;
                }
            }
            Ok(())
        };
        let finished = work().is_ok();
        (io, promised, finished)
    };
    for operation in 0.. {
        let (io, promised, finished) = run(Some(operation));
        let (_, recovery, records) = open(&io.after_power_cut());
        assert!(records.starts_with(&promised), "cut at {operation}: {records:?}");
        assert_eq!(recovery.damaged_bytes, 0);
        if finished {
            break;
        }
    }
}

#[test]
fn every_truncation_keeps_the_whole_records_before_it() {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    let ends: Vec<u64> = [b"first".as_slice(), b"second", b"third"]
        .iter()
        .map(|payload| journal.append(payload).map(|_| journal.end().offset).unwrap())
        .collect();
    journal.sync().unwrap();
    for length in 0..=*ends.last().unwrap() {
        let copy = io.after_power_cut();
        copy.corrupt(&segment(1), |bytes| bytes.truncate(length as usize));
        let (mut journal, recovery, records) = open(&copy);
        assert_eq!(records.len(), ends.iter().filter(|&&end| end <= length).count(), "{length}");
        assert_eq!(recovery.damaged_bytes, 0);
        journal.append(b"goes on").unwrap();
        assert_eq!(open(&copy).2.last().unwrap(), b"goes on");
    }
}

#[test]
fn records_that_their_owner_knows_are_kept_unread() {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    journal.append(b"one").unwrap();
    journal.rotate().unwrap();
    journal.append(b"two").unwrap();
    let known = journal.end();
    let six = journal.append(b"six").unwrap();
    assert_eq!(known, six);
    journal.rotate().unwrap();
    journal.append(b"seven").unwrap();
    io.corrupt(&segment(1), |bytes| bytes.fill(0));
    io.corrupt(&segment(2), |bytes| bytes[..known.offset as usize].fill(0));
    let read = |first| {
        let mut records = Vec::new();
        let visit = |position, payload: &[u8]| {
            records.push((position, payload.to_vec()));
            Ok(())
        };
        let (journal, recovery) =
            Journal::open_from(Arc::new(io.clone()), Path::new(FOLDER), first, visit).unwrap();
        assert_eq!((recovery.torn_bytes, recovery.damaged_bytes), (0, 0));
        (journal, records)
    };
    let (mut journal, records) = read(known);
    let seven = Position::first_of(3);
    assert_eq!(records, [(six, b"six".to_vec()), (seven, b"seven".to_vec())]);
    let after = journal.append(b"after").unwrap();
    assert_eq!(read(seven).1, [(seven, b"seven".to_vec()), (after, b"after".to_vec())]);
    assert_eq!(read(after).1, [(after, b"after".to_vec())]);
    assert_eq!(journal.oldest_segment(), 1);
    journal.remove_before(3).unwrap();
    assert_eq!(journal.oldest_segment(), 3);
    journal.advance_to(7).unwrap();
    assert_eq!(journal.current_segment(), 7);
}

#[test]
fn a_damaged_middle_is_set_aside_and_the_rest_served() {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    journal.append(b"before").unwrap();
    let hit = journal.append(b"damaged").unwrap();
    journal.append(b"after").unwrap();
    io.corrupt(&segment(1), |bytes| bytes[hit.offset as usize + 12] ^= 1);
    let (_, recovery, records) = open(&io);
    assert_eq!(records, [b"before".to_vec(), b"after".to_vec()]);
    assert_eq!(recovery.damaged_bytes, record_bytes(7));
    assert_eq!(recovery.set_aside.len(), 1);
    assert!(io.read(&recovery.set_aside[0]).is_ok());
}

#[test]
fn a_damaged_last_record_is_set_aside_and_not_taken_for_a_torn_one() {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    journal.append(b"before").unwrap();
    journal.append(b"acknowledged").unwrap();
    io.corrupt(&segment(1), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let damaged = io.read(&segment(1)).unwrap();
    let (mut journal, recovery, records) = open(&io);
    assert_eq!(records, [b"before".to_vec()]);
    assert_eq!((recovery.torn_bytes, recovery.damaged_bytes), (0, record_bytes(12)));
    assert_eq!(io.read(&recovery.set_aside[0]).unwrap(), damaged);
    journal.append(b"after").unwrap();
    assert_eq!(open(&io).2, [b"before".to_vec(), b"after".to_vec()]);
}

/// A journal of one synced record whose second record's sectors, all of them written, are to be lost.
fn two_records(first: usize, second: &[u8]) -> (MemoryIo, u64) {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    journal.append(&vec![7; first]).unwrap();
    journal.sync().unwrap();
    let end = journal.end().offset;
    journal.append(second).unwrap();
    (io, end)
}

const SECTOR: usize = 512;

#[test]
fn a_record_of_which_any_sectors_are_missing_is_torn_and_no_damage() {
    let payload: Vec<u8> = (0..1_500u32).map(|number| (number % 251) as u8 + 1).collect();
    // The header at every place of a sector, across its end too.
    for first in 0..SECTOR {
        for missing in 1u32..16 {
            let (io, end) = two_records(first, &payload);
            io.corrupt(&segment(1), |bytes| {
                bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
                let begin = end as usize / SECTOR * SECTOR;
                for (number, sector) in (begin..bytes.len()).step_by(SECTOR).enumerate() {
                    if missing >> number & 1 == 1 {
                        bytes[sector.max(end as usize)..sector + SECTOR].fill(0);
                    }
                }
            });
            let spans = (end as usize + record_bytes(payload.len()) as usize).div_ceil(SECTOR)
                - end as usize / SECTOR;
            if missing.trailing_zeros() as usize >= spans {
                continue;
            }
            let (_, recovery, records) = open(&io);
            assert_eq!(records, [vec![7; first]], "{first} {missing:b}");
            assert_eq!(recovery.damaged_bytes, 0, "{first} {missing:b}");
            assert_eq!(open(&io).1.torn_bytes, 0, "{first} {missing:b}: cut off once");
        }
    }
}

#[test]
fn a_missing_sector_before_the_last_record_is_damage() {
    let payload = vec![3; 2_000];
    let (io, end) = two_records(100, &payload);
    let (mut journal, ..) = open(&io);
    journal.append(b"behind it").unwrap();
    io.corrupt(&segment(1), |bytes| bytes[end as usize + 500..end as usize + 1_500].fill(0));
    let (_, recovery, records) = open(&io);
    assert_eq!(records, [vec![7; 100], b"behind it".to_vec()]);
    assert_eq!((recovery.torn_bytes, recovery.damaged_bytes), (0, record_bytes(2_000)));
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let io = MemoryIo::new();
    drop(open(&io));
    io.corrupt(&segment(1), |bytes| bytes[7] = 9);
    let outcome = Journal::open(Arc::new(io.clone()), Path::new(FOLDER), |_, _| Ok(()));
    assert!(matches!(outcome, Err(JournalError::NewerFormat { version: 9, .. })));
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    journal.append(b"one").unwrap();
    io.set_capacity(Some(journal.total_bytes() + 4));
    assert!(matches!(journal.append(b"two"), Err(JournalError::Io(error)) if error.is_full()));
    io.set_capacity(None);
    journal.append(b"three").unwrap();
    assert_eq!(open(&io).2, [b"one".to_vec(), b"three".to_vec()]);
}

#[test]
fn after_a_failed_sync_nothing_more_is_promised() {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    journal.append(b"one").unwrap();
    io.fail_from(Some(io.operations()), ErrorKind::Other);
    assert!(journal.sync().is_err());
    io.fail_from(None, ErrorKind::Other);
    assert!(matches!(journal.append(b"two"), Err(JournalError::Poisoned(_))));
}

#[test]
fn a_reader_follows_the_writer_and_steps_over_removed_segments() {
    let io = MemoryIo::new();
    let (mut journal, ..) = open(&io);
    let mut reader = journal.reader_from_oldest();
    assert!(reader.next_record().unwrap().is_none());
    journal.append(b"one").unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().1, b"one");
    journal.rotate().unwrap();
    journal.append(b"two").unwrap();
    journal.rotate().unwrap();
    journal.append(b"three").unwrap();
    journal.remove_before(journal.current_segment()).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().1, b"three");
    assert!(reader.next_record().unwrap().is_none());
}

proptest! {
    #[test]
    fn a_flipped_byte_never_yields_a_record_that_was_not_written(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..8),
        place in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let io = MemoryIo::new();
        let (mut journal, ..) = open(&io);
        for payload in &payloads {
            journal.append(payload).unwrap();
        }
        io.corrupt(&segment(1), |bytes| {
            let at = place.index(bytes.len());
            if at != 7 {
                bytes[at] ^= flip;
            }
        });
        let (_, _, records) = open(&io);
        prop_assert!(records.len() + 1 >= payloads.len());
        let mut written = payloads.iter();
        for record in &records {
            prop_assert!(written.any(|payload| payload == record), "{:?} out of {:?}", records, payloads);
        }
    }
}
