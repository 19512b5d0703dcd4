//! `powersupplyclass`: batteries and mains, from `/sys/class/power_supply`.

use super::inventory::{self, Found, decimal, names, text};
use crate::group::ColumnSpec;
use crate::sampler::{Filter, Sampler, SamplerOptions};
use std::path::Path;

/// File and metric of what is a plain number.
const NUMBERS: [(&str, &str); 12] = [
    ("authentic", "node_power_supply_authentic"),
    ("calibrate", "node_power_supply_calibrate"),
    ("capacity", "node_power_supply_capacity"),
    ("capacity_alert_max", "node_power_supply_capacity_alert_max"),
    ("capacity_alert_min", "node_power_supply_capacity_alert_min"),
    ("cycle_count", "node_power_supply_cyclecount"),
    ("online", "node_power_supply_online"),
    ("present", "node_power_supply_present"),
    ("time_to_empty_avg", "node_power_supply_time_to_empty_avg_seconds"),
    ("time_to_empty_now", "node_power_supply_time_to_empty_seconds"),
    ("time_to_full_avg", "node_power_supply_time_to_full_avg_seconds"),
    ("time_to_full_now", "node_power_supply_time_to_full_seconds"),
];
/// The same for what the kernel gives in millionths.
const MILLIONTHS: [(&str, &str); 24] = [
    ("charge_control_limit", "node_power_supply_charge_control_limit"),
    ("charge_control_limit_max", "node_power_supply_charge_control_limit_max"),
    ("charge_counter", "node_power_supply_charge_counter"),
    ("charge_empty", "node_power_supply_charge_empty"),
    ("charge_empty_design", "node_power_supply_charge_empty_design"),
    ("charge_full", "node_power_supply_charge_full"),
    ("charge_full_design", "node_power_supply_charge_full_design"),
    ("charge_now", "node_power_supply_charge_ampere"),
    ("current_boot", "node_power_supply_current_boot"),
    ("current_max", "node_power_supply_current_max"),
    ("current_now", "node_power_supply_current_ampere"),
    ("energy_empty", "node_power_supply_energy_empty"),
    ("energy_empty_design", "node_power_supply_energy_empty_design"),
    ("energy_full", "node_power_supply_energy_full"),
    ("energy_full_design", "node_power_supply_energy_full_design"),
    ("energy_now", "node_power_supply_energy_watthour"),
    ("power_now", "node_power_supply_power_watt"),
    ("voltage_boot", "node_power_supply_voltage_boot"),
    ("voltage_max", "node_power_supply_voltage_max"),
    ("voltage_max_design", "node_power_supply_voltage_max_design"),
    ("voltage_min", "node_power_supply_voltage_min"),
    ("voltage_min_design", "node_power_supply_voltage_min_design"),
    ("voltage_now", "node_power_supply_voltage_volt"),
    ("voltage_ocv", "node_power_supply_voltage_ocv"),
];
/// The same for temperatures, which are in tenths.
const TENTHS: [(&str, &str); 4] = [
    ("temp", "node_power_supply_temp_celsius"),
    ("temp_alert_max", "node_power_supply_temp_alert_max_celsius"),
    ("temp_alert_min", "node_power_supply_temp_alert_min_celsius"),
    ("temp_ambient", "node_power_supply_temp_ambient_celsius"),
];
/// Labels of the info metric, of files with the same names; the type comes beside them.
const TEXTS: [&str; 8] = [
    "capacity_level",
    "charge_type",
    "health",
    "manufacturer",
    "model_name",
    "serial_number",
    "status",
    "technology",
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("class/power_supply");
    let filter: Filter = options.power_supplies.clone();
    let source = folder.clone();
    inventory::sampler(&source, "no power supply reports", move || {
        let supplies = names(&folder).into_iter().filter(|name| filter.keeps(name));
        supplies.map(|name| find(&folder.join(&name), &name)).collect()
    })
}

fn find(folder: &Path, name: &str) -> Found {
    let labels = vec![("power_supply".into(), name.to_owned())];
    let mut found = Found::new(format!("power_supply/{name}"), labels);
    let mut add = |(file, metric): &(&str, &'static str), parse| {
        found.file(ColumnSpec::plain(*metric), folder.join(file), parse);
    };
    NUMBERS.iter().for_each(|known| add(known, decimal));
    MILLIONTHS.iter().for_each(|known| add(known, |text| decimal(text).map(|number| number / 1e6)));
    TENTHS.iter().for_each(|known| add(known, |text| decimal(text).map(|number| number / 10.0)));
    let mut info = ColumnSpec::plain("node_power_supply_info").with("type", text(&folder.join("type")));
    for label in TEXTS {
        let value = text(&folder.join(label));
        if !value.is_empty() {
            info = info.with(label, value);
        }
    }
    found.info(info);
    found
}
