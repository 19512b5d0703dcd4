//! `watchdog`: the timers that restart a machine which hangs, from `/sys/class/watchdog`.

use super::inventory::{self, Found, names, text};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};

/// File and metric.
const NUMBERS: [(&str, &str); 7] = [
    ("access_cs0", "node_watchdog_access_cs0"),
    ("bootstatus", "node_watchdog_bootstatus"),
    ("fw_version", "node_watchdog_fw_version"),
    ("nowayout", "node_watchdog_nowayout"),
    ("pretimeout", "node_watchdog_pretimeout_seconds"),
    ("timeleft", "node_watchdog_timeleft_seconds"),
    ("timeout", "node_watchdog_timeout_seconds"),
];
/// Labels of the info metric, of files with the same names.
const TEXTS: [&str; 5] = ["options", "identity", "state", "status", "pretimeout_governor"];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("class/watchdog");
    let source = folder.clone();
    inventory::sampler(&source, "no watchdog", move || {
        let find = |name: String| {
            let folder = folder.join(&name);
            let mut found = Found::new(format!("watchdog/{name}"), vec![("name".into(), name)]);
            NUMBERS.iter().for_each(|(file, metric)| found.number(metric, folder.join(file)));
            let info = ColumnSpec::plain("node_watchdog_info");
            found.info(TEXTS.iter().fold(info, |info, label| info.with(*label, text(&folder.join(label)))));
            found
        };
        names(&folder).into_iter().map(find).collect()
    })
}
