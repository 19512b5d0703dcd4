//! `edac`: memory errors by controller, row and channel, from `/sys/devices/system/edac`.

use super::inventory::{self, Found, decimal, names, text};
use crate::group::{ColumnSpec, Label};
use crate::sampler::{Sampler, SamplerOptions};
use std::path::Path;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("devices/system/edac/mc");
    inventory::optional(move || {
        let mut found = Vec::new();
        for (name, controller) in numbered(&folder, "mc") {
            find_controller(&folder.join(name), &controller, &mut found);
        }
        found
    })
}

/// Entries whose name is `prefix` and a number, with the number.
fn numbered(folder: &Path, prefix: &str) -> Vec<(String, String)> {
    let number = |name: &String| {
        let digits = name.strip_prefix(prefix)?;
        digits.parse::<u32>().ok()?;
        Some((name.clone(), digits.to_owned()))
    };
    names(folder).iter().filter_map(number).collect()
}

fn find_controller(folder: &Path, controller: &str, found: &mut Vec<Found>) {
    let labels: Vec<Label> = vec![("controller".into(), controller.to_owned())];
    let mut whole = Found::new(format!("edac/{controller}"), labels.clone());
    whole.number("node_edac_correctable_errors_total", folder.join("ce_count"));
    whole.number("node_edac_uncorrectable_errors_total", folder.join("ue_count"));
    // Errors that the controller cannot place.
    for (file, metric) in [
        ("ce_noinfo_count", "node_edac_csrow_correctable_errors_total"),
        ("ue_noinfo_count", "node_edac_csrow_uncorrectable_errors_total"),
    ] {
        whole.file(ColumnSpec::plain(metric).with("csrow", "unknown"), folder.join(file), decimal);
    }
    found.push(whole);
    for (name, row) in numbered(folder, "csrow") {
        let folder = folder.join(name);
        let mut labels = labels.clone();
        labels.push(("csrow".into(), row.clone()));
        let mut of_row = Found::new(format!("edac/{controller}/{row}"), labels);
        of_row.number("node_edac_csrow_correctable_errors_total", folder.join("ce_count"));
        of_row.number("node_edac_csrow_uncorrectable_errors_total", folder.join("ue_count"));
        for channel in 0u32.. {
            let file = |what: &str| folder.join(format!("ch{channel}_{what}"));
            if !file("ce_count").exists() {
                break;
            }
            let label = text(&file("dimm_label"));
            for (what, metric) in [
                ("ce_count", "node_edac_channel_correctable_errors_total"),
                ("ue_count", "node_edac_channel_uncorrectable_errors_total"),
            ] {
                let column = ColumnSpec::plain(metric).with("channel", channel.to_string());
                of_row.file(column.with("dimm_label", label.as_str()), file(what), decimal);
            }
        }
        found.push(of_row);
    }
}
