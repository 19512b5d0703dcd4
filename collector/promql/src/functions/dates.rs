//! Parts of a date in UTC.

use super::DatePart;

/// A part of the date that is `seconds` after 1970.
pub(crate) fn part(part: DatePart, seconds: f64) -> f64 {
    let seconds = whole_seconds(seconds);
    let days = seconds.div_euclid(86_400) as i64;
    let of_day = seconds.rem_euclid(86_400) as i64;
    match part {
        DatePart::Hour => (of_day / 3_600) as f64,
        DatePart::Minute => (of_day / 60 % 60) as f64,
        // 1970-01-01 was a Thursday.
        DatePart::DayOfWeek => (days + 4).rem_euclid(7) as f64,
        DatePart::Year => civil(days).year as f64,
        DatePart::Month => civil(days).month as f64,
        DatePart::DayOfMonth => civil(days).day as f64,
        DatePart::DayOfYear => (days - days_before_year(civil(days).year) + 1) as f64,
        DatePart::DaysInMonth => {
            let date = civil(days);
            days_in_month(date.year, date.month) as f64
        }
    }
}

/// The second, as far from 1970, at which Go's calendar begins. What is before wraps around to its end.
const CALENDAR_START: i128 = -9_223_371_966_579_724_800;

/// What is no 64-bit number of seconds is the least one, as on the machines Prometheus runs on; and that
/// is before Go's calendar begins.
fn whole_seconds(seconds: f64) -> i128 {
    let whole = if seconds.is_nan() || seconds >= i64::MAX as f64 || seconds < i64::MIN as f64 {
        i64::MIN
    } else {
        seconds as i64
    };
    let whole = i128::from(whole);
    if whole < CALENDAR_START { whole + (1 << 64) } else { whole }
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
}

/// Year, month and day of a number of days since 1970, by counting years from March on, so that the leap
/// day is the last of its year.
fn civil(days: i64) -> Date {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    Date {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
    }
}

/// A time as RFC 3339, to the second.
pub(crate) fn rfc3339(time_ms: i64) -> String {
    let seconds = time_ms.div_euclid(1000);
    let Date { year, month, day } = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_before_year(year: i64) -> i64 {
    let y = year - 1;
    y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) - 719_162
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        #[track_caller]
        fn check(seconds: f64, year: f64, month: f64, day: f64, day_of_year: f64) {
            assert_eq!(part(DatePart::Year, seconds), year);
            assert_eq!(part(DatePart::Month, seconds), month);
            assert_eq!(part(DatePart::DayOfMonth, seconds), day);
            assert_eq!(part(DatePart::DayOfYear, seconds), day_of_year);
        }
        check(0.0, 1970.0, 1.0, 1.0, 1.0);
        check(951_782_400.0, 2000.0, 2.0, 29.0, 60.0);
        check(1_735_603_200.0, 2024.0, 12.0, 31.0, 366.0);
        check(-1.0, 1969.0, 12.0, 31.0, 365.0);
        assert_eq!(part(DatePart::DaysInMonth, 1_709_251_199.0), 29.0);
        assert_eq!(part(DatePart::DayOfWeek, 0.0), 4.0);
    }
}
