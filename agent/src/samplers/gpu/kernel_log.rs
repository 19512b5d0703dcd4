//! XIDs in the kernel log, `/dev/kmsg` or a file of its form (`--path.kmsg`).
//!
//! The device gives one record for each read and never blocks here. A file is followed as it grows and read
//! from its start when it shrinks. NVML hides some critical XIDs; the kernel log has them all.

use super::pci::PciPlace;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;

/// Records taken in one reading; the rest waits for the next.
const RECORDS_MAX: usize = 4_096;
/// The kernel's largest record, continuation lines included.
const RECORD_BYTES_MAX: usize = 16 << 10;
/// Readings between two attempts to open a log that cannot be.
const READINGS_BETWEEN_ATTEMPTS: u32 = 60;
/// What the driver begins its line with.
const MARK: &str = "NVRM: Xid (PCI:";

/// An XID as the driver logged it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LoggedXid {
    /// The GPU's place.
    pub(super) place: PciPlace,
    /// Its number.
    pub(super) xid: u32,
    /// Seconds from boot to the record, if the record tells.
    pub(super) seconds_since_boot: Option<f64>,
}

/// Finds the XID in a line of the log.
pub(super) fn parse(line: &str) -> Option<LoggedXid> {
    let (head, tail) = line.split_once(MARK)?;
    let (place, rest) = tail.split_once(')')?;
    let rest = rest.trim_start_matches([':', ' ']);
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let xid = rest.get(..digits)?.parse().ok()?;
    Some(LoggedXid { place: PciPlace::parse(place)?, xid, seconds_since_boot: seconds_since_boot(head) })
}

/// `4,1234,5678901,-;` is how a record of the device begins: level, number, microseconds since boot, flags.
fn seconds_since_boot(head: &str) -> Option<f64> {
    let (fields, _) = head.split_once(';')?;
    let micros: f64 = fields.split(',').nth(2)?.parse().ok()?;
    Some(micros / 1e6)
}

/// The log, followed.
#[derive(Debug)]
pub(super) struct KernelLog {
    path: PathBuf,
    open: Option<Open>,
    attempts_in: u32,
    failed: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Whether reads return records instead of bytes.
    device: bool,
    position: u64,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Whether everything that was there when it was opened has been read.
    caught_up: bool,
}

impl KernelLog {
    pub(super) fn new(path: PathBuf) -> Self {
        KernelLog { path, open: None, attempts_in: 0, failed: false }
    }

    /// Whether the log can be read.
    pub(super) fn works(&self) -> bool {
        self.open.is_some()
    }

    /// Hands over the XIDs that came since the last call; the flag tells that a record was there before the
    /// log was opened.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>, mut found: impl FnMut(LoggedXid, bool)) {
        if self.open.is_none() {
            if self.attempts_in > 0 {
                self.attempts_in -= 1;
                return;
            }
            self.attempts_in = READINGS_BETWEEN_ATTEMPTS;
            match open(&self.path) {
                Ok(open) => {
                    self.failed = false;
                    self.open = Some(open);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        let path = self.path.display();
                        tracing::warn!(%path, %error, "Cannot read the kernel log; some XIDs will not be seen");
                    }
                    return;
                }
            }
        }
        let Some(open) = &mut self.open else { return };
        if let Err(error) = open.read(buffer, &mut found) {
            tracing::warn!(path = %self.path.display(), %error, "The kernel log broke off; it is opened anew");
            self.open = None;
        }
    }
}

fn open(path: &std::path::Path) -> io::Result<Open> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let device = file.metadata()?.file_type().is_char_device();
    Ok(Open { file, device, position: 0, partial: Vec::new(), caught_up: false })
}

impl Open {
    fn read(&mut self, buffer: &mut Vec<u8>, found: &mut impl FnMut(LoggedXid, bool)) -> io::Result<()> {
        buffer.resize(RECORD_BYTES_MAX, 0);
        if !self.device && self.file.metadata()?.len() < self.position {
            // The file was cut or written anew.
            io::Seek::rewind(&mut self.file)?;
            self.position = 0;
            self.partial.clear();
        }
        for _ in 0..RECORDS_MAX {
            match self.file.read(buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.position += count as u64;
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if self.device {
                        let line = String::from_utf8_lossy(bytes);
                        line.lines().filter_map(parse).for_each(|xid| found(xid, !self.caught_up));
                    } else {
                        self.take_lines(bytes, found);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The kernel has overwritten records before they were read.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.caught_up = true;
        Ok(())
    }

    fn take_lines(&mut self, bytes: &[u8], found: &mut impl FnMut(LoggedXid, bool)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.len() + piece.len() <= RECORD_BYTES_MAX {
                self.partial.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                if let Some(xid) = parse(&String::from_utf8_lossy(&self.partial)) {
                    found(xid, !self.caught_up);
                }
                self.partial.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_of_old_and_new_drivers_are_understood() {
        #[track_caller]
        fn check(line: &str, want: Option<(&str, u32, Option<f64>)>) {
            let got = parse(line).map(|got| (got.place.label(), got.xid, got.seconds_since_boot));
            assert_eq!(got, want.map(|(place, xid, seconds)| (place.to_owned(), xid, seconds)));
        }
        check(
            "4,1234,5000000,-;NVRM: Xid (PCI:0000:c1:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            Some(("00000000:C1:00.0", 79, Some(5.0))),
        );
        check(
            "[  99.1] NVRM: Xid (PCI:0000:19:00): 119, pid=1, Timeout",
            Some(("00000000:19:00.0", 119, None)),
        );
        check("NVRM: Xid (PCI:0001:3b:00.0): 13, Graphics", Some(("00000001:3B:00.0", 13, None)));
        check("NVRM: GPU at PCI:0000:c1:00: GPU-1234", None);
        check("NVRM: Xid (PCI:0000:c1:00): , no number", None);
        check("NVRM: Xid (PCI:", None);
        check("4,1,2,-;usb 1-1: new device", None);
    }

    fn drain(log: &mut KernelLog) -> Vec<(u32, bool)> {
        let mut found = Vec::new();
        log.read(&mut Vec::new(), |xid, old| found.push((xid.xid, old)));
        found
    }

    #[test]
    fn a_file_is_followed_and_two_equal_xids_are_two() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        std::fs::write(&path, "4,1,1,-;NVRM: Xid (PCI:0000:c1:00): 31, pid=1\n").unwrap();
        let mut log = KernelLog::new(path.clone());
        assert_eq!(drain(&mut log), [(31, true)]);
        assert_eq!(drain(&mut log), []);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        let line = "4,2,2,-;NVRM: Xid (PCI:0000:c1:00): 63, pid=1\n";
        write!(file, "{line}{line}").unwrap();
        assert_eq!(drain(&mut log), [(63, false), (63, false)]);
        // A line that is half written counts once it is whole.
        write!(file, "4,3,3,-;NVRM: Xid (PCI:0000").unwrap();
        assert_eq!(drain(&mut log), []);
        writeln!(file, ":c1:00): 79, pid=1").unwrap();
        assert_eq!(drain(&mut log), [(79, false)]);
        // Rotated.
        std::fs::write(&path, "4,1,1,-;NVRM: Xid (PCI:0000:c1:00): 48,\n").unwrap();
        assert_eq!(drain(&mut log), [(48, false)]);
    }

    #[test]
    fn a_log_that_is_not_there_is_no_error_and_is_found_when_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        let mut log = KernelLog::new(path.clone());
        assert_eq!(drain(&mut log), []);
        assert!(!log.works());
        std::fs::write(&path, "NVRM: Xid (PCI:0000:c1:00): 31, pid=1\n").unwrap();
        let found: Vec<_> = (0..=READINGS_BETWEEN_ATTEMPTS).flat_map(|_| drain(&mut log)).collect();
        assert_eq!(found, [(31, true)]);
        assert!(log.works());
    }
}
