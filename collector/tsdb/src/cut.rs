//! Cuts the head: rows older than a moment, and all late samples, become blocks.

use crate::block::writer::BlockWriter;
use crate::block::{BLOCK_SPAN_MS, DAY_MS, Provenance};
use crate::error::TsdbError;
use crate::head::Head;
use crate::head::group::GroupSnapshot;
use crate::head::late::LateSamples;
use crate::head::registry::Location;
use crate::merge::{Piece, Pieces};
use crate::row::GroupId;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// More windows than this at once (a long backfill) are cut by days instead.
const WINDOWS_MAX: i64 = 36;

/// What a cut wrote.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Files, in the order in which they were published.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) bytes: u64,
    pub(crate) samples: u64,
}

/// Writes the head's rows before `before_ms`, and `late`, to one block per window. `create` begins a file
/// for a window and says what it will be called. The last file published carries `provenance`: before it
/// is there, nothing says that the others hold all.
pub(crate) fn write_blocks(
    head: &Head,
    late: &LateSamples,
    before_ms: TimestampMs,
    provenance: Provenance,
    mut create: impl FnMut(TimestampMs) -> Result<(BlockWriter, String), TsdbError>,
) -> Result<Written, TsdbError> {
    let sources = Sources::gather(head, before_ms);
    let span = sources.span(late);
    let mut writers: BTreeMap<TimestampMs, (BlockWriter, String)> = BTreeMap::new();
    for (labels, series, locations) in &sources.series {
        let Some((timestamps, values)) = sources.samples(labels, *series, locations, late) else { continue };
        let mut from = 0;
        while let Some(&first) = timestamps.get(from) {
            let window = first.div_euclid(span) * span;
            let to = timestamps.partition_point(|&timestamp| timestamp < window + span);
            let writer = match writers.get_mut(&window) {
                Some((writer, _)) => writer,
                None => &mut writers.entry(window).or_insert(create(window)?).0,
            };
            writer.add(labels, &timestamps[from..to], &values[from..to])?;
            from = to;
        }
    }
    let mut written = Written::default();
    let mut left = writers.len();
    for (writer, name) in writers.into_values() {
        left -= 1;
        written.samples += writer.samples();
        let provenance = if left == 0 { provenance.clone() } else { Provenance::default() };
        let (file, bytes) = writer.finish(&name, provenance)?;
        written.files.push(file);
        written.bytes += bytes;
    }
    Ok(written)
}

/// A series' labels, number in the head, and where its rows are.
type SeriesSource = (Labels, u32, Vec<Location>);

/// Everything that the cut reads, as it was at its beginning.
struct Sources {
    /// Sorted by labels.
    series: Vec<SeriesSource>,
    groups: HashMap<GroupId, (GroupSnapshot, Arc<[TimestampMs]>)>,
}

impl Sources {
    fn gather(head: &Head, before_ms: TimestampMs) -> Sources {
        let registry = head.registry();
        let mut series: Vec<_> = registry
            .all_series()
            .map(|(number, entry)| (entry.labels.clone(), number, entry.locations.clone()))
            .collect();
        let groups: Vec<_> = registry.groups().collect();
        drop(registry);
        series.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let groups = groups
            .into_iter()
            .map(|(id, group)| {
                let columns: Vec<u16> = (0..group.columns.len() as u16).collect();
                let mut state = group.lock();
                state.seal_before(before_ms);
                let snapshot = state.snapshot(TimestampMs::MIN, before_ms.saturating_sub(1), &columns);
                drop(state);
                let timestamps = snapshot.timestamps();
                (id, (snapshot, timestamps))
            })
            .filter(|(_, (_, timestamps))| !timestamps.is_empty())
            .collect();
        Sources { series, groups }
    }

    /// Length of the windows to cut by.
    fn span(&self, late: &LateSamples) -> i64 {
        let rows = self
            .groups
            .values()
            .filter_map(|(_, timestamps)| Some((*timestamps.first()?, *timestamps.last()?)));
        let range = rows.chain(late.range()).reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)));
        match range {
            Some((first, last)) if last.saturating_sub(first) / BLOCK_SPAN_MS > WINDOWS_MAX => DAY_MS,
            _ => BLOCK_SPAN_MS,
        }
    }

    fn samples(
        &self,
        labels: &Labels,
        series: u32,
        locations: &[Location],
        late: &LateSamples,
    ) -> Option<(Arc<[TimestampMs]>, Vec<f64>)> {
        let mut pieces = Pieces::default();
        for (group, column) in locations {
            if let Some((snapshot, timestamps)) = self.groups.get(group) {
                let (timestamps, values) = snapshot.column(usize::from(*column), *column, timestamps);
                if !timestamps.is_empty() {
                    pieces.add(labels, Piece { timestamps, values });
                }
            }
        }
        if let Some(column) = late.series.get(&series) {
            let piece =
                Piece { timestamps: column.timestamps.as_slice().into(), values: column.values.clone() };
            pieces.add(labels, piece);
        }
        let series = pieces.into_series().pop()?;
        Some((series.timestamps, series.values))
    }
}
