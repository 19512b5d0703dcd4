//! `fibrechannel`: identity, state and counters of Fibre Channel ports, from `/sys/class/fc_host`.

use super::inventory::{self, Found, names, text};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::Path;

/// File under `statistics` and metric. The kernel writes them in hexadecimal, all ones where it cannot tell.
const COUNTERS: [(&str, &str); 14] = [
    ("dumped_frames", "node_fibrechannel_dumped_frames_total"),
    ("error_frames", "node_fibrechannel_error_frames_total"),
    ("fcp_packet_aborts", "node_fibrechannel_fcp_packet_aborts_total"),
    ("invalid_crc_count", "node_fibrechannel_invalid_crc_total"),
    ("invalid_tx_word_count", "node_fibrechannel_invalid_tx_words_total"),
    ("link_failure_count", "node_fibrechannel_link_failure_total"),
    ("loss_of_signal_count", "node_fibrechannel_loss_of_signal_total"),
    ("loss_of_sync_count", "node_fibrechannel_loss_of_sync_total"),
    ("nos_count", "node_fibrechannel_nos_total"),
    ("rx_frames", "node_fibrechannel_rx_frames_total"),
    ("rx_words", "node_fibrechannel_rx_words_total"),
    ("seconds_since_last_reset", "node_fibrechannel_seconds_since_last_reset_total"),
    ("tx_frames", "node_fibrechannel_tx_frames_total"),
    ("tx_words", "node_fibrechannel_tx_words_total"),
];
/// Labels of the info metric, of files with the same names.
const TEXTS: [&str; 10] = [
    "dev_loss_tmo",
    "fabric_name",
    "port_id",
    "port_name",
    "port_state",
    "port_type",
    "speed",
    "supported_classes",
    "supported_speeds",
    "symbolic_name",
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("class/fc_host");
    let source = folder.clone();
    inventory::sampler(&source, "no Fibre Channel port", move || {
        names(&folder).into_iter().map(|name| find(&folder.join(&name), name)).collect()
    })
}

fn find(folder: &Path, name: String) -> Found {
    let mut found = Found::new(format!("fibrechannel/{name}"), vec![("fc_host".into(), name)]);
    for (file, metric) in COUNTERS {
        found.file(ColumnSpec::plain(metric), folder.join("statistics").join(file), counter);
    }
    let info = ColumnSpec::plain("node_fibrechannel_info");
    found.info(TEXTS.iter().fold(info, |info, label| {
        let value = text(&folder.join(label));
        // Names and numbers of ports stand there as 0x1000…
        info.with(*label, value.strip_prefix("0x").unwrap_or(&value))
    }));
    found
}

fn counter(text: &[u8]) -> Option<f64> {
    let value = scan::hexadecimal(scan::trimmed(text))?;
    (value != u64::MAX).then_some(value as f64)
}
