//! Calendar times at which routes are mute or active: `mute_time_intervals`, `active_time_intervals`.

use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use chrono_tz::Tz;
use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Deserializer};
use std::ops::RangeInclusive;

/// A time of week, month and year that recurs. What is not written is no condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeInterval {
    /// Times of day.
    #[serde(default)]
    pub times: Vec<TimeRange>,
    /// Days of the week, Sunday is 0.
    #[serde(default)]
    pub weekdays: Vec<WeekdayRange>,
    /// Days of the month; negative ones count from its end.
    #[serde(default)]
    pub days_of_month: Vec<DayRange>,
    /// Months.
    #[serde(default)]
    pub months: Vec<MonthRange>,
    /// Years.
    #[serde(default)]
    pub years: Vec<YearRange>,
    /// Whose clocks; UTC if not written.
    #[serde(default, deserialize_with = "location")]
    pub location: Option<Tz>,
}

/// Minutes of the day, the end excluded.
#[derive(Clone, Debug)]
pub(crate) struct TimeRange {
    start_minute: u32,
    end_minute: u32,
}

/// Days of the week, both ends included.
#[derive(Clone, Debug)]
pub(crate) struct WeekdayRange(RangeInclusive<i32>);

/// Days of the month, both ends included.
#[derive(Clone, Debug)]
pub(crate) struct DayRange(RangeInclusive<i32>);

/// Months, both ends included.
#[derive(Clone, Debug)]
pub(crate) struct MonthRange(RangeInclusive<i32>);

/// Years, both ends included.
#[derive(Clone, Debug)]
pub(crate) struct YearRange(RangeInclusive<i32>);

impl TimeInterval {
    /// Whether the interval contains a time.
    pub(crate) fn contains(&self, at_ms: TimestampMs) -> bool {
        let Some(utc) = DateTime::from_timestamp_millis(at_ms) else { return false };
        let at = utc.with_timezone(&self.location.unwrap_or(Tz::UTC));
        let minute = at.hour() * 60 + at.minute();
        let any = |ranges: &mut dyn Iterator<Item = bool>| {
            let mut ranges = ranges.peekable();
            ranges.peek().is_none() || ranges.any(|hit| hit)
        };
        let weekday = at.weekday().num_days_from_sunday() as i32;
        any(&mut self.times.iter().map(|range| (range.start_minute..range.end_minute).contains(&minute)))
            && any(&mut self.days_of_month.iter().map(|range| day_in(range, at.date_naive())))
            && any(&mut self.months.iter().map(|range| range.0.contains(&(at.month() as i32))))
            && any(&mut self.weekdays.iter().map(|range| range.0.contains(&weekday)))
            && any(&mut self.years.iter().map(|range| range.0.contains(&at.year())))
    }
}

fn day_in(range: &DayRange, date: NaiveDate) -> bool {
    let days = days_in_month(date);
    let from_start = |day: i32| if day < 0 { days + day + 1 } else { day };
    let (start, end) = (from_start(*range.0.start()).max(1), from_start(*range.0.end()).min(days));
    (start..=end).contains(&(date.day() as i32))
}

fn days_in_month(date: NaiveDate) -> i32 {
    (28..=31).rev().find(|&day| date.with_day(day).is_some()).unwrap_or(28) as i32
}

fn location<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Tz>, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map(Some).map_err(|_| {
        serde::de::Error::custom(format!("unknown time zone {name:?} (write for example Europe/Paris)"))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeRangeText {
    start_time: String,
    end_time: String,
}

impl<'de> Deserialize<'de> for TimeRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = TimeRangeText::deserialize(deserializer)?;
        let minute = |text: &str| {
            minute_of_day(text)
                .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no time of day (write HH:MM)")))
        };
        let (start_minute, end_minute) = (minute(&text.start_time)?, minute(&text.end_time)?);
        if start_minute >= end_minute {
            return Err(serde::de::Error::custom("start time cannot be equal or greater than end time"));
        }
        Ok(TimeRange { start_minute, end_minute })
    }
}

fn minute_of_day(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    if hour.len() != 2 || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= 24 * 60).then_some(total)
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Reads `a` or `a:b`.
fn range<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &str,
    read: impl Fn(&str) -> Option<i32>,
    ordered: impl Fn(i32, i32) -> bool,
) -> Result<RangeInclusive<i32>, D::Error> {
    let text = String::deserialize(deserializer)?.to_lowercase();
    let fault = || serde::de::Error::custom(format!("{text:?} is no {what} or range of them"));
    let (start, end) = text.split_once(':').unwrap_or((&text, &text));
    let (start, end) = (read(start.trim()).ok_or_else(fault)?, read(end.trim()).ok_or_else(fault)?);
    if !ordered(start, end) {
        return Err(serde::de::Error::custom(format!("{text:?} ends before it starts")));
    }
    Ok(start..=end)
}

impl<'de> Deserialize<'de> for WeekdayRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |name: &str| WEEKDAYS.iter().position(|day| *day == name).map(|at| at as i32);
        range(deserializer, "day of the week", read, |start, end| start <= end).map(WeekdayRange)
    }
}

impl<'de> Deserialize<'de> for MonthRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |name: &str| match MONTHS.iter().position(|month| *month == name) {
            Some(at) => Some(at as i32 + 1),
            None => name.parse().ok().filter(|month| (1..=12).contains(month)),
        };
        range(deserializer, "month", read, |start, end| start <= end).map(MonthRange)
    }
}

impl<'de> Deserialize<'de> for DayRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| text.parse().ok().filter(|day: &i32| (1..=31).contains(&day.abs()));
        // A range from the start to the end of a month (1:-1) is ordered in every month.
        let ordered = |start: i32, end: i32| {
            (start < 0) != (end < 0) && start > 0 || start <= end && (start < 0) == (end < 0)
        };
        range(deserializer, "day of the month", read, ordered).map(DayRange)
    }
}

impl<'de> Deserialize<'de> for YearRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        range(deserializer, "year", |text| text.parse().ok(), |start, end| start <= end).map(YearRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(yaml: &str, at: &str, want: bool) {
        let interval: TimeInterval =
            pharos_common::config::parse(std::path::Path::new("t.yml"), yaml).unwrap();
        let at = DateTime::parse_from_rfc3339(at).unwrap().timestamp_millis();
        assert_eq!(interval.contains(at), want, "{yaml}");
    }

    #[test]
    fn intervals_contain_what_their_conditions_say() {
        let office = "times: [{start_time: '09:00', end_time: '17:00'}]\nweekdays: ['monday:friday']\n";
        check(office, "2026-11-20T09:00:00Z", true);
        check(office, "2026-11-20T17:00:00Z", false);
        check(office, "2026-11-22T10:00:00Z", false);
        let paris = format!("{office}location: Europe/Paris\n");
        check(&paris, "2026-11-20T08:00:00Z", true);
        check(&paris, "2026-11-20T16:30:00Z", false);
        check("days_of_month: ['-3:-1']", "2026-02-26T00:00:00Z", true);
        check("days_of_month: ['-3:-1']", "2026-02-25T00:00:00Z", false);
        check("days_of_month: ['1:-1']", "2026-02-25T00:00:00Z", true);
        check("months: ['november', '1:2']", "2026-11-25T00:00:00Z", true);
        check("months: ['november', '1:2']", "2026-03-25T00:00:00Z", false);
        check("years: ['2020:2025']", "2026-03-25T00:00:00Z", false);
        check("{}", "2026-03-25T00:00:00Z", true);
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for yaml in [
            "times: [{start_time: '9:00', end_time: '17:00'}]",
            "times: [{start_time: '18:00', end_time: '17:00'}]",
            "times: [{start_time: '18:00', end_time: '24:01'}]",
            "weekdays: ['someday']",
            "weekdays: ['friday:monday']",
            "days_of_month: ['0']",
            "days_of_month: ['-1:1']",
            "months: ['13']",
            "location: Nowhere/Land",
            "hours: ['1']",
        ] {
            let parsed: Result<TimeInterval, _> =
                pharos_common::config::parse(std::path::Path::new("t.yml"), yaml);
            assert!(parsed.is_err(), "{yaml}");
        }
    }
}
