//! A process' system calls, counted by `perf stat` for some seconds: all, and the usual ones by name.

use serde_json::{Map, Value, json};
use std::process::{Child, Command, Stdio};

const ALL: &str = "raw_syscalls:sys_enter";
/// What agents and exporters do all day: files of the kernel, a journal, connections, timers.
const NAMES: [&str; 30] = [
    "pread64",
    "read",
    "openat",
    "close",
    "lseek",
    "newfstatat",
    "newfstat",
    "statx",
    "statfs",
    "getdents64",
    "fcntl",
    "pwrite64",
    "fdatasync",
    "write",
    "writev",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "epoll_wait",
    "epoll_pwait",
    "epoll_ctl",
    "poll",
    "ppoll",
    "futex",
    "clock_nanosleep",
    "nanosleep",
    "clock_gettime",
    "clock_adjtime",
    "getrusage",
];

/// Calls a second.
pub(super) struct Calls {
    pub(super) per_second: f64,
    /// Those of [`NAMES`] that occur, and what is left as `others`.
    pub(super) by_name: Value,
}

/// A count that goes on.
pub(super) struct Counting {
    perf: Child,
    seconds: u32,
}

impl Calls {
    /// Starts counting; `None` without perf.
    pub(super) fn count(pid: u32, seconds: u32) -> Option<Counting> {
        let mut events = ALL.to_owned();
        NAMES.iter().for_each(|name| events += &format!(",syscalls:sys_enter_{name}"));
        let perf = Command::new("perf")
            .args(["stat", "-x,", "-e", &events, "-p", &pid.to_string(), "--", "sleep"])
            .arg(seconds.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        Some(Counting { perf, seconds })
    }

    /// Waits for its end; `None` if perf may not count them here.
    pub(super) fn counted(counting: Counting) -> Option<Calls> {
        let output = counting.perf.wait_with_output().ok()?;
        parse(&String::from_utf8_lossy(&output.stderr), f64::from(counting.seconds))
    }
}

/// Reads the lines of `perf stat -x,`: count, unit, event, and more.
fn parse(text: &str, seconds: f64) -> Option<Calls> {
    let (mut all, mut named) = (None, 0.0);
    let mut by_name = Map::new();
    for line in text.lines() {
        let mut fields = line.split(',');
        let (Some(count), Some(event)) = (fields.next(), fields.nth(1)) else { continue };
        let Ok(count) = count.parse::<f64>() else { continue };
        if event == ALL {
            all = Some(count / seconds);
        } else if let Some(name) = event.strip_prefix("syscalls:sys_enter_")
            && count > 0.0
        {
            named += count / seconds;
            by_name.insert(name.to_owned(), json!(count / seconds));
        }
    }
    let per_second = all?;
    by_name.insert("others".to_owned(), json!((per_second - named).max(0.0)));
    Some(Calls { per_second, by_name: by_name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_perf_are_told_by_name_and_what_may_not_be_counted_is_nothing() {
        let text = "560,,raw_syscalls:sys_enter,10000,100.00,,\n\
                    300,,syscalls:sys_enter_pread64,1,100.00,,\n0,,syscalls:sys_enter_writev,1,100.00,,\n";
        let calls = parse(text, 10.0).unwrap();
        assert_eq!(calls.per_second, 56.0);
        assert_eq!(calls.by_name, json!({"pread64": 30.0, "others": 26.0}));
        assert!(parse("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n", 10.0).is_none());
    }
}
