//! What a reader says about GPUs: who they are, and how they are now.
//!
//! A [`Source`] (the driver's reader in its child process, or a trace that is played) calls back with these;
//! it neither knows labels nor groups. Buffers inside are reused from reading to reading.

use super::metric::{GpuValues, InstanceValues, LinkValues};

/// GPUs of one node; the largest boards have 16.
pub const GPUS_MAX: usize = 64;
/// MIG instances of a GPU: seven slices, each with up to seven compute instances.
pub const INSTANCES_MAX: usize = 56;
/// NVLinks of a GPU; Blackwell has 18.
pub const LINKS_MAX: usize = 36;
/// Processes of a GPU that are told apart; the rest is left out.
pub const PROCESSES_MAX: usize = 64;
/// Critical errors told at once.
pub const EVENTS_MAX: usize = 64;

/// What is known of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverInfo {
    /// Version of the kernel driver.
    pub driver: String,
    /// Version of the library.
    pub nvml: String,
    /// Newest CUDA that the driver runs, as `12.4`.
    pub cuda: String,
    /// GPUs that the library lists, reachable or not.
    pub gpus: u32,
}

/// Who a GPU is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuDescription {
    /// Its number, as in the label `gpu`.
    pub index: u32,
    /// As in `/dev/nvidiaN`.
    pub minor: u32,
    /// `GPU-…`
    pub uuid: String,
    /// `00000000:41:00.0`
    pub pci_bus_id: String,
    /// `NVIDIA H100 80GB HBM3`
    pub model: String,
    /// What only the info metric shows, as label and value.
    pub details: Vec<(String, String)>,
    /// Its MIG instances, in the order of their readings.
    pub instances: Vec<InstanceDescription>,
    /// Numbers of its NVLinks, in the order of their readings.
    pub links: Vec<u32>,
}

/// Who a MIG instance is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceDescription {
    /// `MIG-…`
    pub uuid: String,
    /// Number of the GPU instance.
    pub gpu_instance: u32,
    /// Number of the compute instance in it.
    pub compute_instance: u32,
    /// `1g.10gb`
    pub profile: String,
}

/// How a GPU is now.
#[derive(Clone, Debug)]
pub struct GpuReading {
    /// Its number.
    pub index: u32,
    /// Values of the whole GPU.
    pub values: GpuValues,
    /// Values of its MIG instances.
    pub instances: Vec<InstanceValues>,
    /// Values of its NVLinks.
    pub links: Vec<LinkValues>,
    /// Processes on it.
    pub processes: Vec<ProcessReading>,
    /// Calls that failed although the GPU offers them.
    pub errors: u32,
}

impl GpuReading {
    /// Nothing known of a GPU.
    pub fn empty(index: u32) -> Self {
        GpuReading {
            index,
            values: GpuValues::ABSENT,
            instances: Vec::new(),
            links: Vec::new(),
            processes: Vec::new(),
            errors: 0,
        }
    }

    /// Forgets the values and keeps the buffers.
    pub fn clear(&mut self) {
        self.values = GpuValues::ABSENT;
        self.instances.clear();
        self.links.clear();
        self.processes.clear();
        self.errors = 0;
    }
}

/// A process that uses a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessReading {
    /// Its id, in the namespace of the driver (the host's).
    pub pid: u32,
    /// Memory it holds on the GPU in bytes; NaN if the driver does not tell.
    pub memory_bytes: f64,
    /// Share of the SMs it used lately, percent; NaN if the driver does not tell.
    pub sm_util: f64,
    /// Number of its GPU instance; `u32::MAX` without MIG.
    pub gpu_instance: u32,
    /// Whether it is a client of MPS.
    pub mps: bool,
}

/// Whether one GPU reaches another's memory over NVLink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerReading {
    /// Number of the other GPU.
    pub index: u32,
    /// `nvmlGpuP2PStatus_t`: 0 if it does, otherwise why not.
    pub status: u32,
}

/// Takes what a reading brings.
pub trait Sink {
    /// The driver, once it answers.
    fn driver(&mut self, driver: DriverInfo);
    /// A GPU that is new or has changed (MIG instances came or went).
    fn describe(&mut self, gpu: GpuDescription);
    /// A GPU's values now.
    fn reading(&mut self, reading: &GpuReading);
    /// A GPU that does not answer, and why.
    fn failed(&mut self, index: u32, error: &str);
    /// What is known of a GPU's peers now; holds until it is told anew.
    fn peers(&mut self, index: u32, peers: &[PeerReading]);
    /// A critical error that the driver tells of.
    fn event(&mut self, index: u32, xid: u32);
}
