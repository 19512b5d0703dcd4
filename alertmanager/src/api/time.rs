//! Times as the API writes and reads them.

use chrono::{DateTime, SecondsFormat};
use pharos_common::sample::TimestampMs;

/// RFC 3339 with milliseconds, UTC.
pub(crate) fn rfc3339(at_ms: TimestampMs) -> String {
    DateTime::from_timestamp_millis(at_ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// RFC 3339 without zeros at the end of the fraction, as Go writes times into JSON.
pub(crate) fn rfc3339_short(at_ms: TimestampMs) -> String {
    let text = rfc3339(at_ms);
    let bare = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    // Zeros before the point are part of the seconds.
    if text.contains(".000") { text.replace(".000", "") } else { format!("{bare}Z") }
}

/// Reads RFC 3339. Go's zero time (year 1) means that nothing was said.
pub(crate) fn parse(text: &str) -> Result<Option<TimestampMs>, String> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|error| format!("{text:?} is no RFC 3339 time: {error}"))?;
    let at_ms = time.timestamp_millis();
    const YEAR_2_MS: i64 = -62_104_060_800_000;
    Ok((at_ms > YEAR_2_MS).then_some(at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip_and_zero_is_nothing() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339_short(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339_short(1_700_000_000_120), "2023-11-14T22:13:20.12Z");
        assert_eq!(parse("2023-11-14T23:13:20.123456+01:00"), Ok(Some(1_700_000_000_123)));
        assert_eq!(parse("0001-01-01T00:00:00.000Z"), Ok(None));
        assert!(parse("yesterday").is_err());
    }
}
