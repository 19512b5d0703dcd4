use super::*;
use crate::block::Provenance;
use crate::block::cache::BlockCache;
use crate::block::samples::Windows;
use crate::block::writer::{BlockWriter, RolledUp};
use pharos_common::labels::Labels;
use pharos_common::storage_io::MemoryIo;
use proptest::prelude::*;

const FOLDER: &str = "/blocks";

fn labels(number: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &format!("{number:03}"))])
}

fn build(series: &[(Vec<i64>, Vec<f64>)]) -> (MemoryIo, PathBuf) {
    let io = MemoryIo::new();
    io.create_dir_all(Path::new(FOLDER)).unwrap();
    let mut writer =
        BlockWriter::create(Arc::new(io.clone()), Path::new(FOLDER), "a.block", RolledUp::All).unwrap();
    for (number, (timestamps, values)) in series.iter().enumerate() {
        writer.add(&labels(number), timestamps, values).unwrap();
    }
    let (path, bytes) = writer.finish("a.block", Provenance::default()).unwrap();
    assert_eq!(bytes, io.read(&path).unwrap().len() as u64);
    (io, path)
}

/// Labels, timestamps and the bits of the values.
type Series = (Labels, Vec<i64>, Vec<u64>);

fn read(block: &Block, start_ms: i64, end_ms: i64) -> Result<Vec<Series>, BlockError> {
    let mut read = Vec::new();
    let cached = Arc::new(BlockCache::new(1 << 20));
    for pages in [None, Some(Arc::clone(&cached)), Some(cached)] {
        let mut windows = Windows::new(pages.clone());
        let mut series = Vec::new();
        for (number, entry) in block.index()?.series.iter().enumerate() {
            let piece = block.series_in(number as u32, start_ms, end_ms, &mut windows)?;
            let Some(piece) = piece else { continue };
            let window = windows.window(block, number as u32, start_ms, end_ms)?.unwrap();
            let newest = block.newest_of(number as u32, &window, pages.as_deref())?;
            let newest = newest.map(|sample| (sample.timestamp_ms, sample.value.to_bits()));
            let bits: Vec<u64> = piece.values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(newest, piece.timestamps.last().copied().zip(bits.last().copied()));
            series.push((entry.labels.clone(), piece.timestamps.to_vec(), bits));
        }
        read.push(series);
    }
    // What is kept of pages is what the file says.
    assert!(read[0] == read[1] && read[1] == read[2]);
    Ok(read.remove(0))
}

fn telemetry() -> Vec<(Vec<i64>, Vec<f64>)> {
    let even: Vec<i64> = (0..3000).map(|row| row * 1000).collect();
    let uneven: Vec<i64> = (0..2100).map(|row| row * 1000 + (row * 7919) % 13).collect();
    vec![
        (even.clone(), (0..3000).map(|row| f64::from(row) * 3.0).collect()),
        (even, vec![1.0; 3000]),
        (uneven.clone(), (0..2100).map(|row| f64::from(row).sin()).collect()),
        (uneven, (0..2100).map(|row| f64::from(row * 31 % 977) / 100.0).collect()),
        (vec![5_000], vec![2.5]),
    ]
}

#[test]
fn any_range_of_a_block_reads_what_was_written() {
    let series = telemetry();
    let (io, path) = build(&series);
    let block = Block::open(&io, &path).unwrap();
    for (start_ms, end_ms) in [
        (i64::MIN, i64::MAX),
        (0, 0),
        (5_000, 5_000),
        (1_023_000, 1_024_000),
        (-5, 700_123),
        (2_999_000, 9_999_999),
        (4_000_000, 5_000_000),
    ] {
        let want: Vec<_> = series
            .iter()
            .enumerate()
            .map(|(number, (timestamps, values))| {
                let kept: Vec<usize> = (0..timestamps.len())
                    .filter(|&row| (start_ms..=end_ms).contains(&timestamps[row]))
                    .collect();
                (
                    labels(number),
                    kept.iter().map(|&row| timestamps[row]).collect::<Vec<_>>(),
                    kept.iter().map(|&row| values[row].to_bits()).collect::<Vec<_>>(),
                )
            })
            .filter(|(_, timestamps, _)| !timestamps.is_empty())
            .collect();
        assert_eq!(read(&block, start_ms, end_ms).unwrap(), want, "{start_ms}..{end_ms}");
    }
}

#[test]
fn series_that_were_sampled_together_share_their_timestamps() {
    let (io, path) = build(&telemetry());
    let block = Block::open(&io, &path).unwrap();
    assert_eq!(block.index().unwrap().timestamps.len(), 3);
}

#[test]
fn every_truncation_is_an_error() {
    let (io, path) = build(&telemetry()[3..]);
    let whole = io.read(&path).unwrap();
    for length in 0..whole.len() {
        io.corrupt(&path, |bytes| *bytes = whole[..length].to_vec());
        let outcome = Block::open(&io, &path).map(|block| read(&block, i64::MIN, i64::MAX).is_ok());
        assert!(!matches!(outcome, Ok(true)), "{length}");
    }
}

proptest! {
    #[test]
    fn a_flipped_byte_is_an_error_or_changes_nothing(place in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let series = telemetry();
        let (io, path) = build(&series[1..]);
        let truth = read(&Block::open(&io, &path).unwrap(), i64::MIN, i64::MAX).unwrap();
        io.corrupt(&path, |bytes| {
            let at = place.index(bytes.len());
            bytes[at] ^= flip;
        });
        if let Ok(block) = Block::open(&io, &path)
            && let Ok(got) = read(&block, i64::MIN, i64::MAX) {
                prop_assert_eq!(got, truth);
            }
    }
}
