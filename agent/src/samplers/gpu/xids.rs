//! XIDs counted: by GPU and number, never stuck, none twice and none lost.
//!
//! The kernel log is the first source. The driver's events are the second: one is counted only if the log
//! does not tell of the same XID about the same time, so a node whose log cannot be read still counts, and
//! one whose log can counts each once. Two equal XIDs in a row are two.

use super::pci::PciPlace;
use std::collections::VecDeque;
use std::time::Duration;

/// As dcgm-exporter counts them, and how long the gauge shows the last.
pub(super) const WINDOW: Duration = Duration::from_secs(300);
/// How far log and event may lie apart and still be one XID.
const SAME_WITHIN: Duration = Duration::from_secs(10);
/// How long an event waits for its line in the log.
const EVENT_WAITS: Duration = Duration::from_secs(2);
/// Numbers of one GPU that are told apart.
const NUMBERS_MAX: usize = 64;
/// XIDs of one GPU that the window holds.
const RECENT_MAX: usize = 1_024;
/// GPUs of one node, and places that the log names without a GPU being there.
const PLACES_MAX: usize = 128;

/// All XIDs of a node. Times are seconds on any clock that only goes forward.
#[derive(Debug, Default)]
pub(super) struct Xids {
    places: Vec<XidsOfGpu>,
    waiting: Vec<Waiting>,
}

/// XIDs of one GPU.
#[derive(Debug)]
pub(super) struct XidsOfGpu {
    pub(super) place: PciPlace,
    /// By number, in order of their first appearance.
    pub(super) counts: Vec<XidCount>,
    recent: VecDeque<(f64, u32)>,
    /// Lines of the log that no event has claimed yet.
    unclaimed: Vec<(f64, u32)>,
}

/// How often one XID has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XidCount {
    pub(super) xid: u32,
    pub(super) total: u64,
    /// Whether a zero was published before the first count, so that rates see the first one.
    pub(super) announced: bool,
}

#[derive(Debug)]
struct Waiting {
    place: PciPlace,
    xid: u32,
    until: f64,
}

impl Xids {
    pub(super) fn places(&mut self) -> impl Iterator<Item = &mut XidsOfGpu> {
        self.places.iter_mut()
    }

    pub(super) fn find(&self, place: PciPlace) -> Option<&XidsOfGpu> {
        self.places.iter().find(|one| one.place == place)
    }

    /// A line of the kernel log. `at` is when it was logged; one that was there before the agent counts as it
    /// is, without a zero before it.
    pub(super) fn logged(&mut self, place: PciPlace, xid: u32, at: f64, old: bool) {
        let claimed = self.waiting.iter().position(|waiting| waiting.place == place && waiting.xid == xid);
        match claimed {
            Some(event) if !old => drop(self.waiting.swap_remove(event)),
            _ => {
                if let Some(gpu) = self.gpu(place) {
                    gpu.unclaimed.push((at, xid));
                    if gpu.unclaimed.len() > RECENT_MAX {
                        gpu.unclaimed.remove(0);
                    }
                }
            }
        }
        self.count(place, xid, at, old);
    }

    /// An event of the driver.
    pub(super) fn event(&mut self, place: PciPlace, xid: u32, now: f64, log_works: bool) {
        let Some(gpu) = self.gpu(place) else { return };
        let since = now - SAME_WITHIN.as_secs_f64();
        if let Some(line) = gpu.unclaimed.iter().position(|(at, number)| *number == xid && *at >= since) {
            gpu.unclaimed.remove(line);
            return;
        }
        if !log_works {
            return self.count(place, xid, now, false);
        }
        if self.waiting.len() < RECENT_MAX {
            self.waiting.push(Waiting { place, xid, until: now + EVENT_WAITS.as_secs_f64() });
        }
    }

    /// Counts events whose line never came, and forgets what has left the window.
    pub(super) fn tick(&mut self, now: f64) {
        while let Some(due) = self.waiting.iter().position(|waiting| waiting.until <= now) {
            let Waiting { place, xid, .. } = self.waiting.swap_remove(due);
            self.count(place, xid, now, false);
        }
        for gpu in &mut self.places {
            let since = now - WINDOW.as_secs_f64();
            while gpu.recent.front().is_some_and(|(at, _)| *at < since) {
                gpu.recent.pop_front();
            }
            gpu.unclaimed.retain(|(at, _)| *at >= now - SAME_WITHIN.as_secs_f64());
        }
    }

    fn count(&mut self, place: PciPlace, xid: u32, at: f64, old: bool) {
        let Some(gpu) = self.gpu(place) else { return };
        if let Some(count) = gpu.counts.iter_mut().find(|count| count.xid == xid) {
            count.total += 1;
        } else if gpu.counts.len() < NUMBERS_MAX {
            gpu.counts.push(XidCount { xid, total: 1, announced: old });
        }
        gpu.recent.push_back((at, xid));
        if gpu.recent.len() > RECENT_MAX {
            gpu.recent.pop_front();
        }
    }

    fn gpu(&mut self, place: PciPlace) -> Option<&mut XidsOfGpu> {
        let at = match self.places.iter().position(|one| one.place == place) {
            Some(at) => at,
            None if self.places.len() < PLACES_MAX => {
                let (counts, recent, unclaimed) = (Vec::new(), VecDeque::new(), Vec::new());
                self.places.push(XidsOfGpu { place, counts, recent, unclaimed });
                self.places.len() - 1
            }
            None => return None,
        };
        self.places.get_mut(at)
    }
}

impl XidsOfGpu {
    /// The last XID of the window, 0 if there was none.
    pub(super) fn last(&self) -> u32 {
        self.recent.back().map_or(0, |(_, xid)| *xid)
    }

    /// How often an XID came within the window.
    pub(super) fn within_window(&self, xid: u32) -> usize {
        self.recent.iter().filter(|(_, number)| *number == xid).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> PciPlace {
        PciPlace::parse("0000:41:00").unwrap()
    }

    fn total(xids: &Xids, xid: u32) -> u64 {
        let counts = xids.find(place()).map(|gpu| gpu.counts.as_slice()).unwrap_or_default();
        counts.iter().find(|count| count.xid == xid).map_or(0, |count| count.total)
    }

    #[test]
    fn two_equal_xids_are_two_and_the_gauge_clears_after_its_window() {
        let mut xids = Xids::default();
        xids.logged(place(), 31, 100.0, false);
        xids.logged(place(), 31, 101.0, false);
        xids.tick(101.0);
        let gpu = xids.find(place()).unwrap();
        assert_eq!((total(&xids, 31), gpu.last(), gpu.within_window(31)), (2, 31, 2));
        xids.tick(402.0);
        let gpu = xids.find(place()).unwrap();
        assert_eq!((total(&xids, 31), gpu.last(), gpu.within_window(31)), (2, 0, 0));
    }

    #[test]
    fn an_event_and_its_line_are_one_whichever_comes_first() {
        let mut xids = Xids::default();
        xids.logged(place(), 79, 100.0, false);
        xids.event(place(), 79, 100.5, true);
        xids.tick(103.0);
        assert_eq!(total(&xids, 79), 1);
        xids.event(place(), 48, 200.0, true);
        xids.tick(200.5);
        assert_eq!(total(&xids, 48), 0, "waits for its line");
        xids.logged(place(), 48, 200.9, false);
        xids.tick(205.0);
        assert_eq!(total(&xids, 48), 1);
    }

    #[test]
    fn an_event_without_a_line_counts_and_each_line_claims_one_event() {
        let mut xids = Xids::default();
        xids.event(place(), 62, 100.0, true);
        xids.tick(103.0);
        assert_eq!(total(&xids, 62), 1);
        xids.event(place(), 13, 100.0, false);
        assert_eq!(total(&xids, 13), 1, "at once without a log");
        // Two lines, three events: three XIDs.
        xids.logged(place(), 63, 110.0, false);
        xids.logged(place(), 63, 110.1, false);
        for _ in 0..3 {
            xids.event(place(), 63, 110.5, true);
        }
        xids.tick(120.0);
        assert_eq!(total(&xids, 63), 3);
    }

    #[test]
    fn floods_are_counted_and_stay_bounded() {
        let mut xids = Xids::default();
        for number in 0..100_000u32 {
            xids.logged(place(), number % 200, 100.0, false);
        }
        let gpu = xids.find(place()).unwrap();
        assert_eq!((gpu.counts.len(), gpu.recent.len()), (NUMBERS_MAX, RECENT_MAX));
    }
}
