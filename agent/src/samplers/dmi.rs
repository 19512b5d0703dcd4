//! `dmi`: what the firmware says of the machine, from `/sys/class/dmi/id`.

use super::inventory::{self, Found};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};

/// Label and file. Serial numbers are root's to read, and then shown.
const FIELDS: [(&str, &str); 20] = [
    ("bios_date", "bios_date"),
    ("bios_release", "bios_release"),
    ("bios_vendor", "bios_vendor"),
    ("bios_version", "bios_version"),
    ("board_asset_tag", "board_asset_tag"),
    ("board_name", "board_name"),
    ("board_serial", "board_serial"),
    ("board_vendor", "board_vendor"),
    ("board_version", "board_version"),
    ("chassis_asset_tag", "chassis_asset_tag"),
    ("chassis_serial", "chassis_serial"),
    ("chassis_vendor", "chassis_vendor"),
    ("chassis_version", "chassis_version"),
    ("product_family", "product_family"),
    ("product_name", "product_name"),
    ("product_serial", "product_serial"),
    ("product_sku", "product_sku"),
    ("product_uuid", "product_uuid"),
    ("product_version", "product_version"),
    ("system_vendor", "sys_vendor"),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("class/dmi/id");
    let source = folder.join("bios_vendor");
    inventory::sampler(&source, "the firmware says nothing of itself", move || {
        let read = |(label, file): &(&'static str, &str)| {
            let bytes = std::fs::read(folder.join(file)).ok()?;
            Some((*label, String::from_utf8_lossy(&bytes).trim().to_owned()))
        };
        let known: Vec<(&str, String)> = FIELDS.iter().filter_map(read).collect();
        if known.is_empty() {
            return Vec::new();
        }
        let column = ColumnSpec::plain("node_dmi_info");
        let mut found = Found::new("dmi", Vec::new());
        found.info(known.into_iter().fold(column, |column, (label, value)| column.with(label, value)));
        vec![found]
    })
}
