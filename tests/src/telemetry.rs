//! Data that look like telemetry: what 100 GPU nodes send, made by arithmetic so that every run and every
//! peer gets the same.
//!
//! A node has 561 series in 31 groups: counters of varying slope and counters that stand still, CPU times
//! in hundredths that sum to the cores there are, memory in pages that moves and rests, GPU utilisation in
//! bursts, power and temperature as sensors give them. A classic histogram of a service stands beside them for
//! benchmarks that ask for quantiles; it is no part of the 561.

use crate::data::{GroupSpec, SeriesSpec, Ticks};

/// Series of a node.
pub const SERIES_PER_NODE: usize = 561;

/// Upper bounds of the histogram's buckets in seconds, and the share of requests below each.
const BUCKETS: [(&str, f64); 12] = [
    ("0.001", 0.02),
    ("0.0025", 0.08),
    ("0.005", 0.2),
    ("0.01", 0.41),
    ("0.025", 0.66),
    ("0.05", 0.8),
    ("0.1", 0.9),
    ("0.25", 0.96),
    ("0.5", 0.98),
    ("1", 0.993),
    ("2.5", 0.998),
    ("+Inf", 1.0),
];

#[derive(Clone, Copy, Debug)]
enum Behaviour {
    /// Never moves.
    Still(f64),
    /// A counter of hundredths: a share of a core.
    CpuSeconds { share: f64 },
    /// A whole-number counter; bursts now and then.
    Counter { per_second: f64, burst: f64 },
    /// A whole-number counter that moves rarely.
    RareCounter { chance: f64 },
    /// Bytes in pages of 4 KiB; moves, then rests.
    Pages { around: f64, swing: f64 },
    /// Whole numbers from 0 to 100 in bursts of work.
    Utilisation,
    /// Decimals with this scale, following the work.
    Sensor { idle: f64, busy: f64, scale: f64 },
    /// One of a few levels, following the work.
    Level { idle: f64, busy: f64 },
    /// A counter of the integral of a sensor.
    Energy { idle: f64, busy: f64 },
    /// A counter of this share (or mean seconds) of a service's requests, which follow the work.
    Requests { share: f64 },
}

/// A series and how it moves.
type Moving = (SeriesSpec, Behaviour);

fn spec(name: &str, labels: &[(&str, &str)], behaviour: Behaviour) -> Moving {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    (SeriesSpec { name: name.to_owned(), labels }, behaviour)
}

/// The groups of a node.
pub fn node_groups() -> Vec<GroupSpec> {
    Part::default().groups()
}

/// What of a node's series is wanted.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// The histogram beside the 561.
    pub histogram: bool,
    /// Series of this name alone.
    pub only: Option<String>,
}

impl Part {
    fn layout(&self) -> Vec<Vec<Moving>> {
        let mut groups = layout();
        if self.histogram {
            groups.push(histogram());
        }
        if let Some(only) = &self.only {
            groups.iter_mut().for_each(|group| group.retain(|(series, _)| series.name == *only));
            groups.retain(|group| !group.is_empty());
        }
        groups
    }

    /// The groups of a node.
    pub fn groups(&self) -> Vec<GroupSpec> {
        let series = |group: Vec<Moving>| group.into_iter().map(|(series, _)| series).collect();
        self.layout().into_iter().map(|group| GroupSpec { series: series(group) }).collect()
    }
}

fn histogram() -> Vec<Moving> {
    let name = |part: &str| format!("request_duration_seconds_{part}");
    let buckets = BUCKETS
        .iter()
        .map(|(bound, share)| spec(&name("bucket"), &[("le", bound)], Behaviour::Requests { share: *share }));
    let whole = [
        spec(&name("count"), &[], Behaviour::Requests { share: 1.0 }),
        spec(&name("sum"), &[], Behaviour::Requests { share: 0.043 }),
    ];
    buckets.chain(whole).collect()
}

fn layout() -> Vec<Vec<Moving>> {
    let mut groups = Vec::new();
    let modes = [
        ("idle", 0.7),
        ("user", 0.2),
        ("system", 0.06),
        ("iowait", 0.01),
        ("softirq", 0.005),
        ("irq", 0.0),
        ("nice", 0.0),
        ("steal", 0.0),
    ];
    for cpu in 0..16 {
        let cpu = cpu.to_string();
        let series = modes.iter().map(|(mode, share)| {
            let behaviour =
                if *share > 0.0 { Behaviour::CpuSeconds { share: *share } } else { Behaviour::Still(0.0) };
            spec("node_cpu_seconds_total", &[("cpu", &cpu), ("mode", mode)], behaviour)
        });
        groups.push(series.collect());
    }
    let memory = (0..50).map(|field| {
        let behaviour = match field % 5 {
            0 => Behaviour::Pages { around: 4e11, swing: 2e9 },
            1 => Behaviour::Pages { around: 6e10, swing: 3e7 },
            2 => Behaviour::Pages { around: 2e8, swing: 1e5 },
            _ => Behaviour::Still(f64::from(field) * 4096.0),
        };
        spec(&format!("node_memory_field{field}_bytes"), &[], behaviour)
    });
    groups.push(memory.collect());
    let kernel = (0..92).map(|field| {
        let behaviour = match field % 6 {
            0 => Behaviour::Counter { per_second: 40_000.0, burst: 90_000.0 },
            1 => Behaviour::Counter { per_second: 300.0, burst: 4_000.0 },
            2 => Behaviour::RareCounter { chance: 0.05 },
            3 => Behaviour::Counter { per_second: 2.0, burst: 0.0 },
            _ => Behaviour::Still(f64::from(field * 1_001)),
        };
        spec(&format!("node_netstat_Field{field}"), &[], behaviour)
    });
    groups.push(kernel.collect());
    let load = ["1", "5", "15"].map(|minutes| {
        spec(&format!("node_load{minutes}"), &[], Behaviour::Sensor { idle: 1.0, busy: 30.0, scale: 100.0 })
    });
    groups.push(load.to_vec());
    for device in ["nvme0n1", "nvme1n1"] {
        let disk = (0..15).map(|field| {
            let behaviour = match field % 3 {
                0 => Behaviour::Counter { per_second: 120.0, burst: 2_000.0 },
                1 => Behaviour::CpuSeconds { share: 0.1 },
                _ => Behaviour::RareCounter { chance: 0.02 },
            };
            spec(&format!("node_disk_field{field}_total"), &[("device", device)], behaviour)
        });
        groups.push(disk.collect());
    }
    for device in ["eth0", "ib0"] {
        let network = (0..17).map(|field| {
            let behaviour = match field % 4 {
                0 => Behaviour::Counter { per_second: 8e6, burst: 9e8 },
                1 => Behaviour::Counter { per_second: 9_000.0, burst: 700_000.0 },
                _ => Behaviour::Still(0.0),
            };
            spec(&format!("node_network_field{field}_total"), &[("device", device)], behaviour)
        });
        groups.push(network.collect());
    }
    for gpu in 0..8 {
        let number = gpu.to_string();
        let uuid = format!("GPU-5c2e4f1a-0000-4000-8000-00000000000{gpu}");
        let labels =
            [("gpu", number.as_str()), ("UUID", uuid.as_str()), ("modelName", "NVIDIA H100 80GB HBM3")];
        let fields: [(&str, Behaviour); 28] = [
            ("DCGM_FI_DEV_GPU_UTIL", Behaviour::Utilisation),
            ("DCGM_FI_DEV_MEM_COPY_UTIL", Behaviour::Utilisation),
            ("DCGM_FI_DEV_POWER_USAGE", Behaviour::Sensor { idle: 71.0, busy: 680.0, scale: 1000.0 }),
            ("DCGM_FI_DEV_GPU_TEMP", Behaviour::Sensor { idle: 31.0, busy: 68.0, scale: 1.0 }),
            ("DCGM_FI_DEV_MEMORY_TEMP", Behaviour::Sensor { idle: 40.0, busy: 80.0, scale: 1.0 }),
            ("DCGM_FI_DEV_SM_CLOCK", Behaviour::Level { idle: 345.0, busy: 1980.0 }),
            ("DCGM_FI_DEV_MEM_CLOCK", Behaviour::Still(2619.0)),
            ("DCGM_FI_DEV_FB_USED", Behaviour::Level { idle: 4.0, busy: 71_000.0 }),
            ("DCGM_FI_DEV_FB_FREE", Behaviour::Level { idle: 81_100.0, busy: 10_104.0 }),
            ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", Behaviour::Energy { idle: 71_000.0, busy: 680_000.0 }),
            ("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", Behaviour::Counter { per_second: 1e6, burst: 4e8 }),
            ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", Behaviour::Sensor { idle: 0.0, busy: 0.98, scale: 1e6 }),
            ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", Behaviour::Sensor { idle: 0.0, busy: 0.55, scale: 1e6 }),
            ("DCGM_FI_PROF_DRAM_ACTIVE", Behaviour::Sensor { idle: 0.0, busy: 0.6, scale: 1e6 }),
            ("DCGM_FI_PROF_PCIE_TX_BYTES", Behaviour::Counter { per_second: 2e5, burst: 3e9 }),
            ("DCGM_FI_PROF_PCIE_RX_BYTES", Behaviour::Counter { per_second: 2e5, burst: 3e9 }),
            ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", Behaviour::Still(0.0)),
            ("DCGM_FI_DEV_XID_ERRORS", Behaviour::Still(0.0)),
            ("DCGM_FI_DEV_ENC_UTIL", Behaviour::Still(0.0)),
            ("DCGM_FI_DEV_DEC_UTIL", Behaviour::Still(0.0)),
            ("DCGM_FI_DEV_VGPU_LICENSE_STATUS", Behaviour::Still(0.0)),
            ("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", Behaviour::Still(0.0)),
            ("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", Behaviour::Still(0.0)),
            ("DCGM_FI_DEV_ROW_REMAP_FAILURE", Behaviour::Still(0.0)),
            ("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", Behaviour::RareCounter { chance: 0.001 }),
            ("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", Behaviour::Still(0.0)),
            ("DCGM_FI_DEV_POWER_VIOLATION", Behaviour::Counter { per_second: 1000.0, burst: 9e6 }),
            ("DCGM_FI_DEV_THERMAL_VIOLATION", Behaviour::Still(0.0)),
        ];
        let series = fields.iter().map(|(name, behaviour)| spec(name, &labels, *behaviour));
        groups.push(series.collect());
    }
    groups
}

/// The running values of one node.
#[derive(Debug)]
pub struct NodeValues {
    behaviours: Vec<Behaviour>,
    values: Vec<f64>,
    random: u64,
    /// 0 to 1: how busy the node's job is. Jobs come and go.
    work: f64,
    target: f64,
    left: u32,
}

impl NodeValues {
    /// Node number `node` at its first second.
    pub fn new(node: u64) -> NodeValues {
        NodeValues::of(node, &Part::default())
    }

    /// The values of a part.
    pub fn of(node: u64, part: &Part) -> NodeValues {
        let layout = part.layout();
        let behaviours: Vec<Behaviour> =
            layout.into_iter().flatten().map(|(_, behaviour)| behaviour).collect();
        let mut random = node.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let values = behaviours
            .iter()
            .map(|behaviour| match *behaviour {
                Behaviour::Still(value) => value,
                Behaviour::CpuSeconds { share } => (next(&mut random) * 3e7 * share).round() / 100.0,
                Behaviour::Counter { per_second, .. } => (next(&mut random) * per_second * 3e5).round(),
                Behaviour::Energy { busy, .. } => (next(&mut random) * busy * 3e5).round(),
                Behaviour::Pages { around, .. } => (around / 4096.0).round() * 4096.0,
                _ => 0.0,
            })
            .collect();
        NodeValues { behaviours, values, random, work: 0.0, target: 0.0, left: 0 }
    }

    /// Moves on by a second; all values, group after group.
    pub fn tick(&mut self) -> &[f64] {
        if self.left == 0 {
            self.target = if next(&mut self.random) < 0.7 { 0.6 + next(&mut self.random) * 0.4 } else { 0.0 };
            self.left = 20 + (next(&mut self.random) * 200.0) as u32;
        }
        self.left -= 1;
        self.work += (self.target - self.work) * 0.3;
        let (work, random) = (self.work, &mut self.random);
        for (value, behaviour) in self.values.iter_mut().zip(&self.behaviours) {
            match *behaviour {
                Behaviour::Still(_) => {}
                Behaviour::CpuSeconds { share } => {
                    let step = (share * 100.0 * (0.5 + next(random))).round();
                    *value = ((*value * 100.0).round() + step) / 100.0;
                }
                Behaviour::Counter { per_second, burst } => {
                    *value += (per_second * (0.7 + 0.6 * next(random)) + burst * work * next(random)).round();
                }
                Behaviour::RareCounter { chance } => {
                    if next(random) < chance {
                        *value += 1.0 + (next(random) * 3.0).floor();
                    }
                }
                Behaviour::Pages { around, swing } => {
                    if next(random) < 0.4 {
                        *value = ((around + swing * (next(random) - 0.5 + work)) / 4096.0).round() * 4096.0;
                    }
                }
                Behaviour::Utilisation => {
                    let noise = (next(random) - 0.5) * 12.0;
                    *value = if work < 0.05 { 0.0 } else { (work * 96.0 + noise).round().clamp(0.0, 100.0) };
                }
                Behaviour::Sensor { idle, busy, scale } => {
                    let level = idle + (busy - idle) * work;
                    let noise = (next(random) - 0.5) * (busy - idle) * 0.02;
                    *value = ((level + noise).max(0.0) * scale).round() / scale;
                }
                Behaviour::Level { idle, busy } => *value = if work > 0.3 { busy } else { idle },
                Behaviour::Energy { idle, busy } => {
                    *value += (idle + (busy - idle) * work + 500.0 * next(random)).round();
                }
                // Without chance of its own, so that each bucket holds those below it.
                Behaviour::Requests { share } => *value += ((50.0 + 400.0 * work) * share).floor(),
            }
        }
        &self.values
    }
}

impl Ticks for NodeValues {
    fn tick(&mut self) -> &[f64] {
        NodeValues::tick(self)
    }
}

/// xorshift64*: the next number from 0 to 1.
fn next(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_its_series_and_every_run_gets_the_same_values() {
        let series: usize = node_groups().iter().map(|group| group.series.len()).sum();
        assert_eq!(series, SERIES_PER_NODE);
        let run = || {
            let mut node = NodeValues::new(3);
            (0..100).map(|_| node.tick().iter().sum::<f64>().to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}
