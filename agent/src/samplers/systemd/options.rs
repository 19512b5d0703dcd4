//! The systemd sampler's flags, as node_exporter's.

/// Flags about units of systemd.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Sampler options (as node_exporter's)")]
pub struct SystemdOptions {
    /// Units to look at, matched whole
    #[arg(
        long = "collector.systemd.unit-include",
        value_name = "REGEX",
        alias = "collector.systemd.unit-whitelist",
        default_value = ".+"
    )]
    pub unit_include: String,
    /// Units to leave out, matched whole
    #[arg(
        long = "collector.systemd.unit-exclude",
        value_name = "REGEX",
        alias = "collector.systemd.unit-blacklist",
        default_value = r".+\.(automount|device|mount|scope|slice|target)"
    )]
    pub unit_exclude: String,
    /// Publish the tasks of services
    #[arg(skip)]
    pub tasks: bool,
    /// Publish how often services were restarted
    #[arg(skip)]
    pub restarts: bool,
    /// Publish when units were started
    #[arg(skip)]
    pub start_times: bool,
    /// Ask systemd itself instead of the system bus, which takes root
    #[arg(skip)]
    pub private: bool,
}

impl Default for SystemdOptions {
    /// What the program has without arguments.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Bare {
            #[command(flatten)]
            options: SystemdOptions,
        }
        <Bare as clap::Parser>::parse_from(["pharos-agent"]).options
    }
}
