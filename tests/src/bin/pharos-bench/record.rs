//! Records node_exporter on this machine, once a second, into the file that `--data recording` replays.

use crate::http::Http;
use crate::progress::Progress;
use anyhow::bail;
use pharos_tests::recording::{Recorder, Recording};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where node_exporter listens
    #[arg(long, default_value = "127.0.0.1:9100")]
    address: String,
    /// How long
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// The file
    #[arg(long, default_value = "tests/data/node_exporter.rec")]
    output: PathBuf,
}

/// Records; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<serde_json::Value> {
    let mut http = Http::new(&arguments.address);
    let mut recorder = Recorder::default();
    let progress = Progress::new("seconds recorded", u64::from(arguments.seconds));
    let begin = Instant::now();
    for second in 0..arguments.seconds {
        let due = begin + Duration::from_secs(u64::from(second));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (status, body) = http.get("/metrics")?;
        if status != 200 {
            bail!("{}: {status}", arguments.address);
        }
        recorder.add(&String::from_utf8_lossy(&body));
        progress.add(1);
    }
    let file = recorder.finish()?;
    let recording = Recording::read(&file)?;
    let series: usize = recording.groups().iter().map(|group| group.series.len()).sum();
    if let Some(folder) = arguments.output.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&arguments.output, &file)?;
    Ok(json!({"bench": "record", "seconds": recording.seconds(), "series": series, "bytes": file.len()}))
}
