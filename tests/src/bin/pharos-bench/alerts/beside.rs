//! Pharos and Prometheus on the same breaches in one run: our collector, Prometheus at 1 s everywhere, and at its
//! usual 15 s, each in front of Debian's Alertmanager; one table.
//!
//! One after another, because two cores that serve a thousand nodes twice would measure each other. All see the
//! same nodes with the same phases, values and breaches at the same seconds. Nodes push to ours and are scraped by
//! Prometheus, as either is used; a breach's clock starts with its tick in both.

use super::{Arguments, run_one};
use crate::server::Kind;
use serde_json::{Value, json};

/// Who takes part: name, server, interval of scrapes and rules, group_wait.
const CONTESTANTS: [(&str, Kind, &str, &str); 4] = [
    ("Pharos", Kind::Pharos, "1s", "0s"),
    ("Prometheus at 1 s", Kind::Prometheus, "1s", "0s"),
    ("Prometheus at 15 s", Kind::Prometheus, "15s", "0s"),
    ("Prometheus at 15 s, group_wait 30 s", Kind::Prometheus, "15s", "30s"),
];

/// The table's columns: name of the figure, and how it reads.
const FIGURES: [(&str, &str); 6] = [
    ("notified_ms_p50", "p50, ms"),
    ("notified_ms_p99", "p99, ms"),
    ("notified_ms_max", "longest, ms"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("false", "false"),
];
/// And those of a run with kills.
const KILL_FIGURES: [(&str, &str); 3] =
    [("breaches", "in the 5 s after a kill"), ("p50", "of these p50, ms"), ("max", "longest, ms")];

/// Runs all; one line of JSON, and the table on stderr.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    let mut results = Vec::new();
    for (number, (name, server, interval, group_wait)) in CONTESTANTS.into_iter().enumerate() {
        eprintln!("{} of {}: {name}", number + 1, CONTESTANTS.len());
        let one = Arguments {
            server,
            interval: interval.to_owned(),
            group_wait: group_wait.to_owned(),
            scrape: server == Kind::Prometheus,
            alertmanager: "debian".to_owned(),
            beside: false,
            ..arguments.clone()
        };
        let mut result = run_one(&one)?;
        result["name"] = json!(name);
        results.push(result);
    }
    eprint!("{}", table(&results));
    let p99 = |result: &Value| result["notified_ms_p99"].as_f64();
    let ratios: Vec<Value> = results
        .iter()
        .skip(1)
        .filter_map(|peer| {
            let ratio = p99(peer)? / p99(&results[0])?;
            Some(json!({"peer": peer["name"], "p99_by_pharos_p99": (ratio * 10.0).round() / 10.0}))
        })
        .collect();
    Ok(json!({"bench": "alerts-beside", "nodes": arguments.nodes, "breaches": arguments.breaches,
        "kills": arguments.kill, "ratios": ratios, "results": results}))
}

/// For people, as Markdown.
fn table(results: &[Value]) -> String {
    let kills = results.iter().any(|result| !result["after_kills"].is_null());
    let of_kills: &[_] = if kills { &KILL_FIGURES } else { &[] };
    let heads: Vec<&str> = FIGURES.iter().chain(of_kills).map(|(_, head)| *head).collect();
    let mut text = format!("| | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for result in results {
        text += &format!("| {} |", result["name"].as_str().unwrap_or_default());
        let values = FIGURES.iter().map(|(figure, _)| &result[*figure]);
        for value in values.chain(of_kills.iter().map(|(figure, _)| &result["after_kills"][*figure])) {
            text += &match value.as_f64() {
                Some(number) if number.fract() == 0.0 || number >= 100.0 => format!(" {number:.0} |"),
                Some(number) => format!(" {number:.1} |"),
                None => " - |".to_owned(),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_each_and_the_kills_columns_only_with_kills() {
        let result = json!({"name": "A", "notified_ms_p50": 1.25, "notified_ms_p99": 1033.2, "notified_ms_max": 7,
            "lost": 0, "doubled": 2, "false": 0, "after_kills": null});
        let plain = table(std::slice::from_ref(&result));
        assert_eq!(plain.lines().last(), Some("| A | 1.2 | 1033 | 7 | 0 | 2 | 0 |"));
        let mut killed = result.clone();
        killed["after_kills"] = json!({"breaches": 3, "p50": 40.5, "max": null});
        assert_eq!(
            table(&[result, killed]).lines().skip(2).collect::<Vec<_>>(),
            [
                "| A | 1.2 | 1033 | 7 | 0 | 2 | 0 | - | - | - |",
                "| A | 1.2 | 1033 | 7 | 0 | 2 | 0 | 3 | 40.5 | - |"
            ]
        );
    }
}
