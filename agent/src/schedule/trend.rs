//! Tells whether a value moves more than it usually does.
//!
//! For each column a running mean and a running mean deviation of its signal are kept: of the value for a
//! gauge, of the increase since the last reading for a counter. A signal far outside of both is a surprise.

use crate::group::{Group, Presence};
use pharos_proto::catalogue::{Catalogue, Kind};

/// Readings before anything can surprise: until then nobody knows what is usual.
const READINGS_TO_LEARN: u8 = 10;
/// Weight of the newest reading in both running means.
const WEIGHT: f64 = 0.1;
/// A surprise is this many usual deviations away from the mean …
const DEVIATIONS: f64 = 6.0;
/// … and this share of the mean beyond that, so that what was constant may stir a little.
const SHARE: f64 = 0.05;

/// What a signal may move by without meaning anything, by kind and unit: where nearly nothing is usual, a
/// little more than nothing would always be a surprise, and a sampler that goes fast costs ten times as much.
/// A counter of lost time (pressure, clock events) is to lose a quarter of a second between two readings.
const STIRRINGS: [(Kind, &str, f64); 10] = [
    (Kind::Counter, "seconds", 0.25),
    (Kind::Counter, "ns", 2.5e8),
    (Kind::Gauge, "percent", 10.0),
    (Kind::Gauge, "ratio", 0.1),
    (Kind::Gauge, "C", 3.0),
    (Kind::Gauge, "celsius", 3.0),
    (Kind::Gauge, "W", 10.0),
    (Kind::Gauge, "watts", 10.0),
    (Kind::Gauge, "MHz", 50.0),
    (Kind::Gauge, "MiB", 64.0),
];

/// What is usual for the columns of one group.
#[derive(Debug, Default)]
pub(super) struct GroupTrend {
    columns: Vec<Trend>,
    last_present: Presence,
}

#[derive(Clone, Copy, Debug)]
struct Trend {
    signal: Signal,
    /// Less than this is no surprise.
    stirring: f64,
    last: f64,
    mean: f64,
    deviation: f64,
    seen: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Value,
    Increase,
    Nothing,
}

impl GroupTrend {
    /// Starts to learn a group.
    pub(super) fn of(group: &Group) -> Self {
        let columns = group.columns().iter().map(|column| {
            let described = column.description.as_ref().map(|description| (description.kind, ""));
            let known = || Catalogue::get().find(&column.name).map(|metric| (metric.kind, metric.unit));
            let (kind, unit) = described.or_else(known).unzip();
            let signal = match kind {
                Some(Kind::Counter) => Signal::Increase,
                Some(Kind::Gauge) => Signal::Value,
                _ => Signal::Nothing,
            };
            let stirring =
                STIRRINGS.iter().find(|(of, in_unit, _)| Some(*of) == kind && Some(*in_unit) == unit);
            let stirring = stirring.map_or(0.0, |(_, _, least)| *least);
            Trend { signal, stirring, last: 0.0, mean: 0.0, deviation: 0.0, seen: 0 }
        });
        GroupTrend { columns: columns.collect(), last_present: Presence::EMPTY }
    }

    /// Takes a reading at a grid point; whether something in it is a surprise.
    pub(super) fn observe(&mut self, group: &Group) -> bool {
        let mut surprise = false;
        for (at, (trend, value)) in self.columns.iter_mut().zip(group.values()).enumerate() {
            if !group.present().contains(at) || !value.is_finite() {
                continue;
            }
            surprise |= trend.observe(*value, self.last_present.contains(at));
        }
        self.last_present = group.present();
        surprise
    }
}

impl Trend {
    fn observe(&mut self, value: f64, has_last: bool) -> bool {
        let last = std::mem::replace(&mut self.last, value);
        let signal = match self.signal {
            Signal::Value => value,
            // A reset tells nothing of the increase.
            Signal::Increase if has_last && value >= last => value - last,
            _ => return false,
        };
        if self.seen == 0 {
            self.mean = signal;
        }
        let away = (signal - self.mean).abs();
        let learned = self.seen >= READINGS_TO_LEARN;
        let usual = DEVIATIONS * self.deviation + SHARE * self.mean.abs();
        let surprise = learned && away > usual.max(self.stirring);
        self.seen = self.seen.saturating_add(1);
        self.mean += WEIGHT * (signal - self.mean);
        self.deviation += WEIGHT * (away - self.deviation);
        surprise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(signal: Signal) -> Trend {
        Trend { signal, stirring: 0.0, last: 0.0, mean: 0.0, deviation: 0.0, seen: 0 }
    }

    #[test]
    fn what_jumps_surprises_and_what_wobbles_as_always_does_not() {
        let mut gauge = trend(Signal::Value);
        for at in 0..100 {
            assert!(!gauge.observe(50.0 + f64::from(at % 3), true), "reading {at}");
        }
        assert!(gauge.observe(95.0, true));
        let mut counter = trend(Signal::Increase);
        let mut total = 0.0;
        for at in 0..100 {
            total += 10.0;
            assert!(!counter.observe(total, at > 0), "reading {at}");
        }
        assert!(!counter.observe(3.0, true), "a reset is no movement");
        assert!(counter.observe(503.0, true), "a burst is");
    }

    #[test]
    fn a_little_pressure_where_there_is_none_is_no_surprise_and_a_quarter_of_the_time_is() {
        use crate::group::{ColumnSpec, GroupSet};
        let mut groups = GroupSet::default();
        let columns = vec![ColumnSpec::plain("node_pressure_io_waiting_seconds_total")];
        let handle = groups.define("pressure", Vec::new(), columns);
        let mut trend = GroupTrend::of(groups.group(handle).unwrap());
        let mut lost = 0.0;
        let mut read = |more: f64| {
            lost += more;
            groups.begin();
            let group = groups.group(handle).unwrap();
            group.put(0, lost);
            trend.observe(group)
        };
        assert!((0..30).all(|_| !read(0.0)));
        assert!(!read(0.2));
        assert!(read(0.4));
    }

    #[test]
    fn nothing_surprises_before_it_is_known_and_constants_never_do() {
        let mut gauge = trend(Signal::Value);
        assert!(!gauge.observe(1.0, false));
        assert!(!gauge.observe(1_000.0, true));
        let mut constant = trend(Signal::Nothing);
        for at in 0..30 {
            assert!(!constant.observe(f64::from(at * at), true));
        }
    }
}
