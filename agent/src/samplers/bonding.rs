//! `bonding`: how many interfaces of each bond there are and how many of them work, from `/sys/class/net`.

use super::inventory::{self, Found, text};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::Path;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("class/net");
    let source = folder.join("bonding_masters");
    inventory::sampler(&source, "no bonded interfaces", move || {
        let masters = text(&folder.join("bonding_masters"));
        masters.split_whitespace().map(|master| find(&folder.join(master), master)).collect()
    })
}

fn find(folder: &Path, master: &str) -> Found {
    let slaves = text(&folder.join("bonding/slaves"));
    // The link to an interface is called `lower_NAME`, and `slave_NAME` in old kernels.
    let states = slaves.split_whitespace().map(|slave| {
        let newer = folder.join(format!("lower_{slave}/bonding_slave/mii_status"));
        if newer.exists() { newer } else { folder.join(format!("slave_{slave}/bonding_slave/mii_status")) }
    });
    let mut found = Found::new(format!("bonding/{master}"), vec![("master".into(), master.to_owned())]);
    let is_up = |text: &[u8]| Some(f64::from(u8::from(scan::trimmed(text) == b"up")));
    found.sum(ColumnSpec::plain("node_bonding_active"), states.collect(), is_up);
    let count = |text: &[u8]| Some(scan::Fields::of(scan::trimmed(text)).count() as f64);
    found.file(ColumnSpec::plain("node_bonding_slaves"), folder.join("bonding/slaves"), count);
    found
}
