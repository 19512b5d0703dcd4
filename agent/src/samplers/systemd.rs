//! `systemd`: which state units are in, and what sockets, timers and services count, asked over D-Bus. Off by
//! default, as in node_exporter.
//!
//! Listing units is work for the first process of the machine, so unlike others this sampler reads every ten
//! seconds unless configured otherwise. A bus that does not answer is left after a moment and tried again.

mod bus;
mod message;
pub mod options;

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Filter, Sampler, SamplerOptions};
use bus::{Bus, BusError};
use message::{Call, Reader, Value};
use options::SystemdOptions;
use std::collections::HashMap;
use std::path::PathBuf;

const MANAGER: &str = "/org/freedesktop/systemd1";
const STATES: [&str; 5] = ["active", "activating", "deactivating", "inactive", "failed"];
/// Units that are looked at; a machine with more has something else to be told first.
const UNITS_MAX: usize = 20_000;
/// What a limit or a count is where there is none.
const NONE: u64 = u64::MAX;
const SOCKET_COUNTS: [(&str, &str); 3] = [
    ("NAccepted", "node_systemd_socket_accepted_connections_total"),
    ("NConnections", "node_systemd_socket_current_connections"),
    ("NRefused", "node_systemd_socket_refused_connections_total"),
];
const MICROSECONDS: f64 = 1e6;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let private = options.systemd.private;
    let socket = if private { "/run/systemd/private" } else { "/run/dbus/system_bus_socket" };
    Box::new(SystemdSampler {
        socket: options.paths.root(socket),
        options: options.systemd.clone(),
        filter: options.systemd_units.clone(),
        bus: None,
        types: HashMap::new(),
        table: Table::default(),
    })
}

struct SystemdSampler {
    socket: PathBuf,
    options: SystemdOptions,
    filter: Filter,
    bus: Option<Bus>,
    /// The type of each unit that has one; it changes with the unit's file only.
    types: HashMap<String, String>,
    table: Table,
}

/// A unit as it is listed.
#[derive(Debug, PartialEq, Eq)]
struct Unit {
    name: String,
    load_state: String,
    active_state: String,
    /// Its object on the bus.
    path: String,
}

impl Unit {
    fn is(&self, kind: &str) -> bool {
        self.name.rsplit_once('.').is_some_and(|(_, end)| end == kind)
    }
}

impl Sampler for SystemdSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        match self.ask() {
            Ok(objects) => {
                self.table.publish(groups, objects);
                Ok(())
            }
            Err(error) => {
                // Half an answer may still be on its way.
                self.bus = None;
                let source = match error {
                    BusError::Io(source) => source,
                    other => std::io::Error::other(other.to_string()),
                };
                Err(SampleError::Read { path: self.socket.clone(), source })
            }
        }
    }
}

impl SystemdSampler {
    fn ask(&mut self) -> Result<Vec<Object>, BusError> {
        let SystemdSampler { socket, options, filter, bus, types, .. } = self;
        let bus = match bus {
            Some(bus) => bus,
            None => bus.insert(Bus::connect(socket, !options.private)?),
        };
        let units = list_units(bus)?;
        let mut objects = vec![manager(bus, &units)?];
        types.retain(|name, _| units.iter().any(|unit| unit.name == *name));
        for unit in units.iter().filter(|unit| unit.load_state == "loaded" && filter.keeps(&unit.name)) {
            objects.push(describe(bus, unit, options, types)?);
        }
        Ok(objects)
    }
}

fn list_units(bus: &mut Bus) -> Result<Vec<Unit>, BusError> {
    let body = bus.call(&Call {
        destination: "org.freedesktop.systemd1",
        path: MANAGER,
        interface: "org.freedesktop.systemd1.Manager",
        member: "ListUnits",
        arguments: &[],
    })?;
    parse_units(&body).ok_or(BusError::Malformed("the list of units is odd"))
}

/// `a(ssssssouso)`
fn parse_units(body: &[u8]) -> Option<Vec<Unit>> {
    let mut reader = Reader::new(body);
    let length = reader.number()? as usize;
    reader.align(8);
    let end = reader.at().checked_add(length)?;
    let mut units = Vec::new();
    while reader.at() < end && units.len() < UNITS_MAX {
        reader.align(8);
        let (name, _description) = (reader.text()?.to_owned(), reader.text()?);
        let (load_state, active_state) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        let (_sub_state, _following, path) = (reader.text()?, reader.text()?, reader.text()?.to_owned());
        let (_job, _job_kind, _job_path) = (reader.number()?, reader.text()?, reader.text()?);
        units.push(Unit { name, load_state, active_state, path });
    }
    Some(units)
}

/// What is known of systemd itself, and how many units are in which state.
fn manager(bus: &mut Bus, units: &[Unit]) -> Result<Object, BusError> {
    let mut object = Object::new("systemd", Vec::new());
    let mut text = |property: &str| -> Result<Option<String>, BusError> {
        Ok(match bus.property(MANAGER, "Manager", property)? {
            Some(Value::Text(text)) => Some(text.trim_matches('"').to_owned()),
            _ => None,
        })
    };
    if let Some(version) = text("Version")? {
        let number = version_number(&version);
        object.put(ColumnSpec::plain("node_systemd_version").with("version", version), number);
    }
    let virtualization = text("Virtualization")?.filter(|kind| !kind.is_empty());
    let virtualization = virtualization.unwrap_or_else(|| "none".to_owned());
    let column = ColumnSpec::plain("node_systemd_virtualization_info");
    object.put(column.with("virtualization_type", virtualization), 1.0);
    let state = text("SystemState")?;
    object
        .put_plain("node_systemd_system_running", state.map(|state| f64::from(u8::from(state == "running"))));
    for state in STATES {
        let count = units.iter().filter(|unit| unit.active_state == state).count();
        object.put(ColumnSpec::plain("node_systemd_units").with("state", state), count as f64);
    }
    Ok(object)
}

/// `252.39-1~deb12u1` is 252.39: the first three digits in a row, and what follows behind a dot.
fn version_number(version: &str) -> f64 {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let starts = (0..version.len()).filter(|at| version.is_char_boundary(*at));
    let start = starts.map(|at| &version[at..]).find(|rest| digits(rest) >= 3);
    let Some(rest) = start else { return 0.0 };
    let whole = digits(rest);
    let fraction = rest[whole..].strip_prefix('.').map_or(0, digits);
    let end = if fraction > 0 { whole + 1 + fraction } else { whole };
    rest[..end].parse().unwrap_or(0.0)
}

fn describe(
    bus: &mut Bus,
    unit: &Unit,
    options: &SystemdOptions,
    types: &mut HashMap<String, String>,
) -> Result<Object, BusError> {
    let labels = vec![("name".into(), unit.name.clone())];
    let mut object = Object::new(format!("systemd/{}", unit.name), labels);
    let of_type = [("service", "Service"), ("mount", "Mount")].into_iter().find(|(kind, _)| unit.is(kind));
    let kind = match (types.get(&unit.name), of_type) {
        (Some(known), _) => known.clone(),
        (None, None) => String::new(),
        (None, Some((_, interface))) => match bus.property(&unit.path, interface, "Type")? {
            Some(Value::Text(kind)) => {
                types.insert(unit.name.clone(), kind.clone());
                kind
            }
            _ => String::new(),
        },
    };
    for state in STATES {
        let column = ColumnSpec::plain("node_systemd_unit_state").with("state", state);
        let is = f64::from(u8::from(unit.active_state == state));
        object.put(column.with("type", kind.as_str()), is);
    }
    let mut number = |interface: &str, property: &str| -> Result<Option<u64>, BusError> {
        Ok(match bus.property(&unit.path, interface, property)? {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        })
    };
    if unit.is("socket") {
        for (property, metric) in SOCKET_COUNTS {
            object.put_plain(metric, number("Socket", property)?.map(|count| count as f64));
        }
    }
    if unit.is("timer") {
        let triggered = number("Timer", "LastTriggerUSec")?;
        let seconds = triggered.map(|at| at as f64 / MICROSECONDS);
        object.put_plain("node_systemd_timer_last_trigger_seconds", seconds);
    }
    if unit.is("service") && options.restarts {
        let restarts = number("Service", "NRestarts")?;
        object.put_plain("node_systemd_service_restart_total", restarts.map(|count| count as f64));
    }
    if unit.is("service") && options.tasks {
        let tasks = [
            ("TasksCurrent", "node_systemd_unit_tasks_current"),
            ("TasksMax", "node_systemd_unit_tasks_max"),
        ];
        for (property, metric) in tasks {
            let count = number("Service", property)?.filter(|count| *count != NONE);
            object.put_plain(metric, count.map(|count| count as f64));
        }
    }
    if options.start_times {
        let started =
            if unit.active_state == "active" { number("Unit", "ActiveEnterTimestamp")? } else { Some(0) };
        let seconds = started.map(|at| at as f64 / MICROSECONDS);
        object.put_plain("node_systemd_unit_start_time_seconds", seconds);
    }
    Ok(object)
}

#[cfg(test)]
mod tests;
