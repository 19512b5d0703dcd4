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
            let code = error.downcast_ref::<pharos_collector::CollectorError>().map_or(1, |e| e.exit_code());
            ExitCode::from(code)
        }
    }
}

#[tokio::main]
async fn serve(options: Options) -> anyhow::Result<()> {
    let shutdown = shutdown::on_signal()?;
    let listener = server::listen(&options.listen_address, "--web.listen-address").await?;
    pharos_collector::run(options, listener, shutdown).await?;
    Ok(())
}
