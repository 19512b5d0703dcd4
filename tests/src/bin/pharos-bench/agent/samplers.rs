//! What each sampler of the agent costs, from its `/samplers` before and after.

use crate::http::Http;
use anyhow::bail;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Samplers that cost less a second stand together in the table, milliseconds.
const SHOWN_FROM_MS: f64 = 0.004;

/// Readings and CPU seconds since the start, by sampler.
pub(super) struct Costs(BTreeMap<String, (f64, f64)>);

/// What happened between two looks.
pub(super) struct Spent {
    /// Readings of the sampler that is read most often.
    pub(super) fastest_per_second: f64,
    pub(super) readings_per_second: f64,
    pub(super) ms_per_second: f64,
    /// By name: readings a second, microseconds a reading, milliseconds a second.
    pub(super) samplers: Value,
}

impl Costs {
    /// As they are now.
    pub(super) fn of(address: &str) -> anyhow::Result<Costs> {
        let (status, body) = Http::new(address).get("/samplers")?;
        if status != 200 {
            bail!("/samplers: {status}");
        }
        Ok(Costs::parse(&serde_json::from_slice(&body)?))
    }

    fn parse(page: &Value) -> Costs {
        let samplers = page.as_array().into_iter().flatten().filter_map(|sampler| {
            let figures = (sampler["readings"].as_f64()?, sampler["cpu_seconds_total"].as_f64()?);
            Some((sampler["name"].as_str()?.to_owned(), figures))
        });
        Costs(samplers.collect())
    }

    /// What was spent since then, over so many seconds.
    pub(super) fn since(&self, before: &Costs, seconds: f64) -> Spent {
        let mut spent = Spent {
            fastest_per_second: 0.0,
            readings_per_second: 0.0,
            ms_per_second: 0.0,
            samplers: Value::Null,
        };
        let mut samplers = Map::new();
        for (name, (readings, cpu_seconds)) in &self.0 {
            let (readings_before, cpu_before) = before.0.get(name).copied().unwrap_or_default();
            let (readings, cpu_seconds) = (readings - readings_before, cpu_seconds - cpu_before);
            if readings <= 0.0 {
                continue;
            }
            let (per_second, ms) = (readings / seconds, cpu_seconds * 1_000.0 / seconds);
            spent.fastest_per_second = spent.fastest_per_second.max(per_second);
            spent.readings_per_second += per_second;
            spent.ms_per_second += ms;
            let us = cpu_seconds * 1e6 / readings;
            let figures =
                json!({"readings_per_second": per_second, "us_per_reading": us, "ms_per_second": ms});
            samplers.insert(name.clone(), figures);
        }
        spent.samplers = samplers.into();
        spent
    }
}

/// Microseconds a reading and readings a second, in Markdown on stderr, the dearest first.
pub(super) fn print_table(phases: &Map<String, Value>) {
    let figure = |phase: &Value, name: &str, figure: &str| {
        phase["pharos-agent"]["samplers"][name][figure].as_f64().unwrap_or(0.0)
    };
    let mut dearest: BTreeMap<&str, f64> = BTreeMap::new();
    for phase in phases.values() {
        for name in phase["pharos-agent"]["samplers"].as_object().into_iter().flat_map(Map::keys) {
            let most = dearest.entry(name).or_default();
            *most = most.max(figure(phase, name, "ms_per_second"));
        }
    }
    let mut names: Vec<(&str, f64)> = dearest.into_iter().collect();
    names.sort_by(|left, right| right.1.total_cmp(&left.1));
    let head: String =
        phases.keys().map(|name| format!(" {name}: us a reading | readings a second |")).collect();
    eprintln!("\n| sampler |{head}\n|---|{}", "---|---|".repeat(phases.len()));
    for (name, _) in names.iter().filter(|(_, ms)| *ms >= SHOWN_FROM_MS) {
        let mut line = format!("| {name} |");
        for phase in phases.values() {
            let of = |what| figure(phase, name, what);
            line += &format!(" {:.1} | {:.1} |", of("us_per_reading"), of("readings_per_second"));
        }
        eprintln!("{line}");
    }
    eprintln!("The others cost less than {SHOWN_FROM_MS} ms a second each.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_read_meanwhile_is_told_and_the_fastest_gives_the_ticks() {
        let page = |cpu: u32, netstat: u32| {
            Costs::parse(&json!([
                {"name": "cpu", "readings": cpu, "cpu_seconds_total": f64::from(cpu) * 20e-6},
                {"name": "netstat", "readings": netstat, "cpu_seconds_total": f64::from(netstat) * 100e-6},
                {"name": "idle", "readings": 3, "cpu_seconds_total": 0.1},
            ]))
        };
        let spent = page(120, 30).since(&page(20, 20), 10.0);
        assert_eq!((spent.fastest_per_second, spent.readings_per_second), (10.0, 11.0));
        assert!((spent.ms_per_second - 0.3).abs() < 1e-9);
        assert_eq!(spent.samplers.as_object().unwrap().len(), 2);
        assert!((spent.samplers["netstat"]["us_per_reading"].as_f64().unwrap() - 100.0).abs() < 1e-6);
    }
}
