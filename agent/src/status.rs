//! What the agent tells people about itself: GPUs found, and how each sampler fares.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What is known about this node's GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GpuState {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// NVIDIA's library is not there or does not start; that is no error.
    NoLibrary {
        /// What the loader said.
        reason: String,
    },
    /// The library is loaded.
    Loaded {
        /// Version of the driver.
        driver: String,
        /// Model of each GPU found, possibly none.
        gpus: Vec<String>,
    },
}

impl GpuState {
    /// How many GPUs there are.
    pub fn count(&self) -> usize {
        match self {
            GpuState::Loaded { gpus, .. } => gpus.len(),
            GpuState::Unknown | GpuState::NoLibrary { .. } => 0,
        }
    }
}

/// The state of GPU detection, to be read and waited for.
#[derive(Debug)]
pub struct GpuStatus {
    state: watch::Sender<GpuState>,
}

impl Default for GpuStatus {
    fn default() -> Self {
        GpuStatus { state: watch::channel(GpuState::Unknown).0 }
    }
}

impl GpuStatus {
    /// What is known now.
    pub fn get(&self) -> GpuState {
        self.state.borrow().clone()
    }

    /// Waits until somebody has looked.
    pub async fn known(&self) -> GpuState {
        let mut changes = self.state.subscribe();
        match changes.wait_for(|state| *state != GpuState::Unknown).await {
            Ok(state) => state.clone(),
            // The sender lives in `self`.
            Err(_) => GpuState::Unknown,
        }
    }

    /// Tells when it changes.
    pub(crate) fn changes(&self) -> watch::Receiver<GpuState> {
        self.state.subscribe()
    }

    /// Notes what was found, and logs it if it is new.
    pub(crate) fn set(&self, new: GpuState) {
        self.state.send_if_modified(|state| {
            let changed = *state != new;
            if changed {
                match &new {
                    GpuState::Unknown => {}
                    GpuState::NoLibrary { reason } => {
                        tracing::info!(reason, "No GPU library (NVML) here; GPUs are not sampled");
                    }
                    GpuState::Loaded { driver, gpus } => {
                        tracing::info!(count = gpus.len(), driver, models = gpus.join(", "), "GPUs found");
                    }
                }
                *state = new;
            }
            changed
        });
    }
}

/// How one sampler fares.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct SamplerStatus {
    /// Its name.
    pub name: &'static str,
    /// Milliseconds from reading to reading.
    pub interval_ms: u64,
    /// Milliseconds from sample to sample of the series themselves; what is read in between goes to `:fast`.
    pub grid_ms: u64,
    /// Why it reads at this interval.
    pub reason: crate::schedule::Reason,
    /// Whether it runs on a thread that can be abandoned, because its readings may hang.
    pub own_thread: bool,
    /// Whether it finds nothing to publish, and so is asked less often.
    pub idle: bool,
    /// Readings taken.
    pub readings: u64,
    /// Readings that failed.
    pub failures: u64,
    /// Ticks on which it could not run, because the reading before had not ended.
    pub missed_ticks: u64,
    /// Wall-clock time of the last reading, seconds.
    pub last_duration_seconds: f64,
    /// Processor time of all readings, seconds.
    pub cpu_seconds_total: f64,
    /// Whether the last reading succeeded.
    pub succeeded: bool,
    /// Why the last failed reading failed.
    pub last_error: Option<String>,
    /// For how long a reading has been going on, if it has outlasted its interval.
    pub hangs_for_seconds: Option<f64>,
}

/// The status of all samplers.
#[derive(Debug, Default)]
pub struct SamplerStatuses {
    list: Mutex<Vec<SamplerStatus>>,
}

impl SamplerStatuses {
    /// A copy for people.
    pub fn list(&self) -> Vec<SamplerStatus> {
        self.lock().clone()
    }

    pub(crate) fn update(&self, name: &'static str, change: impl FnOnce(&mut SamplerStatus)) {
        let mut list = self.lock();
        // Names are nearly always the very same text.
        let same = |status: &&mut SamplerStatus| std::ptr::eq(status.name, name) || status.name == name;
        match list.iter_mut().find(same) {
            Some(status) => change(status),
            None => {
                let mut status = SamplerStatus { name, ..SamplerStatus::default() };
                change(&mut status);
                list.push(status);
                list.sort_by_key(|status| status.name);
            }
        }
    }

    pub(crate) fn with<R>(&self, read: impl FnOnce(&[SamplerStatus]) -> R) -> R {
        read(&self.lock())
    }

    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.lock().retain(|status| keep(status.name));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SamplerStatus>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds, for a status.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
