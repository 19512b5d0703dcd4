//! A connection to the system bus, or to systemd itself: one call at a time, each with its answer.

use super::message::{Call, ERROR, Fields, METHOD_RETURN, Reader, START_BYTES, Start, Value};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Time for an answer; a peer that takes longer is left.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Larger answers are no list of units: ten thousand take four megabytes.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Length of a line while the peers introduce themselves.
const LINE_BYTES_MAX: usize = 1_024;
/// Messages between a call and its answer: signals that nobody asked for.
const MESSAGES_BETWEEN_MAX: usize = 1_000;
const SYSTEMD: &str = "org.freedesktop.systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("what came is no message of D-Bus: {0}")]
    Malformed(&'static str),
    /// The peer is fine and says no.
    #[error("{0}")]
    Refused(String),
}

pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects and says who we are; on a bus (`named`) takes a name, too.
    pub(super) fn connect(path: &Path, named: bool) -> Result<Self, BusError> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
        let mut bus = Bus { stream, serial: 0 };
        // The user's number in decimal digits, each as hexadecimal code.
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let answer = bus.line()?;
        if !answer.starts_with("OK ") {
            return Err(BusError::Refused(answer));
        }
        bus.stream.write_all(b"BEGIN\r\n")?;
        if named {
            bus.call(&Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
                arguments: &[],
            })?;
        }
        Ok(bus)
    }

    /// A property of an object of systemd; `None` if it has no such property, or one of an odd type.
    pub(super) fn property(
        &mut self,
        path: &str,
        interface: &str,
        property: &str,
    ) -> Result<Option<Value>, BusError> {
        let interface = format!("{SYSTEMD}.{interface}");
        let arguments = [interface.as_str(), property];
        let call =
            Call { destination: SYSTEMD, path, interface: PROPERTIES, member: "Get", arguments: &arguments };
        match self.call(&call) {
            Ok(body) => Ok(Reader::new(&body).variant()),
            Err(BusError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Calls a method; the body of its answer.
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<Vec<u8>, BusError> {
        self.serial = self.serial.wrapping_add(1).max(1);
        self.stream.write_all(&call.encode(self.serial))?;
        for _ in 0..MESSAGES_BETWEEN_MAX {
            let mut start = [0; START_BYTES];
            self.stream.read_exact(&mut start)?;
            let start = Start::decode(&start).ok_or(BusError::Malformed("its beginning is odd"))?;
            let length = start.fields.saturating_add(start.body);
            if length > MESSAGE_BYTES_MAX {
                return Err(BusError::Malformed("it is too large"));
            }
            let mut bytes = vec![0; length];
            self.stream.read_exact(&mut bytes)?;
            let body = bytes.split_off(start.fields);
            let fields = Fields::decode(&bytes).ok_or(BusError::Malformed("its header is odd"))?;
            if fields.reply_to != Some(self.serial) {
                continue;
            }
            return match start.kind {
                METHOD_RETURN => Ok(body),
                ERROR => Err(BusError::Refused(fields.error.unwrap_or_default())),
                _ => Err(BusError::Malformed("an answer is of an odd type")),
            };
        }
        Err(BusError::Malformed("an answer does not come"))
    }

    fn line(&mut self) -> Result<String, BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
            if line.len() > LINE_BYTES_MAX {
                return Err(BusError::Malformed("a line is too long"));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn the_real_bus_takes_us_in_and_answers() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .arg(format!("--address=unix:path={}", socket.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else {
            eprintln!("dbus-daemon is not installed; nothing to talk to");
            return;
        };
        // It prints its address once it listens.
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut bus = Bus::connect(&socket, true).unwrap();
        let mut ask = |member, arguments: &[&str]| {
            bus.call(&Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member,
                arguments,
            })
        };
        let owner = ask("GetNameOwner", &["org.freedesktop.DBus"]).unwrap();
        assert_eq!(Reader::new(&owner).text(), Some("org.freedesktop.DBus"));
        assert!(matches!(ask("GetNameOwner", &["no.such.Name"]), Err(BusError::Refused(_))));
        assert_eq!(Reader::new(&ask("GetId", &[]).unwrap()).text().map(str::len), Some(32));
        // Nobody here is systemd, which is an answer like any other.
        assert_eq!(bus.property("/org/freedesktop/systemd1", "Manager", "Version").unwrap(), None);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert!(bus.property("/", "Manager", "Version").is_err(), "it has gone");
    }

    #[test]
    fn where_nobody_listens_there_is_an_error() {
        assert!(matches!(Bus::connect(Path::new("/nonexistent/bus"), true), Err(BusError::Io(_))));
    }
}
