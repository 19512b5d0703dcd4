//! A matrix as a line graph in SVG.

use super::html::escape;
use super::view::time_text;
use crate::api::json::format_value;
use chrono_tz::Tz;
use pharos_common::sample::TimestampMs;
use pharos_promql::MatrixSeries;
use std::fmt::Write;

const WIDTH: f64 = 1_100.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 10.0;
/// Lines that can be told apart; the rest is left out.
const LINES_MAX: usize = 30;
const COLOURS: [&str; 8] =
    ["#1f6feb", "#d1495b", "#2e8b57", "#e08e0b", "#7b4fb5", "#00838f", "#8d6e63", "#5f6b7a"];

/// Times from left to right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) start_ms: TimestampMs,
    pub(super) end_ms: TimestampMs,
    pub(super) step_ms: i64,
    pub(super) zone: Tz,
}

/// A day: from here on a time of day alone is not enough.
const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Draws the first lines of a matrix, and below them which is which; a gap of more than two steps breaks a
/// line.
pub(super) fn draw(matrix: &[MatrixSeries], axis: &Axis) -> String {
    let &Axis { start_ms, end_ms, step_ms, zone } = axis;
    let time_format = if end_ms - start_ms < DAY_MS { "%H:%M:%S" } else { "%b %d %H:%M" };
    let shown = &matrix[..matrix.len().min(LINES_MAX)];
    let values = || shown.iter().flat_map(|series| &series.floats).map(|s| s.value).filter(|v| v.is_finite());
    let (mut low, mut high) = values()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return String::new();
    }
    if low == high {
        let margin = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
        (low, high) = (low - margin, high + margin);
    }
    let x = |at_ms: TimestampMs| {
        LEFT + (at_ms - start_ms) as f64 / (end_ms - start_ms).max(1) as f64 * (WIDTH - LEFT - 10.0)
    };
    let y = |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!("<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img font-size=11 fill='#667'>");
    for tick in 0..=4 {
        let value = low + (high - low) * f64::from(tick) / 4.0;
        let at = y(value);
        let label = axis_label(value);
        let _ = write!(
            svg,
            "<line x1={LEFT} x2={WIDTH} y1={at:.1} y2={at:.1} stroke='#e3e7ed'/>\
             <text x={:.0} y={:.1} text-anchor=end>{label}</text>",
            LEFT - 6.0,
            at + 4.0
        );
        let at_ms = start_ms + (end_ms - start_ms) * i64::from(tick) / 4;
        let time = time_text(at_ms, zone, time_format);
        let anchor = if tick == 4 { "end" } else { "middle" };
        let _ = write!(svg, "<text x={:.1} y={} text-anchor={anchor}>{time}</text>", x(at_ms), HEIGHT - 8.0);
    }
    for (series, colour) in shown.iter().zip(COLOURS.iter().cycle()) {
        let mut path = String::new();
        let mut last_ms: Option<TimestampMs> = None;
        for sample in series.floats.iter().filter(|sample| sample.value.is_finite()) {
            let joined = last_ms.is_some_and(|last| sample.timestamp_ms - last <= 2 * step_ms);
            let command = if joined { 'L' } else { 'M' };
            let _ = write!(path, "{command}{:.1} {:.1}", x(sample.timestamp_ms), y(sample.value));
            last_ms = Some(sample.timestamp_ms);
        }
        let _ = write!(
            svg,
            "<path d='{path}' fill=none stroke='{colour}' stroke-width=1.5><title>{}</title></path>",
            escape(&series.labels.to_string())
        );
    }
    svg += "</svg>";
    svg += &legend(shown);
    if matrix.len() > shown.len() {
        let _ = write!(svg, "<p class=remark>{} more lines are not drawn</p>", matrix.len() - shown.len());
    }
    svg
}

/// Which line is which, and where it went.
fn legend(shown: &[MatrixSeries]) -> String {
    let mut html = String::from("<ul class=legend>");
    for (series, colour) in shown.iter().zip(COLOURS.iter().cycle()) {
        let values = || series.floats.iter().map(|sample| sample.value);
        let low = values().fold(f64::NAN, f64::min);
        let high = values().fold(f64::NAN, f64::max);
        let _ = write!(
            html,
            "<li><i style='background:{colour}'></i><code>{}</code><span>last {}, lowest {}, highest {}</span>",
            escape(&series.labels.to_string()),
            axis_label(values().next_back().unwrap_or(f64::NAN)),
            axis_label(low),
            axis_label(high)
        );
    }
    html + "</ul>"
}

/// A value short enough for the axis.
fn axis_label(value: f64) -> String {
    if value == 0.0 || (1e-3..1e6).contains(&value.abs()) {
        let rounded = (value * 1e3).round() / 1e3;
        return format_value(rounded);
    }
    pharos_common::template::humanize(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_common::labels::Labels;
    use pharos_common::sample::Sample;

    #[test]
    fn gaps_break_a_line_and_labels_are_escaped() {
        let floats = [0, 1_000, 9_000].map(|timestamp_ms| Sample { timestamp_ms, value: 1.0 }).to_vec();
        let labels = Labels::from_pairs([("a", "<b>")]);
        let axis = Axis { start_ms: 0, end_ms: 10_000, step_ms: 1_000, zone: Tz::UTC };
        let svg = draw(&[MatrixSeries { labels, floats, histograms: Vec::new() }], &axis);
        assert_eq!(svg.matches('M').count(), 2);
        assert!(svg.contains("&lt;b&gt;"), "{svg}");
        assert!(svg.contains("last 1, lowest 1, highest 1"), "{svg}");
        assert!(svg.contains("00:00:10"), "{svg}");
        assert_eq!(draw(&[], &axis), "");
    }
}
