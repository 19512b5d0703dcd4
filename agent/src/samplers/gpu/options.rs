//! The GPU sampler's flags.

use std::path::PathBuf;
use std::time::Duration;

/// How GPU series name their node: dcgm-exporter has written it both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HostnameLabel {
    /// `Hostname`, as old versions write it.
    #[value(name = "Hostname")]
    Old,
    /// `hostname`, as new versions write it.
    #[value(name = "hostname")]
    New,
    /// Both labels.
    #[default]
    Both,
}

/// Flags about GPUs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "GPUs")]
pub struct GpuOptions {
    /// NVIDIA's library [default: libnvidia-ml.so.1 where the system finds it]
    #[arg(long = "nvml.library", value_name = "FILE")]
    pub nvml_library: Option<PathBuf>,
    /// Label of GPU series that names the node
    #[arg(long = "gpu.hostname-label", value_enum, default_value_t)]
    pub hostname_label: HostnameLabel,
    /// How long a GPU may stay silent until its reader is abandoned, in milliseconds
    #[arg(long = "gpu.deadline-ms", value_name = "MILLISECONDS", default_value_t = 800, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub deadline_ms: u64,
    /// Memory that the GPU reader may hold before another takes its place, in MiB
    #[arg(long = "gpu.reader-memory-max-mib", value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub reader_memory_max_mib: u64,
    /// While this file is there no GPU is touched and none is held open, so that its driver can be unbound
    #[arg(long = "gpu.release-file", value_name = "FILE", default_value = "/run/pharos/gpu-release")]
    pub release_file: PathBuf,
    /// Play a trace instead of reading GPUs (see agent/traces/README.md)
    #[arg(long = "gpu.replay", value_name = "FILE")]
    pub replay: Option<PathBuf>,
    /// Put namespace, pod and container on the series of GPUs that one pod has to itself, as dcgm-exporter does
    #[arg(long = "gpu.pod-labels")]
    pub pod_labels: bool,
    /// The kubelet's socket that tells which pod has which GPU
    #[arg(
        long = "gpu.pod-resources-socket",
        value_name = "FILE",
        default_value = "/var/lib/kubelet/pod-resources/kubelet.sock"
    )]
    pub pod_resources_socket: PathBuf,
    /// Folder with a file per GPU number that holds its jobs, one a line, as a scheduler's prolog writes them
    #[arg(long = "gpu.job-mapping-directory", value_name = "FOLDER", alias = "hpc-job-mapping-dir")]
    pub job_mapping: Option<PathBuf>,
    /// The kernel log, or a file of its form
    #[arg(long = "path.kmsg", value_name = "FILE", default_value = "/dev/kmsg")]
    pub kmsg: PathBuf,
    /// The executable that reads GPUs; tests set it.
    #[arg(long = "gpu.reader-program", value_name = "FILE", hide = true)]
    pub reader_program: Option<PathBuf>,
}

impl GpuOptions {
    /// How long a GPU may stay silent.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

impl Default for GpuOptions {
    /// What the program has without arguments.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Bare {
            #[command(flatten)]
            options: GpuOptions,
        }
        <Bare as clap::Parser>::parse_from(["pharos-agent"]).options
    }
}
