//! `pharos-alertmanager`: the alertmanager as a program of its own.

use clap::Parser;
use pharos_alertmanager::{LISTEN_FLAG, Options, run};
use pharos_common::{server, shutdown};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    options.log.init();
    match start(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            tracing::error!("{error:#}");
            ExitCode::from(code)
        }
    }
}

async fn start(options: Options) -> Result<(), (u8, anyhow::Error)> {
    let shutdown = shutdown::on_signal().map_err(|error| (1, error.into()))?;
    let listener = server::listen(&options.listen_address, LISTEN_FLAG)
        .await
        .map_err(|error| (error.exit_code(), error.into()))?;
    run(options, listener, shutdown).await.map_err(|error| (error.exit_code(), error.into()))
}
