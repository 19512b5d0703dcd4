//! `rapl`: energy that packages, cores and memory have used, from `/sys/class/powercap`. Since 2020 only root
//! may read it.

use super::inventory::{self, Found, decimal, names, text};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};
use std::collections::HashMap;
use std::path::Path;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("class/powercap");
    let zone_label = options.rapl_zone_label;
    let source = folder.clone();
    inventory::sampler(&source, "no energy counters", move || find(&folder, zone_label))
}

fn find(folder: &Path, zone_label: bool) -> Vec<Found> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut found = Vec::new();
    for name in names(folder).into_iter().filter(|name| name.starts_with("intel-rapl:")) {
        let zone = folder.join(&name);
        let label = text(&zone.join("name"));
        if label.is_empty() {
            continue;
        }
        // `package-1` is the package with index 1; of `core` and `dram` each is the next one.
        let (kind, index) =
            match label.split_once('-').and_then(|(kind, at)| Some((kind, at.parse::<u32>().ok()?))) {
                Some((kind, index)) => (kind.to_owned(), index),
                None => {
                    let next = seen.entry(label.clone()).or_default();
                    *next += 1;
                    (label.clone(), *next - 1)
                }
            };
        let column = if zone_label {
            ColumnSpec::plain("node_rapl_joules_total").with("rapl_zone", kind)
        } else {
            let legal = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
            let zone: String = kind.chars().map(legal).collect();
            ColumnSpec::plain(format!("node_rapl_{zone}_joules_total"))
        };
        // As the host sees it, wherever its /sys is mounted for us.
        let labels =
            vec![("index".into(), index.to_string()), ("path".into(), format!("/sys/class/powercap/{name}"))];
        let mut object = Found::new(format!("rapl/{name}"), labels);
        let joules = |text: &[u8]| decimal(text).map(|microjoules| microjoules / 1e6);
        object.file(column, zone.join("energy_uj"), joules);
        found.push(object);
    }
    found
}
