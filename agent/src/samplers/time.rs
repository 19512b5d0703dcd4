//! `time`: what the clock shows, in which time zone, and what drives it.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use crate::system_calls::local_time_zone;
use std::time::{SystemTime, UNIX_EPOCH};

/// Readings between two looks at the clock sources.
const READINGS_BETWEEN_LOOKS: u32 = 10;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = |name: &str| {
        KernelFile::whole(options.paths.sys("devices/system/clocksource/clocksource0").join(name))
    };
    Box::new(TimeSampler {
        available: file("available_clocksource"),
        current: file("current_clocksource"),
        sources: Vec::new(),
        countdown: 0,
        zone_until: i64::MIN,
        zone: (String::new(), 0),
        group: None,
    })
}

struct TimeSampler {
    available: KernelFile,
    current: KernelFile,
    /// Content of both files when columns were laid out.
    sources: Vec<u8>,
    /// Readings until both files are read again: people change them by hand, if ever.
    countdown: u32,
    /// The zone is looked up again from this second on: it changes with the season.
    zone_until: i64,
    zone: (String, i64),
    group: Option<GroupHandle>,
}

impl Sampler for TimeSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = now.as_secs() as i64;
        let mut changed = self.group.is_none();
        if seconds >= self.zone_until || seconds < self.zone_until - 60 {
            self.zone_until = seconds + 60;
            let zone = local_time_zone(seconds).unwrap_or_else(|| ("UTC".to_owned(), 0));
            changed |= zone != self.zone;
            self.zone = zone;
        }
        if self.countdown == 0 {
            self.countdown = READINGS_BETWEEN_LOOKS;
            changed |= self.read_sources(buffer)?;
        }
        self.countdown -= 1;
        if changed {
            self.lay_out(groups);
        }
        let Some(group) = self.group.and_then(|handle| groups.group(handle)) else { return Ok(()) };
        group.put(0, now.as_secs_f64());
        group.put(1, self.zone.1 as f64);
        (2..group.columns().len()).for_each(|column| group.put(column, 1.0));
        Ok(())
    }
}

impl TimeSampler {
    /// Reads what clock sources there are; whether they are others than before.
    fn read_sources(&mut self, buffer: &mut ReadBuffer) -> Result<bool, SampleError> {
        let mut changed = false;
        let mut compared = 0;
        for file in [&mut self.available, &mut self.current] {
            let text = file.read_if_present(buffer)?.unwrap_or_default();
            let end = compared + text.len();
            if self.sources.get(compared..end) != Some(text) {
                self.sources.truncate(compared);
                self.sources.extend_from_slice(text);
                changed = true;
            }
            compared = end;
        }
        if self.sources.len() > compared {
            self.sources.truncate(compared);
            changed = true;
        }
        Ok(changed)
    }

    fn lay_out(&mut self, groups: &mut GroupSet) {
        let mut columns = vec![
            ColumnSpec::plain("node_time_seconds"),
            ColumnSpec::plain("node_time_zone_offset_seconds").with("time_zone", self.zone.0.clone()),
        ];
        let metrics = ["node_time_clocksource_available_info", "node_time_clocksource_current_info"];
        for (line, metric) in scan::lines(&self.sources).zip(metrics) {
            columns.extend(Fields::of(line).map(|name| {
                ColumnSpec::plain(metric)
                    .with("device", "0")
                    .with("clocksource", String::from_utf8_lossy(name).into_owned())
            }));
        }
        match self.group {
            Some(handle) => groups.redefine(handle, columns),
            None => self.group = Some(groups.define("time", Vec::new(), columns)),
        }
    }
}
