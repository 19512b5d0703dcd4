//! A peer that speaks D-Bus over a socket as systemd does, and what the sampler makes of its answers.

use super::message::{Fields, METHOD_CALL, METHOD_RETURN, START_BYTES, Start, Writer};
use super::*;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Name, load state, active state.
type Units = Arc<Mutex<Vec<(&'static str, &'static str, &'static str)>>>;

fn serve(mut stream: UnixStream, units: &Units, broken: &AtomicBool) -> Option<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        line.extend(byte);
    }
    let user: String =
        rustix::process::geteuid().as_raw().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    assert_eq!(line, format!("\0AUTH EXTERNAL {user}\r\n").as_bytes());
    stream.write_all(b"OK 0123456789abcdef\r\n").ok()?;
    stream.read_exact(&mut [0; b"BEGIN\r\n".len()]).ok()?;
    loop {
        let mut start = [0; START_BYTES];
        stream.read_exact(&mut start).ok()?;
        let serial = u32::from_le_bytes(start[8..12].try_into().unwrap());
        let start = Start::decode(&start).unwrap();
        assert_eq!(start.kind, METHOD_CALL);
        let mut bytes = vec![0; start.fields + start.body];
        stream.read_exact(&mut bytes).ok()?;
        let (fields, body) = bytes.split_at(start.fields);
        let fields = Fields::decode(fields).unwrap();
        if broken.load(Ordering::Relaxed) {
            stream.write_all(b"no message at all, but long enough").ok()?;
            return None;
        }
        // A signal that nobody asked for comes first.
        stream.write_all(&message(4, &[(2, "s", "x")], None, &[])).ok()?;
        let answer = answer(fields.member.as_deref()?, fields.path.as_deref()?, body, units);
        let answer = match answer {
            Some(body) => message(METHOD_RETURN, &[], Some(serial), &body),
            None => message(3, &[(4, "s", "org.freedesktop.DBus.Error.UnknownProperty")], Some(serial), &[]),
        };
        stream.write_all(&answer).ok()?;
    }
}

fn message(kind: u8, texts: &[(u8, &str, &str)], reply_to: Option<u32>, body: &[u8]) -> Vec<u8> {
    let mut message = Writer::default();
    message.bytes.extend([b'l', kind, 1, 1]);
    [body.len() as u32, 99, 0].into_iter().for_each(|number| message.number(number));
    for (code, signature, text) in texts {
        message.align(8);
        message.bytes.push(*code);
        message.signature(signature);
        message.text(text);
    }
    if let Some(serial) = reply_to {
        message.align(8);
        message.bytes.push(5);
        message.signature("u");
        message.number(serial);
    }
    let length = (message.bytes.len() - START_BYTES) as u32;
    message.bytes[12..16].copy_from_slice(&length.to_le_bytes());
    message.align(8);
    message.bytes.extend(body);
    message.bytes
}

/// The body of an answer; `None` where systemd would refuse.
fn answer(member: &str, path: &str, arguments: &[u8], units: &Units) -> Option<Vec<u8>> {
    let mut body = Writer::default();
    match member {
        "Hello" => body.text(":1.7"),
        "ListUnits" => {
            body.number(0);
            body.align(8);
            let begin = body.bytes.len();
            for (name, load, active) in &*units.lock().unwrap() {
                body.align(8);
                [*name, "what it is", *load, *active, "running", "", name]
                    .iter()
                    .for_each(|text| body.text(text));
                body.number(0);
                ["", "/"].iter().for_each(|text| body.text(text));
            }
            let length = (body.bytes.len() - begin) as u32;
            body.bytes[..4].copy_from_slice(&length.to_le_bytes());
        }
        "Get" => {
            let mut arguments = Reader::new(arguments);
            let (interface, property) = (arguments.text()?, arguments.text()?);
            let interface = interface.strip_prefix("org.freedesktop.systemd1.")?;
            let text = match (path, interface, property) {
                (MANAGER, "Manager", "Version") => Some("252.39-1~deb12u1"),
                (MANAGER, "Manager", "SystemState") => Some("running"),
                (MANAGER, "Manager", "Virtualization") => Some(""),
                ("ssh.service", "Service", "Type") => Some("notify"),
                _ => None,
            };
            let number: Option<u64> = match (path, interface, property) {
                ("dbus.socket", "Socket", "NAccepted") => Some(4),
                ("dbus.socket", "Socket", "NConnections") => Some(2),
                ("fstrim.timer", "Timer", "LastTriggerUSec") => Some(1_700_000_000_500_000),
                ("ssh.service", "Service", "NRestarts") => Some(3),
                ("ssh.service", "Service", "TasksCurrent") => Some(5),
                ("ssh.service", "Service", "TasksMax") => Some(u64::MAX),
                ("ssh.service", "Unit", "ActiveEnterTimestamp") => Some(1_600_000_000_000_000),
                _ => None,
            };
            match (text, number) {
                (Some(text), _) => {
                    body.signature("s");
                    body.text(text);
                }
                (None, Some(number)) if interface == "Socket" || property == "NRestarts" => {
                    body.signature("u");
                    body.number(u32::try_from(number).ok()?);
                }
                (None, Some(number)) => {
                    body.signature("t");
                    body.align(8);
                    body.bytes.extend(number.to_le_bytes());
                }
                (None, None) => return None,
            }
        }
        other => panic!("{other} is not called"),
    }
    Some(body.bytes)
}

#[test]
fn units_are_told_as_systemd_lists_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("run/dbus")).unwrap();
    let listener = UnixListener::bind(folder.path().join("run/dbus/system_bus_socket")).unwrap();
    let units: Units = Arc::default();
    let broken = Arc::new(AtomicBool::new(false));
    let (listed, breaks) = (Arc::clone(&units), Arc::clone(&broken));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.unwrap(), &listed, &breaks);
        }
    });
    let options = crate::AgentOptions {
        rootfs: folder.path().to_owned(),
        systemd: SystemdOptions {
            tasks: true,
            restarts: true,
            start_times: true,
            ..SystemdOptions::default()
        },
        ..crate::AgentOptions::default()
    };
    let mut sampler = build(&options.load().unwrap().plan.options);
    let mut groups = GroupSet::default();
    let mut read = || {
        groups.begin();
        let outcome = sampler.sample(&mut ReadBuffer::default(), &mut groups);
        let mut shown = Vec::new();
        for group in groups.iter() {
            let columns = group.columns().iter().enumerate();
            for (at, column) in columns.filter(|(at, _)| group.present().contains(*at)) {
                let labels = group.labels().iter().chain(&column.labels);
                let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
                let name = column.name.strip_prefix("node_systemd_").unwrap();
                shown.push(format!("{name} {} {}", labels.join(","), group.values()[at]));
            }
        }
        groups.published();
        outcome.map(|()| shown)
    };
    *units.lock().unwrap() = vec![
        ("ssh.service", "loaded", "active"),
        ("dbus.socket", "loaded", "active"),
        ("fstrim.timer", "loaded", "active"),
        ("gone.service", "not-found", "inactive"),
        ("broken.path", "loaded", "failed"),
        ("system.slice", "loaded", "active"),
    ];
    let shown = read().unwrap();
    for want in [
        "version version=252.39-1~deb12u1 252.39",
        "virtualization_info virtualization_type=none 1",
        "system_running  1",
        "units state=active 4",
        "units state=activating 0",
        "units state=failed 1",
        "unit_state name=ssh.service,state=active,type=notify 1",
        "unit_state name=ssh.service,state=failed,type=notify 0",
        "unit_state name=broken.path,state=failed,type= 1",
        "socket_accepted_connections_total name=dbus.socket 4",
        "socket_current_connections name=dbus.socket 2",
        "timer_last_trigger_seconds name=fstrim.timer 1700000000.5",
        "service_restart_total name=ssh.service 3",
        "unit_tasks_current name=ssh.service 5",
        "unit_start_time_seconds name=ssh.service 1600000000",
        "unit_start_time_seconds name=broken.path 0",
    ] {
        assert!(shown.iter().any(|line| line == want), "{want}\n{}", shown.join("\n"));
    }
    for odd in ["tasks_max", "refused", "gone.service", "system.slice"] {
        assert!(!shown.iter().any(|line| line.contains(odd)), "{odd}");
    }
    // A peer that talks nonsense is left, and another connection made.
    broken.store(true, Ordering::Relaxed);
    assert!(read().unwrap_err().to_string().contains("system_bus_socket"));
    broken.store(false, Ordering::Relaxed);
    units.lock().unwrap().truncate(1);
    let shown = read().unwrap();
    assert!(
        shown.contains(&"units state=active 1".to_owned()) && !shown.iter().any(|l| l.contains("fstrim"))
    );
}

#[test]
fn versions_are_numbers_as_far_as_they_go() {
    #[track_caller]
    fn check(version: &str, want: f64) {
        assert_eq!(version_number(version), want, "{version:?}");
    }
    check("252.39-1~deb12u1", 252.39);
    check("systemd 255", 255.0);
    check("249.", 249.0);
    check("44", 0.0);
    check("ä256.1ü", 256.1);
    check("", 0.0);
}

#[test]
fn a_list_that_ends_early_is_refused() {
    let units: Units =
        Arc::new(Mutex::new(vec![("a.service", "loaded", "active"), ("b.timer", "loaded", "failed")]));
    let body = answer("ListUnits", MANAGER, &[], &units).unwrap();
    assert_eq!(parse_units(&body).unwrap().len(), 2);
    assert!((1..body.len()).all(|cut| parse_units(&body[..cut]).is_none()));
    assert_eq!(parse_units(&[0; 8]), Some(Vec::new()));
}
