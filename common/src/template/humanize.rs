//! Numbers as Prometheus' rule templates show them to people.

use super::format::float_general;

fn scaled(value: f64, base: f64, up: &[&str], down: &[&str]) -> String {
    if value == 0.0 || !value.is_finite() {
        return float_general(value, Some(4));
    }
    let mut value = value;
    let mut prefix = "";
    if value.abs() >= 1.0 {
        for next in up {
            if value.abs() < base {
                break;
            }
            prefix = next;
            value /= base;
        }
    } else {
        for next in down {
            if value.abs() >= 1.0 {
                break;
            }
            prefix = next;
            value *= base;
        }
    }
    format!("{}{prefix}", float_general(value, Some(4)))
}

/// SI prefixes: 1234567 is `1.235M`.
pub fn humanize(value: f64) -> String {
    const UP: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    const DOWN: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];
    scaled(value, 1_000.0, &UP, &DOWN)
}

/// Binary prefixes: 1048576 is `1Mi`.
pub fn humanize_1024(value: f64) -> String {
    const UP: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];
    if value.abs() <= 1.0 {
        return float_general(value, Some(4));
    }
    scaled(value, 1_024.0, &UP, &[])
}

/// Seconds in days, hours, minutes and seconds: 3661 is `1h 1m 1s`.
pub fn humanize_duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return float_general(seconds, Some(4));
    }
    if seconds == 0.0 {
        return "0s".to_owned();
    }
    if seconds.abs() >= 1.0 {
        let sign = if seconds < 0.0 { "-" } else { "" };
        let whole = seconds.abs() as i64;
        let (days, hours, minutes, rest) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
        if days != 0 {
            return format!("{sign}{days}d {hours}h {minutes}m {rest}s");
        }
        if hours != 0 {
            return format!("{sign}{hours}h {minutes}m {rest}s");
        }
        if minutes != 0 {
            return format!("{sign}{minutes}m {rest}s");
        }
        return format!("{}s", float_general(seconds, Some(4)));
    }
    let mut value = seconds;
    let mut prefix = "";
    for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1_000.0;
    }
    format!("{}{prefix}s", float_general(value, Some(4)))
}

/// A ratio in per cent: 0.1234 is `12.34%`.
pub fn humanize_percentage(ratio: f64) -> String {
    format!("{}%", float_general(ratio * 100.0, Some(4)))
}
