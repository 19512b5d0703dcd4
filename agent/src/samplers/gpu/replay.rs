//! Plays a trace of a node's GPUs instead of reading any (`--gpu.replay`): for demos, tests and dashboards.
//!
//! `agent/traces/README.md` describes the text. What is played takes the same way as what is read, from
//! values to series, so a dashboard cannot tell them apart.

mod parse;

use super::metric::{GpuValues, LinkMetric, LinkValues, Metric};
use super::reading::{DriverInfo, GpuDescription, GpuReading, ProcessReading, Sink};
pub use parse::TraceError;
use parse::{Action, Step, Trace, Value};
use std::path::Path;

/// A trace at play.
#[derive(Debug)]
pub(super) struct Replay {
    trace: Trace,
    gpus: Vec<Played>,
    next: usize,
    last_seconds: Option<f64>,
    lap: u64,
    introduced: bool,
}

/// A GPU of the trace as it is now.
#[derive(Debug)]
struct Played {
    reading: GpuReading,
    playing: Vec<(usize, Value, f64)>,
    counters: GpuValues,
    lost: bool,
    xids: Vec<u32>,
}

impl Replay {
    /// Reads a trace.
    ///
    /// # Errors
    /// Which line is wrong and how, or why there is no file.
    pub(super) fn open(path: &Path) -> Result<Self, TraceError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TraceError::Read { path: path.to_owned(), source })?;
        Ok(Self::new(Trace::parse(&text).map_err(|error| error.in_file(path))?))
    }

    fn new(trace: Trace) -> Self {
        let gpus = (0..trace.gpus).map(Played::new).collect();
        Replay { trace, gpus, next: 0, last_seconds: None, lap: 0, introduced: false }
    }

    /// Tells the GPUs as they are at a time.
    pub(super) fn read(&mut self, now_seconds: f64, sink: &mut impl Sink) {
        if !self.introduced {
            self.introduced = true;
            self.introduce(sink);
        }
        let elapsed =
            self.last_seconds.replace(now_seconds).map_or(0.0, |then| (now_seconds - then).max(0.0));
        let (lap, at) = match self.trace.loop_seconds {
            Some(length) => ((now_seconds / length) as u64, now_seconds % length),
            None => (0, now_seconds),
        };
        if lap != self.lap {
            self.lap = lap;
            self.next = 0;
            for gpu in &mut self.gpus {
                gpu.lost = false;
                gpu.playing.clear();
                gpu.reading.processes.clear();
            }
        }
        while let Some(step) = self.trace.steps.get(self.next).filter(|step| step.at_seconds <= at) {
            for (index, gpu) in self.gpus.iter_mut().enumerate() {
                if step.gpu.is_none_or(|only| only as usize == index) {
                    gpu.apply(step);
                }
            }
            self.next += 1;
        }
        for gpu in &mut self.gpus {
            gpu.play(at, elapsed, self.trace.links);
            let index = gpu.reading.index;
            gpu.xids.drain(..).for_each(|xid| sink.event(index, xid));
            if gpu.lost {
                sink.failed(index, "lost in the trace");
            } else {
                sink.reading(&gpu.reading);
            }
        }
    }

    fn introduce(&self, sink: &mut impl Sink) {
        let trace = &self.trace;
        let (driver, nvml, cuda) = (trace.driver.clone(), String::new(), String::new());
        sink.driver(DriverInfo { driver, nvml, cuda, gpus: trace.gpus });
        for index in 0..trace.gpus {
            sink.describe(GpuDescription {
                index,
                minor: index,
                uuid: format!("GPU-00000000-0000-0000-0000-{index:012x}"),
                pci_bus_id: format!("00000000:{:02X}:00.0", 0x18 + 0x10 * index),
                model: trace.model.clone(),
                details: Vec::new(),
                instances: Vec::new(),
                links: (0..trace.links).collect(),
            });
        }
    }
}

impl Played {
    fn new(index: u32) -> Self {
        Played {
            reading: GpuReading::empty(index),
            playing: Vec::new(),
            counters: GpuValues::ABSENT,
            lost: false,
            xids: Vec::new(),
        }
    }

    fn apply(&mut self, step: &Step) {
        match &step.action {
            Action::Play(metric, value) => {
                let column = *metric as usize;
                self.playing.retain(|(playing, ..)| *playing != column);
                self.playing.push((column, *value, step.at_seconds));
            }
            Action::Stop(metric) => self.playing.retain(|(playing, ..)| *playing != *metric as usize),
            Action::Xid(xid) => self.xids.push(*xid),
            Action::Lost => self.lost = true,
            Action::Back => self.lost = false,
            Action::Process { pid, memory_mib } => {
                let memory_bytes = memory_mib * 1_048_576.0;
                self.reading.processes.retain(|process| process.pid != *pid);
                let (pid, sm_util, gpu_instance) = (*pid, f64::NAN, u32::MAX);
                let process = ProcessReading { pid, memory_bytes, sm_util, gpu_instance, mps: false };
                self.reading.processes.push(process);
            }
            Action::EndProcess(pid) => self.reading.processes.retain(|process| process.pid != *pid),
        }
    }

    fn play(&mut self, at_seconds: f64, elapsed: f64, links: u32) {
        self.reading.values = GpuValues::ABSENT;
        for (column, value, since) in &self.playing {
            let noise_of = (u64::from(self.reading.index) << 32) ^ (*column as u64) << 16 ^ at_seconds as u64;
            let now = match *value {
                Value::Constant { value, noise } => value + noise * unit(noise_of),
                Value::Ramp { from, to, seconds } => {
                    from + (to - from) * ((at_seconds - since) / seconds).clamp(0.0, 1.0)
                }
                Value::Rate(per_second) => {
                    let before = self.counters.get(*column).unwrap_or(0.0);
                    before + (per_second * elapsed).round()
                }
            };
            self.counters.put(*column, Some(now));
            self.reading.values.put(*column, Some(now));
        }
        self.reading.links.clear();
        // Links share the GPU's traffic evenly, half in each direction.
        let total = self.reading.values.get(Metric::NvlinkBandwidth as usize);
        for _ in 0..links {
            let mut values = LinkValues::ABSENT;
            values.put(LinkMetric::Up as usize, Some(f64::from(u8::from(!self.lost))));
            let half = total.map(|kibibytes| (kibibytes * 1_024.0 / f64::from(links) / 2.0).round());
            values.put(LinkMetric::Transmitted as usize, half);
            values.put(LinkMetric::Received as usize, half);
            self.reading.links.push(values);
        }
    }
}

/// A number between -1 and 1 that is always the same for a seed.
fn unit(seed: u64) -> f64 {
    // SplitMix64's finish: neighbours of a seed share nothing.
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::gpu::reading::PeerReading;

    #[derive(Default)]
    struct Seen {
        gpus: usize,
        values: Vec<GpuValues>,
        lost: Vec<u32>,
        xids: Vec<(u32, u32)>,
    }

    impl Sink for Seen {
        fn driver(&mut self, _: DriverInfo) {}
        fn describe(&mut self, _: GpuDescription) {
            self.gpus += 1;
        }
        fn reading(&mut self, reading: &GpuReading) {
            self.values.push(reading.values);
        }
        fn failed(&mut self, index: u32, _: &str) {
            self.lost.push(index);
        }
        fn peers(&mut self, _: u32, _: &[PeerReading]) {}
        fn event(&mut self, index: u32, xid: u32) {
            self.xids.push((index, xid));
        }
    }

    fn at(replay: &mut Replay, seconds: f64) -> Seen {
        let mut seen = Seen::default();
        replay.read(seconds, &mut seen);
        seen
    }

    #[test]
    fn values_hold_ramp_and_count_and_gpus_get_lost_and_come_back() {
        let text = "node gpus=2 links=2\nloop 60s\n\
            at 0s gpu * GPU_UTIL=97~2 NVLINK_BANDWIDTH_TOTAL=+1000/s\n\
            at 10s gpu 1 GPU_TEMP=60..80/10s\nat 12s gpu 1 xid 79\nat 13s gpu 1 lost\nat 20s gpu 1 back\n";
        let mut replay = Replay::new(Trace::parse(text).unwrap());
        let first = at(&mut replay, 0.0);
        assert_eq!((first.gpus, first.values.len()), (2, 2));
        let busy = first.values[0].get(Metric::GpuUtil as usize).unwrap();
        assert!((95.0..=99.0).contains(&busy), "{busy}");
        let later = at(&mut replay, 12.0);
        assert_eq!(later.values[1].get(Metric::GpuTemp as usize), Some(64.0));
        assert_eq!(later.values[0].get(Metric::NvlinkBandwidth as usize), Some(12_000.0));
        assert_eq!(later.xids, [(1, 79)]);
        assert_eq!(at(&mut replay, 13.0).lost, [1]);
        assert!(at(&mut replay, 20.0).lost.is_empty());
        // The next lap begins anew, counters go on.
        let lap = at(&mut replay, 61.0);
        assert_eq!(lap.values[1].get(Metric::GpuTemp as usize), None);
        assert_eq!(lap.values[0].get(Metric::NvlinkBandwidth as usize), Some(61_000.0));
        assert_eq!(at(&mut replay, 73.0).xids, [(1, 79)]);
    }

    #[test]
    fn the_shipped_trace_plays() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/h100x8-training.trace");
        let mut replay = Replay::open(&path).unwrap();
        let seen = at(&mut replay, 5.0);
        assert_eq!(seen.values.len(), 8);
        assert!(seen.values[0].known().count() > 40);
    }
}
