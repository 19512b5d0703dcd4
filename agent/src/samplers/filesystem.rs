//! `filesystem`: size and use of each mounted file system.
//!
//! Asking a file system whose server is gone can hang for ever. Local kinds are asked directly, all
//! others through a helper thread with a deadline ([`StatWorker`]): one dead mount costs its own series,
//! not the others.

mod stat_worker;

use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Paths, Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use rustix::fs::{StatVfs, StatVfsMountFlags};
use stat_worker::{Answer, StatWorker};
use std::path::PathBuf;
use std::time::Duration;

const NAMES: [&str; 6] = [
    "node_filesystem_size_bytes",
    "node_filesystem_free_bytes",
    "node_filesystem_avail_bytes",
    "node_filesystem_files",
    "node_filesystem_files_free",
    "node_filesystem_readonly",
];
/// Position of `node_filesystem_mount_info`, behind which comes `node_filesystem_device_error`.
const MOUNT_INFO: usize = NAMES.len();
const DEVICE_ERROR: usize = NAMES.len() + 1;
/// Readings between two looks at a mount table that nobody says has changed.
const READINGS_BETWEEN_LOOKS: u32 = 60;
/// Kinds that answer from memory; nobody else's machine is asked.
const LOCAL_KINDS: [&str; 10] =
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "vfat", "f2fs", "zfs"];

/// Of these, kinds that answer at once, without a lock that a busy disk might hold.
const QUICK_KINDS: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "tmpfs", "ramfs", "vfat"];
/// The kernel's own kinds. Nobody asks them, and a path through them asks nobody else.
const KERNEL_KINDS: [&str; 21] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    // The first process sees the host's mounts even if the agent runs in a container.
    let of_init = options.paths.proc("1/mountinfo");
    let readable = std::fs::File::open(&of_init).is_ok();
    let file = if readable { of_init } else { options.paths.proc("self/mountinfo") };
    Box::new(FilesystemSampler {
        file: KernelFile::list(file),
        mount_points: options.mount_points.clone(),
        kinds: options.fs_types.clone(),
        paths: options.paths.clone(),
        timeout: options.mount_timeout,
        mounts: Objects::default(),
        readings_until_look: 0,
        look_is_due: None,
        all_quick: false,
        key: Vec::new(),
    })
}

struct FilesystemSampler {
    file: KernelFile,
    mount_points: Filter,
    kinds: Filter,
    paths: Paths,
    /// Time that a mount gets before it counts as hanging.
    timeout: Duration,
    mounts: Objects<Mount>,
    /// The mount table is read when the kernel says that it changed, and now and then in any case.
    readings_until_look: u32,
    /// Whether the table is to be read now, if that was asked already: the kernel tells of a change once.
    look_is_due: Option<bool>,
    /// Whether nothing is mounted, wanted or not, that may hang: a path may lead through it.
    all_quick: bool,
    /// Reused for looking mounts up.
    key: Vec<u8>,
}

struct Mount {
    path: PathBuf,
    info: ColumnSpec,
    kind: String,
    /// Whether the mount table says so.
    read_only: bool,
    /// Only for file systems that may hang.
    worker: Option<StatWorker>,
    error: String,
}

/// The parts of a line of `mountinfo`.
struct Line<'a> {
    device_number: &'a [u8],
    mount_point: &'a [u8],
    options: &'a [u8],
    kind: &'a [u8],
    source: &'a [u8],
    super_options: &'a [u8],
}

impl Sampler for FilesystemSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if self.ask_whether_look_is_due() {
            // If reading it fails it is due still.
            self.readings_until_look = 0;
            self.read_mounts(buffer, groups)?;
            self.readings_until_look = READINGS_BETWEEN_LOOKS;
        }
        self.look_is_due = None;
        self.readings_until_look -= 1;
        self.mounts.seen().for_each(|mount| record(mount, groups));
        Ok(())
    }

    fn may_hang(&mut self) -> bool {
        let asks_helper = |mount: &Kept<Mount>| mount.state.worker.is_some();
        self.ask_whether_look_is_due() || !self.all_quick || self.mounts.kept().any(asks_helper)
    }
}

impl FilesystemSampler {
    fn ask_whether_look_is_due(&mut self) -> bool {
        let (file, left) = (&self.file, self.readings_until_look);
        *self.look_is_due.get_or_insert_with(|| left == 0 || file.has_changed())
    }

    fn read_mounts(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.mounts.begin();
        self.all_quick = false;
        let mut all_quick = true;
        let text = self.file.read(buffer)?;
        for line in scan::lines(text) {
            let line = parse(line).ok_or_else(|| self.file.malformed("a mount's line lacks fields"))?;
            // The same thing mounted twice at one place is one series; what lies on top answers.
            self.key.clear();
            for part in [line.mount_point, b" ", line.source, b" ", line.kind] {
                self.key.extend_from_slice(part);
            }
            let (mount_points, kinds, paths, timeout) =
                (&self.mount_points, &self.kinds, &self.paths, self.timeout);
            let is = |kind: &&str| kind.as_bytes() == line.kind;
            all_quick &= QUICK_KINDS.iter().any(is) || KERNEL_KINDS.iter().any(is);
            let mount = self.mounts.find_or_define(&self.key, |_| {
                let mount_point = unescape(line.mount_point);
                let mount_point = paths.strip_root(&mount_point);
                let kind = String::from_utf8_lossy(line.kind);
                let wanted = mount_points.keeps(mount_point) && kinds.keeps(&kind);
                wanted.then(|| define(groups, paths, timeout, &line, mount_point, &kind))
            });
            if let Some(mount) = mount {
                mount.state.read_only =
                    has_option(line.options, b"ro") || has_option(line.super_options, b"ro");
            }
        }
        self.all_quick = all_quick;
        self.mounts.finish(groups)
    }
}

fn record(mount: &mut Kept<Mount>, groups: &mut GroupSet) {
    let state = &mut mount.state;
    let answer = match &mut state.worker {
        Some(worker) => worker.ask(),
        None => {
            rustix::fs::statvfs(&state.path).map_or_else(|error| Answer::Failed(error.into()), Answer::Known)
        }
    };
    let error = match &answer {
        Answer::Known(_) => String::new(),
        Answer::Waits => state.error.clone(),
        Answer::Failed(error) => error.to_string(),
        Answer::Hangs => "mountpoint timeout".to_owned(),
    };
    if error != state.error {
        groups.redefine(mount.group, columns(&state.info, &state.kind, &error));
        state.error = error;
    }
    let Some(group) = groups.group(mount.group) else { return };
    group.put(MOUNT_INFO, 1.0);
    let answer = match answer {
        Answer::Known(answer) => answer,
        Answer::Waits if state.error.is_empty() => return,
        _ => return group.put(DEVICE_ERROR, 1.0),
    };
    group.put(DEVICE_ERROR, 0.0);
    let StatVfs { f_frsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_flag, .. } = answer;
    let bytes = |blocks: u64| blocks as f64 * f_frsize as f64;
    let read_only = state.read_only || f_flag.contains(StatVfsMountFlags::RDONLY);
    let values = [
        bytes(f_blocks),
        bytes(f_bfree),
        bytes(f_bavail),
        f_files as f64,
        f_ffree as f64,
        f64::from(u8::from(read_only)),
    ];
    values.iter().enumerate().for_each(|(column, value)| group.put(column, *value));
}

/// `node_filesystem_mount_info` is the one series without the label `fstype`.
fn columns(info: &ColumnSpec, kind: &str, error: &str) -> Vec<ColumnSpec> {
    let column = |name: &'static str| ColumnSpec::plain(name).with("fstype", kind);
    let mut columns: Vec<ColumnSpec> = NAMES.iter().map(|name| column(name)).collect();
    columns.push(info.clone());
    let device_error = column("node_filesystem_device_error");
    columns.push(if error.is_empty() { device_error } else { device_error.with("device_error", error) });
    columns
}

fn define(
    groups: &mut GroupSet,
    paths: &Paths,
    timeout: Duration,
    line: &Line<'_>,
    mount_point: &str,
    kind: &str,
) -> Kept<Mount> {
    let source = unescape(line.source);
    let key = format!("filesystem/{mount_point}/{source}/{kind}");
    let number = String::from_utf8_lossy(line.device_number);
    let (major, minor) = number.split_once(':').unwrap_or((&number, "0"));
    let info = ColumnSpec::plain("node_filesystem_mount_info").with("major", major).with("minor", minor);
    let labels = vec![("device".into(), source), ("mountpoint".into(), mount_point.to_owned())];
    let path = paths.root(mount_point);
    let worker = (!LOCAL_KINDS.contains(&kind)).then(|| StatWorker::new(path.clone(), timeout));
    let group = groups.define(key, labels, columns(&info, kind, ""));
    let (kind, error) = (kind.to_owned(), String::new());
    Kept { group, state: Mount { path, info, kind, read_only: false, worker, error } }
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = Fields::of(line).skip(2);
    let device_number = fields.next()?;
    let mount_point = fields.nth(1)?;
    let options = fields.next()?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (fields.next()?, fields.next()?);
    Some(Line {
        device_number,
        mount_point,
        options,
        kind,
        source,
        super_options: fields.next().unwrap_or_default(),
    })
}

fn has_option(options: &[u8], wanted: &[u8]) -> bool {
    options.split(|&byte| byte == b',').any(|option| option == wanted)
}

/// The kernel writes blanks, newlines and backslashes as three octal digits.
fn unescape(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        if let Some(digits) = digits {
            out.push(
                digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')),
            );
            rest = &tail[3..];
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_and_odd_ones_are_refused() {
        let line =
            parse(b"36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 x - ext3 /dev/root ro,errors=c").unwrap();
        assert_eq!(unescape(line.mount_point), "/a b");
        assert_eq!(
            (line.kind, line.source, line.device_number),
            (&b"ext3"[..], &b"/dev/root"[..], &b"98:0"[..])
        );
        assert!(has_option(line.super_options, b"ro") && !has_option(line.options, b"ro"));
        for odd in [&b""[..], b"1 2 3", b"1 2 0:1 / /x rw", b"1 2 0:1 / /x rw - ext4"] {
            assert!(parse(odd).is_none());
        }
        assert_eq!(unescape(b"a\\1"), "a\\1");
        assert_eq!(unescape(b"\\777"), "\u{fffd}");
    }

    #[test]
    fn only_where_nothing_is_mounted_that_may_hang_is_a_reading_taken_at_once() {
        let root = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /proc rw - proc proc rw\n";
        let check = |more: &str, want: bool| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(folder.path().join("proc/1")).unwrap();
            std::fs::write(folder.path().join("proc/1/mountinfo"), format!("{root}{more}")).unwrap();
            let options = crate::AgentOptions {
                procfs: folder.path().join("proc"),
                rootfs: folder.path().to_owned(),
                ..crate::AgentOptions::default()
            };
            let mut sampler = build(&options.load().unwrap().plan.options);
            let (mut buffer, mut groups) = (ReadBuffer::default(), GroupSet::default());
            assert!(sampler.may_hang(), "nobody knows what is mounted");
            sampler.sample(&mut buffer, &mut groups).unwrap();
            assert_eq!(sampler.may_hang(), want, "{more}");
            (1..READINGS_BETWEEN_LOOKS).for_each(|_| sampler.sample(&mut buffer, &mut groups).unwrap());
            assert!(sampler.may_hang(), "the table is to be read again");
        };
        check("", false);
        check("3 1 0:9 / /run rw - tmpfs tmpfs rw\n", false);
        check("3 1 0:9 / /home rw - nfs4 server:/home rw\n", true);
        // Not asked, for its place is left out, yet another path might lead through it.
        check("3 1 0:9 / /dev/x rw - fuse.sshfs host: rw\n", true);
    }
}
