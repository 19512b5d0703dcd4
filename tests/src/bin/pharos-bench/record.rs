//! Records node_exporter on this machine, once a second, into the file that `--data recording` replays; and, in
//! the same seconds, the agent's page, for `node-day`.

use crate::http::Http;
use crate::progress::Progress;
use anyhow::bail;
use pharos_tests::recording::{Recorder, Recording};
use serde_json::json;
use std::path::{Path, PathBuf};
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
    /// Where a `pharos-agent` serves /metrics, to be recorded at the same time
    #[arg(long, requires = "agent_output")]
    agent_address: Option<String>,
    /// The file of that
    #[arg(long)]
    agent_output: Option<PathBuf>,
}

/// One page, second after second.
struct Page {
    http: Http,
    address: String,
    recorder: Recorder,
}

impl Page {
    fn new(address: &str) -> Page {
        Page { http: Http::new(address), address: address.to_owned(), recorder: Recorder::default() }
    }

    fn scrape(&mut self) -> anyhow::Result<()> {
        let (status, body) = self.http.get("/metrics")?;
        if status != 200 {
            bail!("{}: {status}", self.address);
        }
        self.recorder.add(&String::from_utf8_lossy(&body));
        Ok(())
    }

    fn write(self, output: &Path) -> anyhow::Result<serde_json::Value> {
        let file = self.recorder.finish()?;
        let recording = Recording::read(&file)?;
        let series: usize = recording.groups().iter().map(|group| group.series.len()).sum();
        if let Some(folder) = output.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(output, &file)?;
        Ok(json!({"seconds": recording.seconds(), "series": series, "bytes": file.len()}))
    }
}

/// Records; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<serde_json::Value> {
    let mut exporter = Page::new(&arguments.address);
    let mut agent = arguments.agent_address.as_deref().map(Page::new);
    let progress = Progress::new("seconds recorded", u64::from(arguments.seconds));
    let begin = Instant::now();
    for second in 0..arguments.seconds {
        let due = begin + Duration::from_secs(u64::from(second));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        exporter.scrape()?;
        agent.iter_mut().try_for_each(Page::scrape)?;
        progress.add(1);
    }
    let mut result = json!({"bench": "record", "node_exporter": exporter.write(&arguments.output)?});
    if let (Some(agent), Some(output)) = (agent, &arguments.agent_output) {
        result["agent"] = agent.write(output)?;
    }
    Ok(result)
}
