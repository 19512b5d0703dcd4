//! The ledger: which frame is where, and which lane it belongs to. No files, no threads.
//!
//! Frames and news of the connection flow in; what is to be written to the journal flows out as
//! [`Unwritten`] frames and as ranges of sequences. The ledger trusts that what it gave out gets written,
//! and is told if it was not.

use super::ranges::Ranges;
use super::record::FrameRecord;
use crate::directory::DefinitionSet;
use crate::frame::FrameDraft;
use crate::own_metrics::{LossReason, OwnMetrics};
use bytes::Bytes;
use pharos_proto::v1::Lane;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Time that the collector has to acknowledge a live frame before it is written to the journal.
pub const HOLD_TIME: Duration = Duration::from_millis(800);
/// Frames that may pass without one being written, so that a restart knows roughly which sequences were used.
pub const SEQUENCES_UNWRITTEN_MAX: u64 = 1 << 16;
/// Live frames without acknowledgement; more means that the collector does not keep up.
const IN_FLIGHT_FRAMES_MAX: usize = 1_024;
/// Backfilled bytes without acknowledgement: enough to fill a fast line, little enough to hold in memory.
const BACKFILL_WINDOW_BYTES: usize = 2 << 20;
/// Times that a stream may be refused with the same frame in front before that frame is set aside. One
/// alone may have stood beside the culprit on the other lane.
const REFUSALS_MAX: u32 = 3;

/// A frame on its way to the collector.
#[derive(Clone, Debug)]
pub struct LiveFrame {
    /// Its sequence.
    pub sequence: u64,
    /// What its readings refer to.
    pub definitions: Arc<DefinitionSet>,
    /// `Tick.readings`, encoded.
    pub readings: Bytes,
}

/// A frame that the journal does not have yet.
#[derive(Clone, Debug)]
pub(super) struct Unwritten {
    pub(super) frame: FrameRecord,
    pub(super) definitions: Arc<DefinitionSet>,
    pub(super) next_group: u32,
    /// When it left, or will leave.
    pub(super) since: Duration,
}

/// Frames and their fate.
#[derive(Debug)]
pub(super) struct Ledger {
    metrics: OwnMetrics,
    next_sequence: u64,
    live: Option<mpsc::Sender<LiveFrame>>,
    in_flight: VecDeque<InFlight>,
    /// Live frames that wait for their acknowledgement before they are written.
    held: VecDeque<Unwritten>,
    /// Definitions and sequence of the newest frame that was given out to be written.
    given_out: Option<(Arc<DefinitionSet>, u64)>,
    in_doubt: Ranges,
    pending: Ranges,
    backfill: BackfillLane,
    /// How often the stream was refused with these frames in front.
    refusals: BTreeMap<u64, u32>,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    sequence: u64,
    journalled: bool,
    since: Duration,
}

/// The backfill lane of the connection.
#[derive(Debug, Default)]
struct BackfillLane {
    /// Frames below have been sent on this connection.
    next: u64,
    /// Sequence and size of frames that were sent and not acknowledged.
    unacknowledged: VecDeque<(u64, usize)>,
    unacknowledged_bytes: usize,
}

impl Ledger {
    pub(super) fn new(metrics: OwnMetrics, next_sequence: u64, in_doubt: Ranges, pending: Ranges) -> Self {
        let ledger = Ledger {
            metrics,
            next_sequence,
            live: None,
            in_flight: VecDeque::new(),
            held: VecDeque::new(),
            given_out: None,
            in_doubt,
            pending,
            backfill: BackfillLane::default(),
            refusals: BTreeMap::new(),
        };
        ledger.show();
        ledger
    }

    /// Takes a frame, sends it live if it may and can be; whether it does. What must be written now is added to
    /// `out`. A live frame leaves at `leaves`, and its time to be acknowledged begins then.
    pub(super) fn append(
        &mut self,
        draft: FrameDraft,
        next_group: u32,
        wanted: Lane,
        now: Duration,
        leaves: Duration,
        out: &mut Vec<Unwritten>,
    ) -> bool {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let readings = Bytes::from(draft.readings);
        let permit = match &self.live {
            Some(live) if wanted == Lane::Live && self.in_flight.len() < IN_FLIGHT_FRAMES_MAX => {
                live.clone().try_reserve_owned().ok()
            }
            _ => None,
        };
        let frame = FrameRecord {
            sequence,
            timestamp_ms: draft.timestamp_ms,
            samples: draft.samples,
            backfill: permit.is_none(),
            readings: readings.clone(),
        };
        let definitions = Arc::clone(&draft.definitions);
        self.held.push_back(Unwritten { frame, definitions, next_group, since: leaves });
        let mut write_now = self.overdue(now);
        let is_live = permit.is_some();
        match permit {
            Some(permit) => {
                self.in_flight.push_back(InFlight { sequence, journalled: true, since: leaves });
                permit.send(LiveFrame { sequence, definitions: draft.definitions, readings });
            }
            None => {
                self.pending.insert(sequence);
                write_now = true;
            }
        }
        if write_now {
            self.give_out(out);
        }
        self.show();
        is_live
    }

    /// Whether something has waited for its acknowledgement for too long, or must not wait for it.
    fn overdue(&self, now: Duration) -> bool {
        let waited = self.held.front().is_some_and(|held| now.saturating_sub(held.since) >= HOLD_TIME);
        let new_numbers = self.held.back().is_some_and(|newest| match &self.given_out {
            Some((definitions, sequence)) => {
                !Arc::ptr_eq(definitions, &newest.definitions)
                    || newest.frame.sequence - sequence >= SEQUENCES_UNWRITTEN_MAX
            }
            None => true,
        });
        waited || new_numbers
    }

    /// Adds everything that waits to be written to `out`.
    pub(super) fn give_out(&mut self, out: &mut Vec<Unwritten>) {
        if let Some(newest) = self.held.back() {
            self.given_out = Some((Arc::clone(&newest.definitions), newest.frame.sequence));
        }
        out.extend(self.held.drain(..));
    }

    /// Adds what has waited too long to be written to `out`.
    pub(super) fn give_out_overdue(&mut self, now: Duration, out: &mut Vec<Unwritten>) {
        if self.overdue(now) {
            self.give_out(out);
        }
    }

    /// A frame could not be written. It is lost unless its live copy arrives.
    pub(super) fn not_written(&mut self, sequence: u64, reason: LossReason) {
        if self.pending.remove_range(sequence, sequence) > 0 {
            self.metrics.lose(reason, 1);
        } else if let Some(frame) = self.in_flight.iter_mut().find(|frame| frame.sequence == sequence) {
            frame.journalled = false;
        }
        self.show();
    }

    /// A collector is connected and told what it has. From now on fresh frames go to `live`. Returns the
    /// live frames that belong to the backfill lane from now on.
    pub(super) fn connected(
        &mut self,
        live_durable: u64,
        backfill_durable: u64,
        live: mpsc::Sender<LiveFrame>,
    ) -> Vec<(u64, u64)> {
        let mut assign = Ranges::default();
        for InFlight { sequence, journalled, .. } in std::mem::take(&mut self.in_flight) {
            if sequence <= live_durable {
                self.metrics.acknowledged.with_label_values(&["live"]).inc();
            } else if journalled {
                assign.insert(sequence);
            } else {
                self.metrics.lose(LossReason::JournalFailed, 1);
            }
        }
        self.in_doubt.remove_up_to(live_durable);
        for (first, last) in std::mem::take(&mut self.in_doubt).iter() {
            assign.insert_range(first, last);
        }
        for (first, last) in assign.iter() {
            self.pending.insert_range(first, last);
        }
        self.pending.remove_up_to(backfill_durable);
        self.next_sequence = self.next_sequence.max(live_durable + 1).max(backfill_durable + 1);
        self.backfill = BackfillLane::default();
        self.live = Some(live);
        self.show();
        assign.iter().collect()
    }

    /// Whether frames can go out live.
    pub(super) fn is_connected(&self) -> bool {
        self.live.is_some()
    }

    /// The connection is gone. Frames in flight stay so until the next one tells their fate.
    pub(super) fn disconnected(&mut self, out: &mut Vec<Unwritten>) {
        self.live = None;
        self.backfill = BackfillLane::default();
        self.give_out(out);
        self.show();
    }

    /// A collector has made everything up to `sequence` of a lane durable.
    pub(super) fn acknowledged(&mut self, lane: Lane, sequence: u64) {
        let mut frames = 0;
        match lane {
            Lane::Live => {
                while self.in_flight.front().is_some_and(|frame| frame.sequence <= sequence) {
                    self.in_flight.pop_front();
                    frames += 1;
                }
                while self.held.front().is_some_and(|held| held.frame.sequence <= sequence) {
                    self.held.pop_front();
                }
                self.metrics.acknowledged.with_label_values(&["live"]).inc_by(frames);
            }
            Lane::Backfill => {
                while let Some(&(sent, bytes)) = self.backfill.unacknowledged.front()
                    && sent <= sequence
                {
                    self.backfill.unacknowledged.pop_front();
                    self.backfill.unacknowledged_bytes -= bytes;
                    self.pending.remove_range(sent, sent);
                    frames += 1;
                }
                self.metrics.acknowledged.with_label_values(&["backfill"]).inc_by(frames);
            }
        }
        if frames > 0 {
            self.show();
        }
    }

    /// The collector refused the stream for good. Returns the frame that is to blame, once that is sure.
    pub(super) fn refused(&mut self) -> Option<u64> {
        let live = self.in_flight.front().map(|frame| frame.sequence);
        let backfill = self.backfill.unacknowledged.front().map(|(sequence, _)| *sequence);
        let before = std::mem::take(&mut self.refusals);
        for sequence in [live, backfill].into_iter().flatten() {
            self.refusals.insert(sequence, before.get(&sequence).copied().unwrap_or(0) + 1);
        }
        let culprit = self.refusals.iter().find(|(_, count)| **count >= REFUSALS_MAX);
        let culprit = culprit.map(|(sequence, _)| *sequence)?;
        self.refusals.remove(&culprit);
        self.pending.remove_range(culprit, culprit);
        self.in_flight.retain(|frame| frame.sequence != culprit);
        self.metrics.lose(LossReason::Refused, 1);
        self.show();
        Some(culprit)
    }

    /// The journal had to drop everything up to a sequence.
    pub(super) fn dropped_up_to(&mut self, last: u64, reason: LossReason) {
        let lost = self.pending.remove_up_to(last) + self.in_doubt.remove_up_to(last);
        if lost > 0 {
            tracing::warn!(frames = lost, ?reason, "The oldest frames of the journal are dropped");
            self.metrics.lose(reason, lost);
        }
        for frame in self.in_flight.iter_mut().filter(|frame| frame.sequence <= last) {
            frame.journalled = false;
        }
        self.show();
    }

    /// The journal does not hold these frames any more: their place is damaged.
    pub(super) fn missing(&mut self, first: u64, last: u64) {
        let missing = self.pending.remove_range(first, last);
        self.metrics.lose(LossReason::Damaged, missing);
        self.show();
    }

    /// Whether there is something for the backfill lane now.
    pub(super) fn backfill_ready(&self) -> bool {
        self.live.is_some()
            && self.backfill.unacknowledged_bytes < BACKFILL_WINDOW_BYTES
            && self.next_pending().is_some()
    }

    /// The lowest sequence to be sent on the backfill lane now: never beyond a frame that is in flight.
    pub(super) fn next_pending(&self) -> Option<u64> {
        let next = self.pending.first_from(self.backfill.next)?;
        let limit = self.in_flight.front().map_or(u64::MAX, |frame| frame.sequence);
        (next < limit).then_some(next)
    }

    /// A frame goes out on the backfill lane.
    pub(super) fn backfilled(&mut self, sequence: u64, bytes: usize) {
        self.backfill.unacknowledged_bytes += bytes;
        self.backfill.unacknowledged.push_back((sequence, bytes));
        self.backfill.next = sequence + 1;
    }

    /// The lowest sequence that the journal must still hold.
    pub(super) fn lowest_needed(&self) -> u64 {
        let in_flight = self.in_flight.front().map(|frame| frame.sequence);
        let needed = [in_flight, self.pending.first(), self.in_doubt.first()];
        needed.into_iter().flatten().min().unwrap_or(self.next_sequence)
    }

    #[cfg(test)]
    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Frames that no collector has made durable yet.
    pub(super) fn outstanding(&self) -> u64 {
        self.in_flight.len() as u64 + self.pending.len() + self.in_doubt.len()
    }

    /// Live frames without acknowledgement.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// For how long the oldest live frame has waited for its acknowledgement.
    pub(super) fn oldest_in_flight(&self, now: Duration) -> Option<Duration> {
        self.in_flight.front().map(|frame| now.saturating_sub(frame.since))
    }

    fn show(&self) {
        self.metrics.backfill_frames.set(self.pending.len() as i64);
    }
}
