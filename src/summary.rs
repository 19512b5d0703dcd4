//! What a person reads first: where to look, and what is watched.

use pharos_agent::{AgentStatus, GpuState};
use std::path::PathBuf;

/// Where everything is.
pub(crate) struct Summary {
    pub(crate) collector_url: String,
    pub(crate) alertmanager_url: String,
    pub(crate) agent_url: String,
    pub(crate) storage_path: PathBuf,
}

impl Summary {
    /// Prints it, once the agent knows whether there are GPUs.
    pub(crate) async fn show(&self, agent: &AgentStatus) {
        let gpus = describe(&agent.gpus_known().await);
        let samplers = agent.samplers().len();
        eprintln!(
            "\n  Pharos watches {node}: {samplers} samplers at 1 s, {gpus}.\n\
             \n    queries, graphs, rules   {collector}\
             \n    alerts and escalations   {alertmanager}\
             \n    this node's metrics      {agent_url}/metrics\
             \n    data                     {data}\n\
             \n  Try:  curl '{collector}/api/v1/query?query=node_load1'\
             \n  Ctrl-C stops it; nothing is lost.\n",
            node = agent.node(),
            collector = self.collector_url,
            alertmanager = self.alertmanager_url,
            agent_url = self.agent_url,
            data = self.storage_path.display(),
        );
    }
}

fn describe(gpus: &GpuState) -> String {
    match gpus {
        GpuState::Loaded { driver, gpus } if !gpus.is_empty() => {
            format!("{} GPUs ({}), driver {driver}", gpus.len(), gpus.join(", "))
        }
        GpuState::Loaded { driver, .. } => format!("no GPUs (driver {driver} shows none)"),
        GpuState::NoLibrary { .. } => "no GPUs (NVIDIA's library is not installed)".to_owned(),
        GpuState::Unknown => "GPUs not known yet".to_owned(),
    }
}
