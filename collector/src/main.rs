//! The collector as a program of its own.

use clap::Parser;
use pharos_collector::Options;
use pharos_common::{server, shutdown};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    options.log.init();
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let of_listening = || error.downcast_ref::<server::ListenError>().map(server::ListenError::exit_code);
    let of_running = error.downcast_ref::<pharos_collector::CollectorError>().map(|error| error.exit_code());
    of_running.or_else(of_listening).unwrap_or(1)
}

#[tokio::main]
async fn serve(options: Options) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signal()?;
    let listener = server::listen(&options.listen_address, "--web.listen-address").await?;
    pharos_collector::run(options, listener, shutdown).await?;
    Ok(())
}
