//! What a process has used, from `/proc`.

use anyhow::Context;

/// CPU seconds and peak memory of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time of all threads, seconds.
    pub(crate) cpu_seconds: f64,
    /// Most resident memory so far, bytes.
    pub(crate) peak_bytes: u64,
    /// Bytes handed to the disk so far.
    pub(crate) written_bytes: u64,
}

/// Of process `pid`.
pub(crate) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&path).with_context(|| path)
    };
    let stat = read("stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    let field = |text: &str, name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    Ok(Usage {
        // utime and stime, in ticks of 10 ms on every Linux that we run on.
        cpu_seconds: (ticks(11) + ticks(12)) / 100.0,
        peak_bytes: field(&read("status")?, "VmHWM:") * 1024,
        written_bytes: field(&read("io")?, "write_bytes:"),
    })
}

/// CPU seconds of all living threads of process `pid`, to the nanosecond.
pub(crate) fn scheduled_seconds(pid: u32) -> anyhow::Result<f64> {
    let folder = format!("/proc/{pid}/task");
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(&folder).with_context(|| folder.clone())? {
        // A thread may end while it is looked at.
        let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds +=
            text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanoseconds as f64 / 1e9)
}
