//! What one alertmanager has not taken yet, on disk as well as in memory.
//!
//! Notices flow in as rules decide and flow out when the alertmanager has answered. Every change is in a
//! journal before the notice is sent, so a collector that is killed while no alertmanager answers sends
//! after its restart what it owed. The journal is synced when a notice could not be delivered: then it waits
//! anyway, and survives a power cut too, while one that is taken at once never waits for the disk.
//!
//! An alert that is sent again while it waits takes the place of its older notice; what it said last is
//! what counts. When the box is full the newest is refused, and counted: it comes again within a minute,
//! while the oldest may be of an alert that has resolved since.

use super::notify::Notice;
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_IDLE_BYTES_MAX};
use pharos_common::journal::{Journal, JournalError};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::StorageIo;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// What waits longer than this was overtaken by events.
const AGE_MS_MAX: i64 = 24 * 3_600_000;

/// A notice that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// Its place in the order of arrival.
    id: u64,
    /// What is to be sent.
    pub notice: Notice,
}

/// One change of the box, as the journal has it.
#[derive(Serialize, Deserialize)]
enum Entry {
    Put(Vec<Waiting>),
    Done(Vec<u64>),
}

/// Two notices of one alert are one if they speak of the same start and both of firing or both of the end.
type Key = (Labels, String, bool);

/// See the module's documentation.
#[derive(Debug)]
pub struct Outbox {
    waiting: BTreeMap<u64, Notice>,
    by_key: HashMap<Key, u64>,
    next_id: u64,
    notices_max: usize,
    journal: Option<Journal>,
    /// Whether the journal has records that a power cut would take.
    unsynced: bool,
}

impl Outbox {
    /// A box in memory only.
    pub fn in_memory(notices_max: usize) -> Self {
        Outbox {
            waiting: BTreeMap::new(),
            by_key: HashMap::new(),
            next_id: 1,
            notices_max,
            journal: None,
            unsynced: false,
        }
    }

    /// Opens the box in `folder` with what it was left with. What cannot be read of it is left out.
    ///
    /// # Errors
    /// If the journal cannot be opened.
    pub fn open(
        io: Arc<dyn StorageIo>,
        folder: &Path,
        notices_max: usize,
        now_ms: TimestampMs,
    ) -> Result<Self, JournalError> {
        let mut outbox = Outbox::in_memory(notices_max);
        let (journal, _) = Journal::open(io, folder, |_, payload| {
            match serde_json::from_slice(payload) {
                Ok(Entry::Put(put)) => {
                    for Waiting { id, notice } in put {
                        outbox.by_key.insert(key(&notice), id);
                        outbox.waiting.insert(id, notice);
                        outbox.next_id = outbox.next_id.max(id + 1);
                    }
                }
                Ok(Entry::Done(ids)) => ids.iter().for_each(|id| outbox.forget(*id)),
                Err(error) => tracing::warn!(%error, "A queued alert cannot be read and is left out"),
            }
            Ok(())
        })?;
        outbox.journal = Some(journal);
        let outdated: Vec<u64> = outbox
            .waiting
            .iter()
            .filter(|(_, notice)| notice.ends_ms < now_ms - AGE_MS_MAX)
            .map(|(id, _)| *id)
            .collect();
        outbox.done(&outdated)?;
        Ok(outbox)
    }

    /// Number of notices that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts notices in. Says how many there was no room for.
    ///
    /// # Errors
    /// If they are not on disk; they are in the box all the same.
    pub fn put(&mut self, notices: Vec<Notice>) -> Result<usize, JournalError> {
        let mut put = Vec::with_capacity(notices.len());
        let mut refused = 0;
        for notice in notices {
            let key = key(&notice);
            let id = match self.by_key.get(&key) {
                Some(&id) => id,
                None if self.waiting.len() >= self.notices_max => {
                    refused += 1;
                    continue;
                }
                None => {
                    self.next_id += 1;
                    self.by_key.insert(key, self.next_id - 1);
                    self.next_id - 1
                }
            };
            self.waiting.insert(id, notice.clone());
            put.push(Waiting { id, notice });
        }
        if !put.is_empty() {
            self.record(&Entry::Put(put))?;
        }
        Ok(refused)
    }

    /// The oldest notices, at most so many.
    pub fn oldest(&self, count: usize) -> Vec<Waiting> {
        self.waiting
            .iter()
            .take(count)
            .map(|(id, notice)| Waiting { id: *id, notice: notice.clone() })
            .collect()
    }

    /// Makes what waits survive a power cut, on a thread that may block.
    ///
    /// # Errors
    /// If the disk does not take it; it is in the box all the same.
    pub async fn sync(&mut self) -> Result<(), JournalError> {
        if !self.unsynced {
            return Ok(());
        }
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        let syncing = tokio::task::spawn_blocking(move || {
            let outcome = journal.sync();
            (journal, outcome)
        });
        // It ends without an answer only if the program does.
        let Ok((journal, outcome)) = syncing.await else { return Ok(()) };
        self.journal = Some(journal);
        self.unsynced = outcome.is_err();
        outcome
    }

    /// Takes out what the alertmanager has answered, however it did. A notice whose place another one has taken
    /// since, of the same alert and newer, stays.
    ///
    /// # Errors
    /// If that is not on disk; after a restart they are sent once more then.
    pub fn sent(&mut self, batch: &[Waiting]) -> Result<(), JournalError> {
        let is_there = |sent: &&Waiting| self.waiting.get(&sent.id).is_some_and(|now| *now == sent.notice);
        let ids: Vec<u64> = batch.iter().filter(is_there).map(|sent| sent.id).collect();
        self.done(&ids)
    }

    fn done(&mut self, ids: &[u64]) -> Result<(), JournalError> {
        if ids.is_empty() {
            return Ok(());
        }
        ids.iter().for_each(|id| self.forget(*id));
        self.record(&Entry::Done(ids.to_vec()))
    }

    fn forget(&mut self, id: u64) {
        if let Some(notice) = self.waiting.remove(&id) {
            self.by_key.remove(&key(&notice));
        }
    }

    fn record(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let Some(journal) = self.journal.as_mut() else { return Ok(()) };
        let payload = serde_json::to_vec(entry).unwrap_or_default();
        journal.append(&payload)?;
        self.unsynced = true;
        let bytes_max = if self.waiting.is_empty() { OUTBOX_IDLE_BYTES_MAX } else { OUTBOX_BYTES_MAX };
        if journal.total_bytes() <= bytes_max {
            return Ok(());
        }
        // Only what waits is worth keeping.
        let segment = journal.rotate()?;
        if !self.waiting.is_empty() {
            let put = self.oldest(usize::MAX);
            let payload = serde_json::to_vec(&Entry::Put(put)).unwrap_or_default();
            if let Some(journal) = self.journal.as_mut() {
                journal.append(&payload)?;
            }
        }
        self.journal.as_mut().map_or(Ok(()), |journal| journal.remove_before(segment))
    }
}

fn key(notice: &Notice) -> Key {
    (notice.labels.clone(), notice.starts_at.clone(), notice.resolved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_common::storage_io::MemoryIo;

    fn notice(instance: &str, resolved: bool, summary: &str) -> Notice {
        Notice {
            labels: Labels::from_pairs([("alertname", "Hot"), ("instance", instance)]),
            annotations: BTreeMap::from([("summary".to_owned(), summary.to_owned())]),
            starts_at: "1970-01-01T00:00:01.000Z".to_owned(),
            ends_ms: 241_000,
            resolved,
            ..Notice::default()
        }
    }

    fn open(io: &Arc<MemoryIo>, notices_max: usize) -> Outbox {
        Outbox::open(Arc::clone(io) as Arc<dyn StorageIo>, Path::new("/alerts"), notices_max, 1_000).unwrap()
    }

    fn texts(outbox: &Outbox) -> Vec<String> {
        let text = |waiting: Waiting| {
            let instance = waiting.notice.labels.get("instance").unwrap_or("").to_owned();
            let what = if waiting.notice.resolved { "resolved" } else { "firing" };
            format!("{instance} {what} {}", waiting.notice.annotations["summary"])
        };
        outbox.oldest(100).into_iter().map(text).collect()
    }

    #[test]
    fn what_came_while_another_of_the_same_alert_was_on_its_way_is_still_to_be_sent() {
        let io = Arc::new(MemoryIo::default());
        let mut outbox = open(&io, 10);
        outbox.put(vec![notice("a", false, "1"), notice("b", false, "1")]).unwrap();
        let on_its_way = outbox.oldest(10);
        outbox.put(vec![notice("a", false, "2")]).unwrap();
        outbox.sent(&on_its_way).unwrap();
        assert_eq!(texts(&outbox), ["a firing 2"]);
        drop(outbox);
        assert_eq!(texts(&open(&io, 10)), ["a firing 2"]);
    }

    #[test]
    fn what_waits_is_there_after_a_kill_in_order() {
        let io = Arc::new(MemoryIo::default());
        let mut outbox = open(&io, 10);
        outbox.put(vec![notice("a", false, "1"), notice("b", false, "1"), notice("c", false, "1")]).unwrap();
        outbox.sent(&outbox.oldest(1)).unwrap();
        outbox.put(vec![notice("b", false, "2"), notice("b", true, "2")]).unwrap();
        let want = ["b firing 2", "c firing 1", "b resolved 2"];
        assert_eq!(texts(&outbox), want);
        drop(outbox);
        let mut outbox = open(&io, 10);
        assert_eq!(texts(&outbox), want);
        outbox.sent(&outbox.oldest(10)).unwrap();
        assert_eq!(texts(&open(&io, 10)), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_was_synced_survives_a_power_cut() {
        let io = Arc::new(MemoryIo::default());
        let mut outbox = open(&io, 10);
        outbox.put(vec![notice("a", false, "1"), notice("b", true, "1")]).unwrap();
        outbox.sync().await.unwrap();
        outbox.put(vec![notice("c", false, "1")]).unwrap();
        let cut = Arc::new(io.after_power_cut());
        assert_eq!(texts(&open(&cut, 10))[..2], ["a firing 1", "b resolved 1"]);
        outbox.sync().await.unwrap();
        let cut = Arc::new(io.after_power_cut());
        assert_eq!(texts(&open(&cut, 10)), ["a firing 1", "b resolved 1", "c firing 1"]);
    }

    #[test]
    fn a_full_box_refuses_the_newest_but_takes_news_of_what_waits() {
        let mut outbox = Outbox::in_memory(2);
        let refused =
            outbox.put(vec![notice("a", false, "1"), notice("b", false, "1"), notice("c", false, "1")]);
        assert_eq!(refused.unwrap(), 1);
        assert_eq!(outbox.put(vec![notice("a", false, "2")]).unwrap(), 0);
        assert_eq!(texts(&outbox), ["a firing 2", "b firing 1"]);
    }

    #[test]
    fn the_journal_stays_small_while_everything_is_taken() {
        let io = Arc::new(MemoryIo::default());
        let mut outbox = open(&io, 10);
        for round in 0..2_000 {
            outbox.put(vec![notice("a", false, &round.to_string())]).unwrap();
            outbox.sent(&outbox.oldest(10)).unwrap();
        }
        assert!(outbox.journal.as_ref().unwrap().total_bytes() < OUTBOX_IDLE_BYTES_MAX + 4_096);
    }

    #[test]
    fn what_is_older_than_a_day_is_not_sent_any_more() {
        let io = Arc::new(MemoryIo::default());
        open(&io, 10).put(vec![notice("a", false, "1")]).unwrap();
        let folder = Path::new("/alerts");
        let late = Outbox::open(io, folder, 10, 242_000 + AGE_MS_MAX).unwrap();
        assert!(late.is_empty());
    }
}
