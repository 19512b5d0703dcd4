//! `pharos-agent`: the agent as a program of its own.

use clap::Parser;
use pharos_agent::{AgentError, AgentOptions};
use pharos_common::flags::LogFlags;
use pharos_common::server::{self, ListenError};
use pharos_common::shutdown;
use std::process::ExitCode;

/// Samples this node every second and pushes to a Pharos collector
#[derive(Debug, Parser)]
#[command(name = "pharos-agent", version)]
struct Cli {
    #[command(flatten)]
    agent: AgentOptions,
    #[command(flatten)]
    log: LogFlags,
}

fn main() -> ExitCode {
    // The GPU reader is this program started again.
    if let Some(code) = pharos_agent::run_gpu_reader_if_asked() {
        return code;
    }
    let cli = Cli::parse();
    cli.log.init();
    match run(cli.agent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "The agent does not run");
            let usage = error.downcast_ref::<AgentError>().is_some_and(AgentError::is_usage);
            let of_listening = error.downcast_ref::<ListenError>().map_or(1, ListenError::exit_code);
            ExitCode::from(if usage { 2 } else { of_listening })
        }
    }
}

fn run(options: AgentOptions) -> anyhow::Result<()> {
    let config = options.load()?;
    // Sampling and the journal have their threads; the network of one agent needs no more than one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = shutdown::on_signal()?;
        let mut listeners = Vec::new();
        for address in &options.web.listen_addresses {
            listeners.push(server::listen(address, "--web.listen-address").await?);
        }
        pharos_agent::run(config, listeners, shutdown).await?;
        Ok(())
    })
}
