//! What the page of a query shows, as its address says it: the query, how much time, until when, and in whose
//! time zone. An address with an end shows the same to everybody, for ever.

use crate::api::parameters::Parameters;
use crate::api::time::{parse_duration_ms, parse_time};
use chrono::{DateTime, TimeZone};
use chrono_tz::Tz;
use pharos_common::sample::TimestampMs;

/// The range of a graph if none is asked for.
const DEFAULT_RANGE: &str = "15m";

/// What to show. Prometheus' own names of parameters are understood, too.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) query: String,
    pub(super) range: String,
    /// As written; empty for now.
    pub(super) end: String,
    pub(super) zone: String,
}

impl View {
    pub(super) fn of(parameters: &Parameters) -> Self {
        let text = |prometheus: &str, ours: &str, default: &str| {
            let text = parameters.get(prometheus).or(parameters.get(ours)).unwrap_or(default);
            text.trim().to_owned()
        };
        View {
            query: text("g0.expr", "query", ""),
            range: text("g0.range_input", "range", DEFAULT_RANGE),
            end: text("g0.end_input", "end", ""),
            zone: text("g0.tz", "tz", "UTC"),
        }
    }

    pub(super) fn range_ms(&self) -> Result<i64, String> {
        parse_duration_ms(&self.range)
            .filter(|&range_ms| range_ms > 0)
            .ok_or_else(|| format!("{:?} is no range (write for example 5m or 6h)", self.range))
    }

    pub(super) fn zone(&self) -> Result<Tz, String> {
        self.zone
            .parse()
            .map_err(|_| format!("{:?} is no time zone (write for example UTC or Europe/Berlin)", self.zone))
    }

    /// When the graph ends: seconds, RFC 3339, or `2026-01-31 12:00` in the time zone.
    pub(super) fn end_ms(&self, now_ms: TimestampMs) -> Result<TimestampMs, String> {
        if self.end.is_empty() {
            return Ok(now_ms);
        }
        let zone = self.zone()?;
        let formats = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"];
        let local = formats.iter().find_map(|format| {
            let naive = chrono::NaiveDateTime::parse_from_str(&self.end, format).ok()?;
            zone.from_local_datetime(&naive).earliest().map(|time| time.timestamp_millis())
        });
        parse_time(&self.end)
            .or(local)
            .filter(|time_ms| DateTime::from_timestamp_millis(*time_ms).is_some())
            .ok_or_else(|| format!("{:?} is no time (write for example 2026-01-31 12:00)", self.end))
    }

    /// The address of this view with a fixed end.
    pub(super) fn address(&self, end_ms: TimestampMs) -> String {
        let end = format!("{}", end_ms as f64 / 1e3);
        let pairs = [("query", &self.query), ("range", &self.range), ("end", &end), ("tz", &self.zone)];
        let pairs = pairs.map(|(name, value)| format!("{name}={}", percent_encoded(value)));
        format!("/graph?{}", pairs.join("&"))
    }
}

/// A time as people of a zone write it.
pub(super) fn time_text(time_ms: TimestampMs, zone: Tz, format: &str) -> String {
    let time = DateTime::from_timestamp_millis(time_ms).unwrap_or_default();
    time.with_timezone(&zone).format(format).to_string()
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'(' | b')' => {
                out.push(byte as char)
            }
            byte => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(end: &str, zone: &str) -> View {
        View {
            query: "up{a=\"ä\"}".to_owned(),
            range: "1h".to_owned(),
            end: end.to_owned(),
            zone: zone.to_owned(),
        }
    }

    #[test]
    fn ends_are_read_in_the_time_zone_of_the_view() {
        #[track_caller]
        fn check(end: &str, zone: &str, want: TimestampMs) {
            assert_eq!(view(end, zone).end_ms(7), Ok(want), "{end} {zone}");
        }
        check("", "UTC", 7);
        check("1700000000.5", "Europe/Berlin", 1_700_000_000_500);
        check("2023-11-14T22:13:20Z", "Asia/Tokyo", 1_700_000_000_000);
        check("2023-11-14 22:13:20", "UTC", 1_700_000_000_000);
        check("2023-11-14 23:13", "Europe/Berlin", 1_699_999_980_000);
        assert!(view("yesterday", "UTC").end_ms(0).is_err());
        assert!(view("1", "Middle/Earth").zone().is_err());
        assert_eq!(time_text(1_700_000_000_000, chrono_tz::Asia::Tokyo, "%d %H:%M"), "15 07:13");
    }

    #[test]
    fn addresses_say_all_of_a_view() {
        assert_eq!(
            view("", "UTC").address(1_700_000_000_500),
            "/graph?query=up%7Ba%3D%22%C3%A4%22%7D&range=1h&end=1700000000.5&tz=UTC"
        );
    }
}
