//! Times and durations of requests, read as Prometheus reads them.

use super::answer::ApiError;
use super::parameters::Parameters;
use pharos_common::duration::PrometheusDuration;
use pharos_common::sample::TimestampMs;
use std::time::Duration;

/// As early as anything can be.
pub(crate) const EARLIEST_MS: TimestampMs = i64::MIN / 4;
/// As late as anything can be.
pub(crate) const LATEST_MS: TimestampMs = i64::MAX / 4;

/// Prometheus' names for those two.
const EARLIEST_TEXT: &str = "-292273086-05-16T16:47:06Z";
const LATEST_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// Seconds since the epoch, or RFC 3339.
pub(crate) fn parse_time(text: &str) -> Option<TimestampMs> {
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = (seconds * 1e3).round();
        let fits = millis > EARLIEST_MS as f64 && millis < LATEST_MS as f64;
        return fits.then_some(millis as i64);
    }
    match text.trim_start_matches('+') {
        EARLIEST_TEXT => Some(EARLIEST_MS),
        LATEST_TEXT => Some(LATEST_MS),
        text => chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis()),
    }
}

/// Seconds, or `5m`.
pub(crate) fn parse_duration_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let millis = (seconds * 1e3).round();
        return (millis.abs() < 9.2e15).then_some(millis as i64);
    }
    text.parse::<PrometheusDuration>().ok().map(PrometheusDuration::as_millis_i64)
}

impl Parameters {
    /// A time that must be given.
    pub(crate) fn time(&self, name: &str) -> Result<TimestampMs, ApiError> {
        let text = self.get_or_empty(name);
        parse_time(text)
            .ok_or_else(|| ApiError::parameter(name, format!("cannot parse {text:?} to a valid timestamp")))
    }

    /// A time, or `default`.
    pub(crate) fn time_or(&self, name: &str, default: TimestampMs) -> Result<TimestampMs, ApiError> {
        if self.get(name).is_some() { self.time(name) } else { Ok(default) }
    }

    /// A duration that must be given, in milliseconds.
    pub(crate) fn duration_ms(&self, name: &str) -> Result<i64, ApiError> {
        let text = self.get_or_empty(name);
        parse_duration_ms(text)
            .ok_or_else(|| ApiError::parameter(name, format!("cannot parse {text:?} to a valid duration")))
    }

    /// A duration that may be given and is positive.
    pub(crate) fn positive_duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        if self.get(name).is_none() {
            return Ok(None);
        }
        match u64::try_from(self.duration_ms(name)?) {
            Ok(millis) if millis > 0 => Ok(Some(Duration::from_millis(millis))),
            _ => Err(ApiError::parameter(name, "the duration must be positive")),
        }
    }

    /// `start` and `end` of a search for series.
    pub(crate) fn search_range(&self) -> Result<(TimestampMs, TimestampMs), ApiError> {
        let start_ms = self.time_or("start", EARLIEST_MS)?;
        let end_ms = self.time_or("end", LATEST_MS)?;
        if end_ms < start_ms {
            return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
        }
        Ok((start_ms, end_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_prometheus_reads_them() {
        assert_eq!(parse_time("4"), Some(4_000));
        assert_eq!(parse_time("1543578564.705"), Some(1_543_578_564_705));
        assert_eq!(parse_time("2015-06-03T13:21:58.555Z"), Some(1_433_337_718_555));
        assert_eq!(parse_time("-292273086-05-16T16:47:06Z"), Some(EARLIEST_MS));
        for text in ["", "now", "NaN", "1e40", "inf"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_prometheus_reads_them() {
        assert_eq!(parse_duration_ms("0.5"), Some(500));
        assert_eq!(parse_duration_ms("5m"), Some(300_000));
        for text in ["", "x", "NaN", "1e300", "99999999999999999999y"] {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
    }
}
