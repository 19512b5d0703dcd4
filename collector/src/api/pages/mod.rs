//! Pages for people: a query box with table and graph, rules, alerts, nodes. Plain HTML from the server,
//! without scripts or anything from elsewhere.

mod graph;
mod html;
mod lists;
mod view;

pub(crate) use lists::{alerts, rules, targets};

use super::json::format_value;
use super::parameters::Parameters;
use super::query::api_error;
use crate::collector::Collector;
use crate::queries::{QuerySettings, When};
use crate::query_log::Origin;
use axum::extract::State;
use axum::response::Html;
use html::{escape, page};
use pharos_promql::ast::ValueType;
use pharos_promql::{SampleValue, Value};
use std::fmt::Write;
use std::sync::Arc;
use view::View;

/// Rows of a table; the rest is only counted.
const ROWS_MAX: usize = 500;
/// Points of a graph's line.
const POINTS: i64 = 400;

/// `/` and `/graph`
pub(crate) async fn home(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Html<String> {
    let view = View::of(&parameters);
    let mut body = form(&view);
    if view.query.is_empty() {
        body += &overview(&collector);
    } else {
        match answer(&collector, &view, &parameters.origin).await {
            Ok(html) => body += &html,
            Err(message) => body += &format!("<p class=error>{}</p>", escape(&message)),
        }
    }
    Html(page("Query", &body))
}

/// Time zones that are proposed; any other can be written.
const ZONES: [&str; 8] = [
    "UTC",
    "America/Los_Angeles",
    "America/New_York",
    "Europe/London",
    "Europe/Berlin",
    "Asia/Kolkata",
    "Asia/Shanghai",
    "Asia/Tokyo",
];

fn form(view: &View) -> String {
    let zones = ZONES.map(|zone| format!("<option value='{zone}'>")).concat();
    format!(
        "<form action=/graph><input name=query class=query autofocus placeholder='PromQL, for example \
         100 - 100 * avg by (instance) (rate(node_cpu_seconds_total{{mode=&quot;idle&quot;}}[10s]))' value=\"{}\">\
         <input name=range size=5 title='Range of the graph' value=\"{}\">\
         <input name=end size=16 title='End of the graph' placeholder=now value=\"{}\">\
         <input name=tz size=14 list=zones title='Time zone' value=\"{}\"><datalist id=zones>{zones}</datalist>\
         <button>Run</button></form>",
        escape(&view.query),
        escape(&view.range),
        escape(&view.end),
        escape(&view.zone)
    )
}

fn overview(collector: &Collector) -> String {
    let stats = collector.database.stats();
    let nodes = collector.coverage.nodes();
    let up = nodes.values().filter(|node| node.up).count();
    let groups = collector.rules.groups();
    let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
    let alerts: usize =
        groups.iter().flat_map(|group| &group.rules).map(|rule| rule.state().alerts.active_count()).sum();
    let number = |label: &str, value: String, link: &str| {
        format!("<a class=card href='{link}'><b>{value}</b><span>{label}</span></a>")
    };
    let examples = ["pharos_node_up", "node_load1", "rate(node_network_receive_bytes_total[30s])", "ALERTS"];
    let mut html = String::from("<div class=cards>");
    html += &number("nodes report", format!("{up} / {}", nodes.len()), "/targets");
    html += &number("active series", stats.head_series.to_string(), "/graph?query=count({__name__!=%22%22})");
    html += &number("samples stored", stats.samples_appended.to_string(), "/metrics");
    html += &number("alerts active", alerts.to_string(), "/alerts");
    html += &number("rules", rules.to_string(), "/rules");
    html += "</div><p>Try: ";
    for example in examples {
        let link = crate::rules::text::link(example, 0).replace("g0.expr", "query");
        let _ = write!(html, "<a href=\"{}\"><code>{}</code></a> ", escape(&link), escape(example));
    }
    html + "</p>"
}

async fn answer(collector: &Collector, view: &View, origin: &Origin) -> Result<String, String> {
    let expr = pharos_promql::parse(&view.query).map_err(|error| error.to_string())?;
    let (range_ms, zone) = (view.range_ms()?, view.zone()?);
    let end_ms = view.end_ms(collector.clock.now_ms())?;
    let start_ms = end_ms.saturating_sub(range_ms);
    let draws = matches!(expr.value_type(), ValueType::Scalar | ValueType::Vector);
    let settings = QuerySettings::default();
    let instant = collector
        .queries
        .run(expr.clone(), When::Instant(end_ms), settings, origin)
        .await
        .map_err(|failure| api_error(&failure).message().to_owned())?;
    let mut html = String::new();
    for remark in instant.result.warnings.iter().chain(&instant.result.infos) {
        let _ = write!(html, "<p class=remark>{}</p>", escape(remark));
    }
    if draws {
        let step_ms = (range_ms / POINTS).max(1_000);
        let when = When::Range { start_ms, end_ms, step_ms };
        let drawn = collector
            .queries
            .run(expr, when, settings, origin)
            .await
            .map_err(|failure| api_error(&failure).message().to_owned())?;
        if let Value::Matrix(matrix) = &drawn.result.value {
            let axis = graph::Axis { start_ms, end_ms, step_ms, zone };
            html += &graph::draw(matrix, &axis);
        }
    }
    html += &table(&instant.result.value);
    let took_ms = instant.cost.evaluated.as_secs_f64() * 1e3;
    let stats = instant.result.stats;
    let _ = write!(
        html,
        "<p class=remark>at {}: {took_ms:.1} ms, {} series, {} samples read · <a href=\"{}\">link to this view</a></p>",
        view::time_text(end_ms, zone, "%Y-%m-%d %H:%M:%S %Z"),
        stats.series_read,
        stats.samples_read,
        escape(&view.address(end_ms))
    );
    Ok(html)
}

fn table(value: &Value) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut total = 1;
    match value {
        Value::Scalar(sample) => rows.push(("scalar".to_owned(), format_value(sample.value))),
        Value::String { text, .. } => rows.push(("string".to_owned(), text.clone())),
        Value::Vector(vector) => {
            total = vector.len();
            rows.extend(vector.iter().take(ROWS_MAX).map(|sample| {
                let value = match &sample.value {
                    SampleValue::Float(value) => format_value(*value),
                    SampleValue::Histogram(histogram) => {
                        format!("count {} sum {}", format_value(histogram.count), format_value(histogram.sum))
                    }
                };
                (sample.labels.to_string(), value)
            }));
        }
        Value::Matrix(matrix) => {
            total = matrix.len();
            rows.extend(matrix.iter().take(ROWS_MAX).map(|series| {
                let values: Vec<String> = series
                    .floats
                    .iter()
                    .rev()
                    .take(10)
                    .map(|sample| {
                        format!("{} @{}", format_value(sample.value), sample.timestamp_ms as f64 / 1e3)
                    })
                    .collect();
                (series.labels.to_string(), values.join("\n"))
            }));
        }
    }
    if rows.is_empty() {
        return "<p>No series has a value now.</p>".to_owned();
    }
    let mut html = String::from("<table><tr><th>Series<th>Value");
    for (series, value) in &rows {
        let _ = write!(html, "<tr><td><code>{}</code><td class=number>{}", escape(series), escape(value));
    }
    html += "</table>";
    if total > rows.len() {
        let _ = write!(html, "<p class=remark>{} more series are not shown</p>", total - rows.len());
    }
    html
}
