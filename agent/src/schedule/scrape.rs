//! `node_scrape_collector_*`: how each sampler fared, as a group of its own.

use super::Shared;
use super::runner::SCRAPE_SLOT;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};

/// Steps of a duration a second. What lies below a hundredth of a millisecond is the noise of the machine, and would
/// be half of all bytes that a host's series take in a collector.
const STEPS_PER_SECOND: f64 = 1e5;

/// A duration in seconds as it is published.
fn told(seconds: f64) -> f64 {
    (seconds * STEPS_PER_SECOND).round() / STEPS_PER_SECOND
}

#[derive(Debug, Default)]
pub(super) struct ScrapeGroup {
    groups: GroupSet,
    names: Vec<&'static str>,
    handle: Option<GroupHandle>,
}

impl ScrapeGroup {
    pub(super) fn publish(&mut self, shared: &Shared, interval_ms: u32) {
        self.groups.begin();
        shared.statuses.with(|statuses| {
            // What has not run yet has neither failed nor succeeded.
            let ran = || statuses.iter().filter(|status| status.readings > 0);
            if !ran().map(|status| status.name).eq(self.names.iter().copied()) {
                self.names = ran().map(|status| status.name).collect();
                let columns = self.names.iter().flat_map(|name| {
                    ["node_scrape_collector_duration_seconds", "node_scrape_collector_success"]
                        .map(|metric| ColumnSpec::plain(metric).with("collector", *name))
                });
                let columns = columns.collect();
                match self.handle {
                    Some(handle) => self.groups.redefine(handle, columns),
                    None => self.handle = Some(self.groups.define("scrape", Vec::new(), columns)),
                }
            }
            let Some(group) = self.handle.and_then(|handle| self.groups.group(handle)) else { return };
            for (at, status) in ran().enumerate() {
                let hangs = status.hangs_for_seconds;
                group.put(2 * at, told(hangs.unwrap_or(status.last_duration_seconds)));
                group.put(2 * at + 1, f64::from(u8::from(status.succeeded && hangs.is_none())));
            }
        });
        shared.board.publish(SCRAPE_SLOT, &mut self.groups, shared.clock.now_ms(), interval_ms);
    }
}
